"""Published figures beside ours: where they fit, with the difference. They enter no statistic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.plugins.published import MARKS, Published, published
from bench.report import words
from bench.report.entries import Corpus, Row, Setting

View = dict[str, Any]
Notes = Mapping[Published, int]


def matching(row: Row, setting: Setting) -> list[Published]:
    """Published rows of the same cell, regularizer, corpus and size, as the table has them."""
    trial = setting.runs[0].trial
    # The regularizer adds no parameters: any record of the row tells the size.
    runs = [run for s in (setting, *row.settings) for run in s.runs]
    record = next((r.record for r in runs if r.number("num_params") is not None), {})
    return [one for one in published() if one.agrees(trial, record)]


def notes(corpus: Corpus) -> dict[Published, int]:
    """Numbers the published rows that stand on a corpus's table, in order of appearance."""
    met = (one for row in corpus.rows for s in row.settings for one in matching(row, s))
    return {one: i for i, one in enumerate(dict.fromkeys(met), start=1)}


def beside(row: Row, setting: Setting, numbers: Notes) -> list[View]:
    """What stands under our figures: one line a published row.

    Our test stands there only for the setting best on valid, as everywhere on the page.
    """
    views = []
    for one in matching(row, setting):
        kind = "_mc" if one.evaluation == "mc" else ""
        scores = []
        for split in ("valid", "test"):
            theirs = one.ppl(split)
            if theirs is None or (split == "test" and not setting.chosen):
                continue
            ours = list(setting.values(f"{split}{kind}_nll").values())
            score = f"{split}{' MC' if kind else ''} {theirs:.2f}"
            if ours and (mean := sum(ours) / len(ours)) < 700:
                score += f", ours {words.change(math.exp(mean) - theirs)}"
            scores.append(score)
        if scores:
            views.append({"number": numbers[one], "model": one.model, "scores": scores})
    return views


def sources(numbers: Notes) -> list[View]:
    """The notes below a table, in order: which model, from where, and how well it is attested."""
    found = []
    for one, number in numbers.items():
        scores = [f"{s} {p:.2f}" for s in ("valid", "test") if (p := one.ppl(s)) is not None]
        view: View = {"number": number, "model": one.model, "scores": ", ".join(scores)}
        view |= {"source": one.source, "note": one.note, "mark": one.mark}
        found.append(view | {"meaning": MARKS[one.mark]})
    return found
