"""What a large grid's page leaves out, the sentence that says so, and the summary that does not.

Tables and figures of single settings show the first ones, in the grid's order: to choose the best
would be a choice that a reader takes for a result. All else counts every trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.report import overview, tables, words
from bench.report.entries import BASELINE, Corpus, Row, Setting
from bench.report.tables import View

SETTINGS = 1000
"""Settings in the tables of a corpus."""
DRAWN = 400
"""Settings in each of its figures."""
RUNS = 4000
"""Runs in the table of single runs."""
LINES = 500
"""Lines of any other list: failures, files that cannot be read, names in full."""


def first(corpus: Corpus, most: int) -> Corpus:
    """Returns the corpus with the first `most` settings of its rows, baselines before others.

    A row that is cut keeps its baseline and, of each name, the setting that is best on valid, or
    the first where none is: what failed everywhere is still in the grid.
    """
    rows: list[Row] = []
    left = most
    for row in corpus.rows:
        if left <= 0:
            break
        settings = row.settings
        if len(settings) > left:
            kept_of = {s.name: s.spelling for s in reversed(settings)}
            kept_of |= {s.name: s.spelling for s in settings if s.chosen}
            vital = [s.name == BASELINE or kept_of[s.name] == s.spelling for s in settings]
            room = max(0, left - sum(vital))
            others = [s for s, keep in zip(settings, vital, strict=True) if not keep][:room]
            kept = {s.spelling for s in others}
            settings = tuple(
                s for s, keep in zip(settings, vital, strict=True) if keep or s.spelling in kept
            )
            row = replace(row, settings=settings)
        rows.append(row)
        left -= len(settings)
    return corpus if rows == list(corpus.rows) else replace(corpus, rows=tuple(rows))


def cut(shown: Corpus, corpus: Corpus) -> str:
    """Returns how much of a corpus is shown: `the first 100 of 2,000 settings`, or nothing."""
    if shown is corpus:
        return ""
    some, every = (sum(len(row.settings) for row in one.rows) for one in (shown, corpus))
    return f"the first {some:,} of {every:,} settings"


def no_overview(few: Corpus, corpus: Corpus) -> str:
    """Returns why the rows are compared in no figure, where the cut may be to blame; or nothing."""
    if few is corpus or len(corpus.rows) < overview.LEAST:
        return ""
    rows = f"{cut(few, corpus)}, in {len(few.rows):,} of {len(corpus.rows):,} rows"
    small = len(few.rows) < overview.LEAST
    return f"{rows}, {'too few rows to compare' if small else 'none with an ok run'}"


def lines(table: Sequence[View], shown: Corpus) -> list[View]:
    """Returns those lines of a table that belong to settings that are shown."""
    there = {(row.label, s.spelling) for row in shown.rows for s in row.settings}
    by_row: dict[str, list[View]] = {}
    for line in table:
        if (line["row"].label, line["setting"].spelling) in there:
            by_row.setdefault(line["row"].label, []).append(line)
    return [line for same in by_row.values() for line in tables.spanned(same)]


def summary(corpus: Corpus, comparisons: Sequence[View]) -> list[View]:
    """Returns a line for each regularizer name over all rows; `comparisons` is `paired_table`."""
    found = []
    for name in corpus.names:
        settings = [(row, s) for row in corpus.rows for s in row.settings if s.name == name]
        runs = [run for _, s in settings for run in s.runs]
        others = sorted(run.status for run in runs if not run.ok)
        own = [line for line in comparisons if line["setting"].name == name]
        view: View = {
            "name": name,
            "settings": len(settings),
            "runs": f"{len(runs) - len(others):,} of {len(runs):,} ok",
            "others": words.count(others),
            "best": _best(settings),
            "splits": [],
        }
        for split in () if name == BASELINE else ("valid", "test"):
            said = [line["verdict"] for line in own if line["split"] == split]
            view["splits"].append({"split": split, "of": len(said)} | _told(said))
        found.append(view)
    return found


def _told(verdicts: Sequence[str]) -> dict[str, Any]:
    def number(start: str) -> int:
        return sum(verdict.startswith(start) for verdict in verdicts)

    taken_back = [verdict for verdict in verdicts if verdict.endswith("not after Holm")]
    told: dict[str, Any] = {start: number(start) for start in ("lower", "higher")}
    told["open"] = number("no difference shown")
    told["few"] = len(verdicts) - sum(told.values())
    for start in ("lower", "higher"):
        back = sum(verdict.startswith(start) for verdict in taken_back)
        told[f"{start}_holm"] = told[start] - back
    return told


def _best(settings: Sequence[tuple[Row, Setting]]) -> str:
    """Returns the setting with the lowest mean valid nll, with its number of ok runs."""

    def mean(setting: Setting) -> float:
        values = setting.values("valid_nll")
        return sum(values.values()) / len(values)

    known = [(mean(s), row, s) for row, s in settings if s.chosen and s.values("valid_nll")]
    if not known:
        return words.NOTHING
    nll, row, setting = min(known, key=lambda one: one[0])
    n = len(setting.values("valid_nll"))
    return f"{words.ppl(nll)}: {row.label}, {setting.label} (n = {n})"
