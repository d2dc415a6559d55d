"""The figure that compares many rows: perplexity of each, valid and test side by side."""

from __future__ import annotations

import math

from plotly.subplots import make_subplots

from bench.report import words
from bench.report.drawing import color, json_of, label, labels
from bench.report.entries import Corpus, Row
from bench.stats import Estimate, mean_interval

LEAST = 4
"""Rows that the figure is worth drawing for: the table compares fewer."""


def overview(corpus: Corpus) -> str | None:
    """Perplexity of every row, valid and test side by side; None for fewer than LEAST rows."""
    if len(corpus.rows) < LEAST:
        return None
    fig = make_subplots(
        rows=1, cols=2, subplot_titles=["valid", "test"], shared_yaxes=True, horizontal_spacing=0.04
    )
    found: dict[tuple[str, int], list[tuple[int, Estimate, str]]] = {}
    for place, row in enumerate(corpus.rows):
        for setting in row.settings:
            for column, split in enumerate(("valid", "test"), start=1):
                values = list(setting.values(f"{split}_nll").values())
                # Test only of the setting that is best on valid, as everywhere on the page.
                if setting.chosen and values and max(values) < 700:
                    estimate = mean_interval(values)
                    found.setdefault((setting.name, column), []).append(
                        (place, estimate, f"{label(setting.label)}, n = {estimate.n}")
                    )
    if not found:
        return None
    spread = len(corpus.names)
    for (name, column), points in found.items():
        # Settings of one row lie beside each other, the baseline on top.
        shift = 0.5 * (corpus.names.index(name) - (spread - 1) / 2) / spread
        middle = [math.exp(e.mean) for _, e, _ in points]
        ends = [(e.low, e.high) if e.n > 2 else (None, None) for _, e, _ in points]
        bars = {
            "array": [
                math.exp(h) - m if h is not None and h < 700 else 0
                for (_, h), m in zip(ends, middle, strict=True)
            ],
            "arrayminus": [
                m - math.exp(low) if low is not None else 0
                for (low, _), m in zip(ends, middle, strict=True)
            ],
        }
        fig.add_scatter(
            x=middle,
            y=[place + shift for place, _, _ in points],
            error_x={"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, **bars},
            text=[hover for _, _, hover in points],
            mode="markers",
            marker={"color": color(name, corpus), "size": 8},
            name=label(name),
            legendgroup=label(name),
            showlegend=column == 1,
            hovertemplate="%{x:.1f}, %{text}",
            row=1,
            col=column,
        )
    fig.update_xaxes(title_text="perplexity", showgrid=True, gridcolor="#eeeeee")
    short = labels((row.short for row in corpus.rows), 46)
    ticks = [short[row.short] + _parameters(row) for row in corpus.rows]
    fig.update_yaxes(
        tickvals=list(range(len(ticks))), range=[len(ticks) - 0.4, -0.6], automargin=True
    )
    fig.update_yaxes(ticktext=ticks, col=1)
    fig.update_layout(height=170 + (14 + 11 * spread) * len(ticks))
    return json_of(fig, entries=spread)


def _parameters(row: Row) -> str:
    found = [n for s in row.settings for run in s.runs if (n := run.number("num_params"))]
    return f" · {words.size(found[0])}" if found else ""
