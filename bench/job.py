"""A trial on its way to a worker, and what a worker says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from bench.config import PROTOCOL, Trial

Message = dict[str, Any]
"""{"run_id"} with "start": True, "epoch": {...}, or "record": {...} and "weights": bytes | None.

"said": a remark for the log; "loud": for the screen as well. "about": columns that are known at the
start. "spent": seconds that it took before it was resumed. "waits": it runs again once those beside
it have ended. "vanished": the trial is no more under way and has no record; how that came.
"""
Report = Callable[[Message], None]
LEFT = "stopped before its end"


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """How trials are run, which moves no number of theirs.

    `pack`: how many may run side by side in one process; 0, as many as fit into the device's
    memory. `checkpoints`: where they go, an absolute path or a URL, written as often as
    `checkpoint_every` says; a machine that sees another storage there than `storage_id` keeps none.
    The limits are what a process of trials is held to from outside: seconds for a trial and for one
    of its epochs, bytes for the process. `own_clock`: what it took before it was resumed counts,
    for it was alone then.
    """

    device: str
    threads: int
    keep_weights: bool
    pack: int = 1
    checkpoints: str | None = None
    storage_id: str | None = None
    checkpoint_every: str = "60s"
    trial_timeout: float | None = None
    epoch_timeout: float | None = None
    memory_limit: int | None = None
    own_clock: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(How):
    """A trial on its way to a worker, with what travels beside it but is no part of it.

    Only plain values, so that it travels as JSON: hyper-parameters are JSON already, as they stand
    in the record; `data_dir` and `plugins` are absolute paths.
    """

    run_id: str
    trial: dict[str, Any]
    corpus_hash: str
    sources: dict[str, str]
    cell_hparams: str
    regularizer_hparams: str
    plugin_origin: str
    data_dir: str
    plugins: str | None
    git: dict[str, Any]
    protocol: int = PROTOCOL


def base_record(job: Job) -> dict[str, Any]:
    """Returns the columns that are known before a run, with its status `lost`."""
    trial = Trial(**job.trial)
    by_kind = {
        kind: "+".join(h for key, h in sorted(job.sources.items()) if key.startswith(f"{kind}:"))
        for kind in ("cell", "regularizer")
    }
    return {
        **trial.model_dump(),
        "run_id": job.run_id,
        "protocol": job.protocol,
        "corpus_hash": job.corpus_hash,
        "cell_source": by_kind["cell"],
        "regularizer_source": by_kind["regularizer"],
        "cell_hparams": job.cell_hparams,
        "regularizer_hparams": job.regularizer_hparams,
        "plugin_origin": job.plugin_origin,
        "seed": trial.seed,
        "status": "lost",
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **job.git,
    }
