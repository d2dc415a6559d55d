"""`--dry-run`: what a grid would do, and what it would cost by the speeds on record."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store
from bench.config import Trial, select
from bench.corpora import load
from bench.driver import Plan
from bench.plugins import Registry, find, load_class
from bench.worker import Job

if TYPE_CHECKING:
    import pandas as pd


def show(plan: Plan, results: Path, rerun: str | None, slots: int, device: str) -> None:
    """Prints the trials with run_id, parameters, state and cost; starts and writes nothing."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    todo = {job.run_id for job in plan.to_run(rerun)}
    runs, problems = store.load_runs(results)
    runs = runs[(runs.status == "ok") & (runs.cuda.notna() == (device == "cuda"))]
    columns = _varying(list(plan.trials.values()))
    table = Table(box=box.SIMPLE)
    for name in ("run_id", "cell", "regularizer", *columns, "parameters", "state", "cost"):
        right = name in (*columns, "parameters", "cost")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    plugins = plan.jobs[0].plugins
    registry = find(Path(plugins) if plugins else None)
    sizes: dict[tuple[object, ...], int | None] = {}
    total, scaled, unknown = 0.0, False, 0
    for job in plan.jobs:
        trial = plan.trials[job.run_id]
        count = _num_params(job, trial, registry, sizes)
        state = "to run" if job.run_id in todo else f"recorded {plan.statuses[job.run_id]}"
        cost = ""
        if job.run_id in todo:
            seconds, exact = _cost(trial, count, runs, plan.train_tokens)
            if seconds is None:
                cost, unknown = "no measurement yet", unknown + 1
            else:
                cost = f"{'' if exact else '~'}{_span(seconds)}"
                total += seconds
                scaled = scaled or not exact
        values = [str(getattr(trial, name)) for name in columns]
        shown = "?" if count is None else f"{count:,}"
        table.add_row(job.run_id, trial.cell, trial.regularizer, *values, shown, state, cost)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    console.print(table)
    for (cell, regularizer, reason), number in plan.expansion.skipped.items():
        print(f"skipped: {cell} x {regularizer} ({number}): {reason}")
    for line in problems:
        print(f"warning: {line}")
    if plan.expansion.merged:
        print(f"{plan.expansion.merged} equal trials merged")
    cost = f"{'~' if scaled else ''}{_span(total / slots)} on {slots} slots" if total else ""
    if unknown:
        cost += f"{', and ' if cost else ''}{unknown} trials with no measurement yet"
    print(f"{plan.grid.name}: {len(plan.jobs)} trials, {len(todo)} to run; cost: {cost or 'none'}")


def _varying(trials: list[Trial]) -> list[str]:
    names = [n for n in Trial.model_fields if n not in ("cell", "regularizer", "rep")]
    varying = [n for n in names if len({getattr(t, n) for t in trials}) > 1]
    return [*(["nhid"] if "nhid" not in varying else []), *varying, "rep"]


def _num_params(
    job: Job, trial: Trial, registry: Registry, known: dict[tuple[object, ...], int | None]
) -> int | None:
    """Counts the parameters of a model that is built without memory, on torch's meta device."""
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


def _cost(
    trial: Trial, num_params: int | None, runs: pd.DataFrame, train_tokens: dict[str, int]
) -> tuple[float | None, bool]:
    """Returns the seconds all epochs would take, and whether a record of this size says so."""
    cell = trial.cell.split(":")[0]
    near = runs[
        (runs.cell.str.split(":").str[0] == cell)
        & (runs.batch_size == trial.batch_size)
        & (runs.epochs_done > 0)
    ]
    if near.empty:
        return None, False
    per_epoch = (near.train_seconds + near.eval_seconds) / near.epochs_done
    same = (near.nhid == trial.nhid) & (near.corpus == trial.corpus) & (near.bptt == trial.bptt)
    if same.any():
        return float(per_epoch[same].median()) * trial.epochs, True
    if num_params is None:
        return None, False
    # Work grows with tokens x parameters; far from the sizes on record this is rough, hence "~".
    tokens = near.tokens_per_s * near.train_seconds / near.epochs_done
    work = per_epoch / (tokens * near.num_params)
    return float(work.median()) * train_tokens[trial.corpus] * num_params * trial.epochs, False


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
