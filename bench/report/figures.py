"""The page's figures of learning and of differences, as plotly JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

from bench.report.comparisons import differences
from bench.report.drawing import color, json_of, label, labels
from bench.report.entries import Corpus, Run, Setting
from bench.stats import Estimate

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
Curves = Mapping[str, Sequence[tuple[int, float]]]


def curves_of(epochs: pd.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """(epoch, valid nll) of every run, in order: of what has a place on a log axis."""
    curves: dict[str, list[tuple[int, float]]] = {}
    part = epochs[["run_id", "epoch", "valid_nll"]].dropna().sort_values(["run_id", "epoch"])
    for run_id, epoch, nll in part.itertuples(index=False, name=None):
        if _drawable(nll):
            curves.setdefault(str(run_id), []).append((int(epoch), float(nll)))
    return curves


def learning_curves(corpus: Corpus, curves: Curves) -> str | None:
    """One panel per row: median over ok repetitions and their full range; None without data.

    Repetitions that may not be averaged are drawn one by one.
    """
    rows = [r for r in corpus.rows if any(_by_epoch(s.runs, curves) for s in r.settings)]
    if not rows:
        return None
    columns = {1: 1, 2: 2, 4: 2}.get(len(rows), 3)
    lines = math.ceil(len(rows) / columns)
    titles = labels((row.short for row in rows), 46 if columns == 3 else 64)
    names = labels((s.label for row in rows for s in row.settings), 40)
    fig = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes="all",
        subplot_titles=[titles[row.short] for row in rows],
        horizontal_spacing=0.03,
        vertical_spacing=min(0.16, 0.36 / lines),
        x_title="epoch",
        y_title="valid perplexity, log axis",
    )
    seen: set[str] = set()
    values: list[float] = []
    for i, row in enumerate(rows):
        at = {"row": i // columns + 1, "col": i % columns + 1}
        for setting in row.settings:
            shade, dash = _style(setting, corpus)
            group = {"legendgroup": label(setting.name)}
            for runs in [(run,) for run in setting.runs] if setting.mixed else [setting.runs]:
                points = _by_epoch(runs, curves)
                if not points:
                    continue
                values += [math.exp(v) for nlls in points.values() for v in nlls]
                x = list(points)
                if any(len(nlls) > 1 for nlls in points.values()):
                    high, low = ([math.exp(f(points[e])) for e in x] for f in (max, min))
                    fig.add_scatter(
                        x=x + x[::-1], y=high + low[::-1], **_band(shade), **group, **at
                    )
                fig.add_scatter(
                    x=x,
                    y=[math.exp(median(points[e])) for e in x],
                    name=names[setting.label],
                    mode="lines" if len(x) > 1 else "markers",
                    line={"color": shade, "dash": dash, "width": 1 if setting.mixed else 2},
                    marker={"color": shade},
                    showlegend=setting.spelling not in seen,
                    hovertemplate="epoch %{x}: %{y:.1f}",
                    **group,
                    **at,
                )
                seen.add(setting.spelling)
        longest = max(e for s in row.settings for e in _by_epoch(s.runs, curves))
        for name, nll, dash in _references(corpus):
            values.append(math.exp(nll))
            line = {"color": "#8a8a8a", "dash": dash, "width": 1.2}
            where = {"x": [1, max(longest, 2)], "y": [math.exp(nll)] * 2, "mode": "lines"}
            more = {"name": name, "legendgroup": name, "showlegend": i == 0, "line": line}
            fig.add_scatter(**where, **more, hovertemplate="%{y:.1f}", **at)
    fig.update_yaxes(type="log", **_log_ticks(min(values), max(values)))
    fig.update_xaxes(tickformat="d")
    fig.update_layout(height=130 + 290 * lines, hovermode="x")
    most = max(sum(s.name == name for s in row.settings) for row in rows for name in corpus.names)
    return json_of(fig, entries=len(seen) + 2, stacked=most)


def forest(corpus: Corpus) -> str | None:
    """Paired differences to `none` with 95 % intervals, valid and test side by side."""
    fig = make_subplots(
        rows=1, cols=2, subplot_titles=["valid", "test"], shared_yaxes=True, horizontal_spacing=0.04
    )
    places: dict[tuple[str, str], int] = {}
    ticks: list[str] = []
    found: dict[tuple[str, int], list[tuple[int, Estimate, str]]] = {}
    rows = labels((row.short for row in corpus.rows), 46)
    settings = labels((s.label for row in corpus.rows for s in row.settings), 30)
    for row in corpus.rows:
        for column, split in enumerate(("valid", "test"), start=1):
            for setting, d, _ in differences(row, split):
                if d is None:
                    continue
                key = (row.label, setting.spelling)
                if key not in places:
                    places[key] = len(places)
                    ticks.append(f"{rows[row.short]} · {settings[setting.label]}")
                hover = f"{d.n} pairs"
                found.setdefault((setting.name, column), []).append((places[key], d, hover))
    if not found:
        return None
    for (name, column), points in found.items():
        shade = color(name, corpus)
        symbols = ["circle" if d.n > 2 else "circle-open" for _, d, _ in points]
        fig.add_scatter(
            x=[d.mean for _, d, _ in points],
            y=[place for place, _, _ in points],
            error_x={"type": "data", "array": [d.half or 0.0 for _, d, _ in points]},
            text=[hover for _, _, hover in points],
            mode="markers",
            marker={"color": shade, "size": 8, "symbol": symbols},
            name=label(name),
            legendgroup=label(name),
            showlegend=column == 1,
            hovertemplate="%{x:+.4f} nats, %{text}",
            row=1,
            col=column,
        )
    fig.add_vline(x=0, line={"color": "#222222", "width": 1.5})
    fig.update_xaxes(title_text="difference in nll, nats", showgrid=True, gridcolor="#eeeeee")
    fig.update_yaxes(
        tickvals=list(range(len(ticks))), range=[len(ticks) - 0.4, -0.6], automargin=True
    )
    fig.update_yaxes(ticktext=ticks, col=1)
    fig.update_layout(height=170 + 26 * len(ticks))
    return json_of(fig, entries=len({name for name, _ in found}))


def _by_epoch(runs: Sequence[Run], curves: Curves) -> dict[int, list[float]]:
    points: dict[int, list[float]] = {}
    for run in runs:
        for epoch, nll in curves.get(run.run_id, ()) if run.ok else ():
            points.setdefault(epoch, []).append(nll)
    return dict(sorted(points.items()))


def _references(corpus: Corpus) -> list[tuple[str, float, str]]:
    """Floor and unigram, where the source is known (elsewhere unigram only flattens the plot)."""
    floor, unigram = corpus.known("valid_floor"), corpus.known("unigram_nll")
    if floor is None:
        return []
    lines = [("floor: the source itself", floor, "dash"), ("unigram model", unigram, "dot")]
    return [(name, nll, dash) for name, nll, dash in lines if nll is not None and _drawable(nll)]


def _drawable(nll: float) -> bool:
    """Whether its perplexity is a float, and none below 1, which only a foreign record has."""
    return 0 <= nll < 700


def _band(shade: str) -> dict[str, Any]:
    band: dict[str, Any] = {"fill": "toself", "fillcolor": _faint(shade), "line": {"width": 0}}
    return band | {"mode": "lines", "hoverinfo": "skip", "showlegend": False}


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _style(setting: Setting, corpus: Corpus) -> tuple[str, str]:
    """One colour per regularizer name; settings of one name differ in their dashes."""
    same = dict.fromkeys(
        s.spelling for row in corpus.rows for s in row.settings if s.name == setting.name
    )
    return color(setting.name, corpus), DASHES[list(same).index(setting.spelling) % len(DASHES)]


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Round ticks for a log axis; plotly's own abbreviate to bare digits."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for steps in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8), (1, 2, 3, 5), (1, 3), (1,)):
        ticks = [s * 10.0**k for k in range(first, last) for s in steps]
        ticks = [t for t in ticks if low * 0.97 <= t <= high * 1.03]
        if 2 <= len(ticks) <= 9:
            return {"tickvals": ticks, "ticktext": [f"{t:,.6g}" for t in ticks]}
    return {}
