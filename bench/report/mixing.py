"""The note at the top of a page whose records differ in what moves numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.report import environment
from bench.report.entries import BASELINE, Corpus, Run, Setting
from bench.report.environment import COLUMNS, Environment
from bench.report.tables import View

_MOST = 20
"""Values of a column that the note names."""


def note(corpora: Sequence[Corpus]) -> View | None:
    """Returns what the ok runs differ in, and what this hinders; None if they differ in nothing.

    Asks the records themselves, so it says the same of a page that was told to mix them.
    """
    rows = [row for corpus in corpora for row in corpus.rows]
    every = Counter(_of(run) for row in rows for s in row.settings for run in s.ok.values())
    places = environment.differing(every)
    if not places:
        return None
    columns = []
    for place in places:
        met: Counter[str] = Counter()
        for one, n in every.items():
            met[environment.value(one[place])] += n
        values = [f"{value} ({n:,} run{'s' if n > 1 else ''})" for value, n in met.most_common()]
        more = [f"and {len(values) - _MOST:,} more"] if len(values) > _MOST else []
        columns.append({"name": COLUMNS[place], "met": values[:_MOST] + more})
    compared = across = 0
    for row in rows:
        base = _known(row.baseline) if row.baseline else {}
        for setting in row.settings:
            if setting.name == BASELINE:
                continue
            own = _known(setting)
            reps = own.keys() & base.keys()
            compared += bool(reps)
            both = {one for rep in reps for one in (own[rep], base[rep])}
            across += bool(environment.differing(both))
    settings = [setting for row in rows for setting in row.settings]
    return {
        "columns": columns,
        "entries": sum(bool(environment.differing(_known(s).values())) for s in settings),
        "of_entries": len(settings),
        "comparisons": across,
        "of_comparisons": compared,
    }


def where(corpora: Sequence[Corpus]) -> dict[str, str]:
    """Returns by run_id what the ok runs of the page differ in; nothing if they do not."""
    known = {run.run_id: _of(run) for corpus in corpora for run in corpus.runs if run.ok}
    places = environment.differing(known.values())
    if not places:
        return {}
    return {
        run_id: ", ".join(environment.value(one[place]) for place in places)
        for run_id, one in known.items()
    }


def _known(setting: Setting) -> dict[int, Environment]:
    return {rep: _of(run) for rep, run in setting.ok.items()}


def _of(run: Run) -> Environment:
    return run.environment or environment.of(run.record)
