"""`--dry-run`: what a grid would do, and what it would cost by the speeds on record."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store
from bench.config import Trial, select
from bench.corpora import load
from bench.display import repeated, varying
from bench.fields import acts, written
from bench.job import Job
from bench.plan import Plan
from bench.plugins import Registry, find, load_class

if TYPE_CHECKING:
    import pandas as pd

_NOTHING = "–"
_UNKNOWN = "no measurement yet"
_SIZE = ("corpus", "nhid", "emsize", "nlayers", "tied", "bptt", "batch_size", "precision")
"""Trials that agree in these, in their cell and in their regularizers cost the same."""
_MEASURED = (
    *("status", "cuda", "cell", "regularizer", *_SIZE),
    *("epochs_done", "train_seconds", "eval_seconds", "tokens_per_s", "num_params"),
)
"""The columns of the records that say what a trial costs."""


def show(plan: Plan, results: Path, rerun: str | None, slots: int, device: str) -> None:
    """Prints the trials with run_id, parameters, state and cost; starts and writes nothing."""
    todo = {job.run_id for job in plan.to_run(rerun)}
    runs, problems = store.load_runs(results, columns=_MEASURED)
    runs = runs[(runs.status == "ok") & (runs.cuda.notna() == (device == "cuda"))]
    cost_of = _costs(runs, plan.train_tokens)
    trials = list(plan.trials.values())
    columns = varying(trials)
    if "nhid" not in columns:
        columns.insert(0, "nhid")
    head = ["run_id", "cell", "regularizer", *columns, "rep", "parameters", "state", "cost"]
    rows, total, scaled, unknown = [], 0.0, False, 0
    count_of = _counter(plan)
    for job in plan.jobs:
        trial = plan.trials[job.run_id]
        count = count_of(job, trial)
        row = [job.run_id, trial.cell, trial.regularizer]
        row += [
            written(value) if acts(vars(trial), name) else _NOTHING
            for name in (*columns, "rep")
            for value in [getattr(trial, name)]
        ]
        row.append("?" if count is None else f"{count:,}")
        status = plan.statuses.get(job.run_id)
        if job.run_id not in todo:
            rows.append([*row, f"recorded {status}", ""])
            continue
        seconds, exact = cost_of(trial, count)
        if seconds is None:
            cost, unknown = _UNKNOWN, unknown + 1
        else:
            cost = f"{'' if exact else '~'}{_span(seconds)}"
            total, scaled = total + seconds, scaled or not exact
        rows.append([*row, "to run" if status is None else f"to run, was {status}", cost])
    numbers = {n for n in columns if not isinstance(getattr(trials[0], n), str)}
    _print_table(head, rows, right={*numbers, "rep", "parameters"})
    print(_in_common(trials, columns))
    for (cell, regularizer, reason), number in plan.expansion.skipped.items():
        print(f"skipped: {cell} x {regularizer} ({number}): {reason}")
    for line in problems:
        print(f"warning: {line}")
    if plan.expansion.merged:
        print(f"{_trials(plan.expansion.merged, 'equal ')} merged")
    costs = [f"{'~' if scaled else ''}{_span(total / slots)} on {slots} at a time"] if total else []
    costs += [f"{_trials(unknown)} with {_UNKNOWN}"] if unknown else []
    print(
        f"{plan.grid.name}: {_trials(len(rows))}, {len(todo)} to run; "
        f"cost: {', and '.join(costs) or 'none'}"
    )


def _trials(number: int, kind: str = "") -> str:
    return f"{number:,} {kind}trial{'s' * (number != 1)}"


def _print_table(head: list[str], rows: list[list[str]], right: set[str]) -> None:
    # As wide as it is: a terminal wraps its lines, and no run_id is cut.
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _in_common(trials: list[Trial], columns: list[str]) -> str:
    """Returns the fields that are equal in all trials, in words."""
    told = {"cell", "regularizer", "rep", *columns} | repeated(trials)
    words = []
    for name in (name for name in Trial.model_fields if name not in told):
        acting = [t for t in trials if acts(vars(t), name)]
        words += [f"{name} {written(getattr(acting[0], name))}"] if acting else []
    if "dropouti" in repeated(trials):
        words.append("dropouti as dropout")
    text = ", ".join(words)
    return textwrap.fill(
        f"every trial: {text}", 100, break_long_words=False, break_on_hyphens=False
    )


def _counter(plan: Plan) -> Callable[[Job, Trial], int | None]:
    """Returns a function that counts a trial's parameters, or gives None where its cell fails.

    The model is built on torch's meta device: without memory, whatever its size.
    """
    folder = plan.jobs[0].plugins
    registry: Registry = find(Path(folder) if folder else None)
    known: dict[tuple[object, ...], int | None] = {}

    def count(job: Job, trial: Trial) -> int | None:
        key = (trial.corpus, trial.cell, trial.nhid, trial.emsize, trial.nlayers, trial.tied)
        if key not in known:
            import torch

            from bench.model import build

            cell, _ = select(trial, registry)
            corpus = load(trial.corpus, Path(job.data_dir), job.corpus_hash)
            try:
                with torch.device("meta"):
                    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
                    known[key] = build(trial, make_cell, len(corpus.vocab)).num_params
            except Exception:  # whatever a plugin raises becomes its trial's record, not ours
                known[key] = None
        return known[key]

    return count


def _costs(
    runs: pd.DataFrame, train_tokens: dict[str, int]
) -> Callable[[Trial, int | None], tuple[float | None, bool]]:
    """Returns a function of a trial and its parameters, from the ok runs on record.

    It gives the seconds all epochs would take, and whether records of such a trial say so.
    """
    runs = runs[runs.epochs_done > 0].copy()
    seconds = runs.train_seconds + runs.eval_seconds
    runs["epoch"] = seconds / runs.epochs_done
    # Work grows with tokens x parameters; far from the sizes on record this is rough, hence "~".
    runs["work"] = seconds / (runs.tokens_per_s * runs.train_seconds * runs.num_params)
    for name in ("cell", "regularizer"):
        runs[name] = runs[name].map(_names)
    epochs = _medians(runs, ("cell", "regularizer", *_SIZE), "epoch")
    same = _medians(runs, ("cell", *_SIZE), "work")
    near = _medians(runs, ("cell", "batch_size", "precision"), "work")

    def cost(trial: Trial, num_params: int | None) -> tuple[float | None, bool]:
        cell, size = _names(trial.cell), tuple(getattr(trial, name) for name in _SIZE)
        known = epochs.get((cell, _names(trial.regularizer), *size))
        if known is not None:
            return known * trial.epochs, True
        work = same.get((cell, *size), near.get((cell, trial.batch_size, trial.precision)))
        if work is None or num_params is None:
            return None, False
        return work * train_tokens[trial.corpus] * num_params * trial.epochs, False

    return cost


def _medians(
    runs: pd.DataFrame, columns: tuple[str, ...], of: str
) -> dict[tuple[object, ...], float]:
    return {
        tuple(key): float(value)
        for *key, value in runs.groupby(list(columns))[of].median().reset_index().to_numpy()
    }


@functools.cache
def _names(selection: str) -> str:
    """Returns the names of a selection, without hyper-parameters."""
    return "+".join(part.split(":")[0] for part in selection.split("+"))


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
