"""What the page's figures share: colours, labels, and their JSON.

Plotly reads a little HTML in labels: names are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report import words
from bench.report.entries import BASELINE, Corpus

# Okabe and Ito: told apart by colour-blind readers; their yellow is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#4d4d4d"


def color(name: str, corpus: Corpus) -> str:
    """One colour per regularizer name, grey for none."""
    others = [n for n in corpus.names if n != BASELINE]
    return GREY if name == BASELINE else PALETTE[others.index(name) % len(PALETTE)]


def labels(texts: Iterable[str], limit: int) -> dict[str, str]:
    """Maps each text to one of at most `limit` characters, escaped for plotly; no two are alike.

    Cut are those that are longer, in the middle: what tells two apart often stands last. Where it
    does not, they are cut so that it is seen, at worst numbered.
    """
    short = {text: _cut(text, limit) for text in texts}
    for same in _alike(short):
        start = _first_difference(same)
        short |= {text: _cut_to(text, start, limit) for text in same}
    alike = [text for same in _alike(short) for text in same]
    short |= {text: f"({i}) {_cut(text, limit - 6)}" for i, text in enumerate(alike, start=1)}
    # Quotes stay, since plotly decodes only a few entities.
    return {text: html.escape(words.visible(cut), quote=False) for text, cut in short.items()}


def label(text: str, limit: int = 40) -> str:
    """One text, cut and escaped."""
    return labels([text], limit)[text]


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def _cut_to(text: str, start: int, limit: int) -> str:
    """The text's beginning, then what stands from `start` on."""
    head, room = text[: limit // 3], limit - limit // 3 - 2
    rest = text[start : start + room]
    return f"{head}…{rest}" + ("…" if len(text) > start + room else "")


def _first_difference(texts: Sequence[str]) -> int:
    columns = enumerate(zip(*texts, strict=False))
    return next((i for i, chars in columns if len(set(chars)) > 1), min(map(len, texts)))


def _alike(short: Mapping[str, str]) -> list[list[str]]:
    """The texts that were cut to the same."""
    met: dict[str, list[str]] = {}
    for text, cut in short.items():
        met.setdefault(cut, []).append(text)
    return [texts for texts in met.values() if len(texts) > 1]


def json_of(fig: Any, entries: int, stacked: int = 1) -> str:
    """Styles the figure; a legend of few entries stands on top, in stacks of one name each."""
    side = {"x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"}
    top = {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"}
    fig.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        legend=top if entries <= 10 else side,
        margin={"l": 70, "r": 20, "t": 56 + 19 * stacked, "b": 56},
    )
    fig.update_xaxes(title_font_size=13)
    fig.update_annotations(font_size=13)
    text: str = fig.to_json()
    # Inside <script>, where only these could end the element or open a comment.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
