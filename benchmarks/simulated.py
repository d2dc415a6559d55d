"""Recorded trials that nobody trained: plausible, from a seed, of a grid file's very trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.config import expand, load_grid
from bench.corpora import default_data_dir
from bench.job import How, Job, base_record
from bench.plan import Plan, plan
from bench.plugins import find
from bench.store.compact import RUNS_PER_GROUP
from bench.store.rows import arrow_schema

_ERROR = "Traceback:\n  …\nValueError: simulated"


def planned(folder: Path) -> Plan:
    """Returns the plan of the grid file, as `bench.grid` makes it."""
    registry, data_dir = find(), default_data_dir()
    grid = load_grid(str(folder / "grid.yaml"))
    return plan(
        grid,
        expand(grid, registry, data_dir),
        registry,
        results=folder / "results",
        data_dir=data_dir,
        plugins=None,
        how=How(device="cpu", threads=1, keep_weights=False),
    )


def simulated(plan: Plan, epochs: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yields runs and their epochs, plausible and the same each time, sorted by run_id."""
    draws = np.random.default_rng(1)
    jobs = sorted(plan.jobs, key=lambda job: job.run_id)
    for start in range(0, len(jobs), RUNS_PER_GROUP):
        yield _tables(jobs[start : start + RUNS_PER_GROUP], epochs, draws)


def _tables(jobs: list[Job], epochs: int, draws: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    n = len(jobs)
    level = np.array([sum(map(ord, job.trial["cell"])) % 7 / 50 for job in jobs])
    best = 3.9 + level + draws.normal(0, 0.03, n)
    decay = np.exp(-np.arange(1, epochs + 1) / 6)
    curves = best[:, None] + 1.5 * decay + draws.normal(0, 0.004, (n, epochs))
    best = curves.min(axis=1)
    seconds = draws.gamma(9, 1.5, n)
    status = draws.choice(["ok", "diverged", "failed"], n, p=[0.97, 0.02, 0.01])
    ok = status == "ok"
    columns: dict[str, Any] = {
        "schema": [1] * n, "num_params": [10**6 + 3000 * j.trial["nhid"] for j in jobs],
        "epochs_done": [epochs] * n, "best_epoch": curves.argmin(axis=1) + 1,
        "valid_nll": np.where(ok, best, np.nan), "test_nll": np.where(ok, best + 0.02, np.nan),
        "valid_tokens": [40_000] * n, "test_tokens": [40_000] * n, "unigram_nll": [5.3] * n,
        "valid_floor": [3.2] * n, "test_floor": [3.2] * n, "valid_excess": best - 3.2,
        "test_excess": best - 3.18, "valid_excess_se": [0.004] * n, "test_excess_se": [0.004] * n,
        "train_seconds": seconds * epochs, "eval_seconds": seconds, "tokens_per_s": 4e5 / seconds,
        "peak_mem_bytes": draws.integers(3 * 10**8, 5 * 10**8, n), "status": status,
        "stop_reason": [{"ok": "epochs", "diverged": "nan"}.get(s) for s in status],
        "error_type": ["ValueError" if s == "failed" else None for s in status],
        "error_text": [_ERROR if s == "failed" else None for s in status],
        "host": ["simulated"] * n, "device": ["none"] * n, "torch": ["2.13.0"] * n,
        "python": ["3.11.7"] * n, "git_commit": ["0" * 40] * n, "git_dirty": [False] * n,
        "threads": [1] * n, "kernel_path": ["eager"] * n,
        "started_utc": ["2026-01-01T00:00:00Z"] * n,
    }  # fmt: skip
    known = [base_record(job) for job in jobs]
    schema = arrow_schema("runs")
    runs = pa.table(
        {
            f.name: pa.array(columns.get(f.name, [r.get(f.name) for r in known]), f.type)
            for f in schema
        },
        schema=schema,
    )
    epoch = np.tile(np.arange(1, epochs + 1), n)
    per_epoch = np.repeat(seconds, epochs)
    rows = {
        "run_id": np.repeat([job.run_id for job in jobs], epochs),
        "epoch": epoch, "step": epoch * 1000, "lr": np.full(n * epochs, 20.0),
        "train_nll": curves.ravel() + 0.1, "penalty": np.full(n * epochs, 0.01),
        "valid_nll": curves.ravel(), "grad_norm": draws.gamma(4, 0.1, n * epochs),
        "seconds": per_epoch, "tokens_per_s": 4e5 / per_epoch,
    }  # fmt: skip
    shape = arrow_schema("epochs")
    return runs, pa.table({f.name: pa.array(rows[f.name], f.type) for f in shape}, schema=shape)
