"""Runs trials; every end becomes a record. All that a backend calls."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import provenance
from bench.config import PROTOCOL, Trial, make_trial, select, sources_of
from bench.plugins import build_regularizers, find, load_class

Message = dict[str, Any]
"""{"run_id"} with "start": True, "epoch": {...}, or "record": {...} and "weights": bytes | None.

A backend adds "vanished": "how" when the process of a trial is gone before its record came.
"""
Report = Callable[[Message], None]

REUSABLE = frozenset({"ok", "diverged", "stopped"})
"""After any other end a process is given up: what broke it may still be in it."""
ERROR_CHARS = 20_000
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@dataclasses.dataclass(frozen=True)
class Job:
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
    device: str
    threads: int
    keep_weights: bool
    git: dict[str, Any]
    protocol: int = PROTOCOL


class Mismatch(Exception):
    """What the worker loaded is not what the driver hashed."""


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


def run_trials(jobs: Iterable[Job], report: Report) -> bool:
    """Runs each job and reports its epochs and its record.

    Returns whether the process may be used for further trials. Nothing but a KeyboardInterrupt
    leaves this function: whatever a plugin raises is its trial's record.
    """
    # Before the first CUDA call of the process, or cuDNN's recurrences are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_memory()
    reusable = True
    for job in jobs:
        record = base_record(job)
        weights: bytes | None = None
        report({"run_id": job.run_id, "start": True})
        try:
            provenance.reset_peak_memory(job.device)
            columns, weights = _run(job, report)
            record |= columns
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            record |= {
                "status": "oom" if _is_oom(error) else "failed",
                "error_type": type(error).__name__,
                "error_text": _text(traceback.format_exc()[-ERROR_CHARS:]),
            }
        with contextlib.suppress(Exception):  # a broken device must not keep the record from us
            record |= provenance.of_process(job.device)
            record["peak_mem_bytes"] = provenance.peak_memory(job.device)
        report({"run_id": job.run_id, "record": record, "weights": weights})
        reusable = reusable and record["status"] in REUSABLE
    return reusable


def _run(job: Job, report: Report) -> tuple[dict[str, Any], bytes | None]:
    import torch

    from bench.corpora import check_length, default_data_dir, load
    from bench.loop import Trainer, prepare_thread

    device = torch.device(job.device)
    prepare_thread(device, job.threads)
    registry = find(Path(job.plugins) if job.plugins else None)
    trial = make_trial(job.trial, registry, f"trial {job.run_id}")
    if job.protocol != PROTOCOL:
        raise Mismatch(f"protocol: the driver's is {job.protocol}, this worker's {PROTOCOL}")
    found = sources_of(trial, registry)
    if found != job.sources:
        raise Mismatch(f"plugin source: the driver hashed {job.sources}, this worker {found}")
    cell, regularizers = select(trial, registry)
    data_dir = Path(job.data_dir)
    if not data_dir.is_dir():  # another machine than the driver's: look where its own data are
        data_dir = default_data_dir()
    corpus = load(trial.corpus, data_dir, job.corpus_hash)
    check_length(corpus, bptt=trial.bptt, batch_size=trial.batch_size)
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    trainer = Trainer(trial, corpus, make_cell, build_regularizers(regularizers), device)
    prepare_thread(device, job.threads)  # importing and building the plugins may have changed it
    for epoch in trainer.epochs():
        report({"run_id": job.run_id, "epoch": {"run_id": job.run_id, **epoch}})
    columns = trainer.result()
    weights = None
    if job.keep_weights and columns["status"] == "ok":
        from safetensors.torch import save

        weights = save({k: t.contiguous().cpu() for k, t in trainer.best_weights.items()})
    return columns, weights


def _keep_memory() -> None:
    """Lets this process keep the memory it frees.

    glibc hands blocks over 32 MB, as the logits of a large vocabulary are, back to the system at
    once and asks for them anew in the next step: half of an epoch of WikiText-2 was spent so.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(option, value)


def _text(text: str) -> str:
    # Half a surrogate pair, which a plugin's message may hold, can be neither stored nor printed.
    return text.encode("utf-8", "backslashreplace").decode()[-ERROR_CHARS:]


def _is_oom(error: BaseException) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    causes = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(cause in str(error) for cause in causes)
