"""The page's tables of single runs: all of them, those that failed, those that cannot be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from bench.report import words
from bench.report.entries import Corpus, Row, Run, Setting
from bench.report.tables import View

FAILURES = ("failed", "oom", "timeout", "lost", "diverged", "stopped")


def failures(corpora: Sequence[Corpus]) -> list[View]:
    """Every run that did not end ok, with the last line of its traceback."""
    found = [(c, row, s, r) for c, row, s, r in _walk(corpora) if r.status in FAILURES]
    found.sort(key=lambda f: FAILURES.index(f[3].status))
    table = []
    for corpus, row, setting, run in found:
        text = str(run.record.get("error_text") or "").strip()
        table.append(
            _where(corpus, row, setting, run)
            | {
                "error": run.record.get("error_type") or run.reason or words.NOTHING,
                "message": text.splitlines()[-1].strip() if text else words.NOTHING,
                "text": text if "\n" in text else "",
            }
        )
    return table


def impossible(corpora: Sequence[Corpus]) -> list[View]:
    """Runs whose nll is below the source's own: a bug, not a success."""
    return [_where(c, w, s, r) for c, w, s, r in _walk(corpora) if r.reason == "impossible"]


def all_runs(corpora: Sequence[Corpus], most: int | None = None) -> list[View]:
    """The wanted trials, `most` at most; test only where its setting is the best on valid."""
    table = []
    for corpus, row, setting, run in itertools.islice(_walk(corpora), most):
        test = run.number("test_nll") if setting.chosen else None
        valid = run.number("valid_nll")
        numbers = (
            (words.ppl(valid), valid),
            (words.nats(valid), valid),
            (words.ppl(test), test),
            (words.number(run.number("best_epoch")), run.number("best_epoch")),
            (words.number(run.number("epochs_done")), run.number("epochs_done")),
            (words.number(run.number("train_seconds"), 1), run.number("train_seconds")),
            (words.number(run.number("tokens_per_s")), run.number("tokens_per_s")),
            (_mib(run), run.number("peak_mem_bytes")),
        )
        more = {"numbers": numbers, "resumed": int(run.number("resumed") or 0)}
        table.append(_where(corpus, row, setting, run) | more)
    return table


def _mib(run: Run) -> str:
    size = run.number("peak_mem_bytes")
    return words.number(size / 2**20 if size is not None else None)


def _walk(corpora: Sequence[Corpus]) -> Iterable[tuple[Corpus, Row, Setting, Run]]:
    for corpus in corpora:
        for row in corpus.rows:
            for setting in row.settings:
                for run in setting.runs:
                    yield corpus, row, setting, run


def _where(corpus: Corpus, row: Row, setting: Setting, run: Run) -> View:
    return {
        "run_id": run.run_id,
        "corpus": corpus.name,
        "row": row,
        "setting": setting,
        "rep": run.rep,
        "status": run.status,
        "reason": run.reason.replace("_", " "),
    }
