"""Runs trials; every end becomes a record. All that a backend calls."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import gc
import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import provenance
from bench.config import PROTOCOL, Trial, make_trial, select, sources_of
from bench.errors import BadInput
from bench.pack import room, take_turns
from bench.plugins import Registry, build_regularizers, find, load_class, source_hash

log = logging.getLogger(__name__)

Message = dict[str, Any]
"""{"run_id"} with "start": True, "epoch": {...}, or "record": {...} and "weights": bytes | None.

A backend adds "vanished": "how" when the process of a trial is gone before its record came.
"""
Report = Callable[[Message], None]
Course = Generator[Message | None, None, tuple[Message, bytes | None]]
"""A trial under way: a turn a window; in the end its columns and the weights that are kept."""

REUSABLE = frozenset({"ok", "diverged", "stopped"})
"""After any other end a process is given up: what broke it may still be in it."""
ERROR_CHARS = 20_000
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial on its way to a worker, with what travels beside it but is no part of it.

    Only plain values, so that it travels as JSON: hyper-parameters are JSON already, as they stand
    in the record; `data_dir` and `plugins` are absolute paths. `pack`: how many trials may run side
    by side in one process; 0, as many as fit into the device's memory.
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
    pack: int = 1
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


def run_trials(jobs: Iterable[Job], report: Report, pack: int = 1) -> bool:
    """Runs the jobs, up to `pack` side by side, and reports their epochs and records.

    A job is taken from `jobs` when there is room for it, and none after one has failed: the process
    is to be given up then, as the returned False says, and what was not taken is for another. One
    that fails beside others is run once more, alone: its record is of that run. Whatever a plugin
    raises is its trial's record; a KeyboardInterrupt leaves this function, and what `report`
    raises. Where a trial beside others broke the device for good, those under way get no record.
    """
    _keep_memory()
    size = _Size(pack)
    reusable = True
    records: dict[str, Message] = {}
    alone: deque[Job] = deque()

    def begin(job: Job) -> Course:
        records[job.run_id] = base_record(job)
        report({"run_id": job.run_id, "start": True})
        return _course(job, size)

    def fresh() -> Iterator[Job]:
        source = iter(jobs)
        while reusable and (job := next(source, None)) is not None:
            yield job

    def turns() -> Iterator[tuple[Job, int, Any]]:
        yield from take_turns(fresh(), begin, lambda: size.width, _together, report)
        while alone:
            yield from take_turns([alone.popleft()], begin, lambda: 1, heard=report)

    for job, company, outcome in turns():
        record, weights = records.pop(job.run_id), None
        failed = isinstance(outcome, BaseException)
        if failed:
            record |= _failure(outcome)
        else:
            columns, weights = outcome
            record |= columns
        del outcome  # an error holds the memory of its trial
        works = _works(job.device) if failed else True
        if failed and company > 1:
            log.warning("%s failed beside others: %s", job.run_id, record["error_type"])
            if not works:
                return False
            alone.append(job)
            continue
        with contextlib.suppress(Exception):  # a broken device must not keep the record from us
            record |= provenance.of_process(job.device)
            record |= {"packed": company, "peak_mem_bytes": provenance.peak_memory(job.device)}
        report({"run_id": job.run_id, "record": record, "weights": weights})
        reusable = reusable and record["status"] in REUSABLE and not _spoiled()
        if not works:
            return False
    return reusable


def _course(job: Job, size: _Size) -> Course:
    """Runs a trial, a window a turn; yields a message an epoch, and returns columns and weights."""
    import torch

    from bench.corpora import check_length, default_data_dir, load
    from bench.loop import Trainer, prepare_thread
    from bench.precision import refusal

    provenance.reset_peak_memory(job.device)
    device = torch.device(job.device)
    registry = _registry(job)
    trial = make_trial(job.trial, registry, f"trial {job.run_id}")
    if job.protocol != PROTOCOL:
        raise Mismatch(f"protocol: the driver's is {job.protocol}, this worker's {PROTOCOL}")
    found = sources_of(trial, registry)
    if found != job.sources:
        raise Mismatch(f"plugin source: the driver hashed {job.sources}, this worker {found}")
    if (reason := refusal(trial.precision, device.type)) is not None:
        raise BadInput(reason)
    prepare_thread(device, job.threads, trial.precision)
    cell, regularizers = select(trial, registry)
    data_dir = Path(job.data_dir)
    if not data_dir.is_dir():  # another machine than the driver's: look where its own data are
        data_dir = default_data_dir()
    corpus = load(trial.corpus, data_dir, job.corpus_hash)
    check_length(corpus, bptt=trial.bptt, batch_size=trial.batch_size)
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    trainer = Trainer(trial, corpus, make_cell, build_regularizers(regularizers), device)
    # Importing and building the plugins may have changed it.
    prepare_thread(device, job.threads, trial.precision)
    for epoch in trainer.turns():
        if epoch is None:
            yield None
            continue
        size.decide(job.device)  # by now it has trained, evaluated and kept its best weights
        yield {"run_id": job.run_id, "epoch": {"run_id": job.run_id, **epoch}}
    columns = trainer.result()
    weights = None
    if job.keep_weights and columns["status"] == "ok":
        from safetensors.torch import save

        weights = save({k: t.contiguous().cpu() for k, t in trainer.best_weights.items()})
    return columns, weights


class _Size:
    """How many trials may run side by side; of `0`, decided once the first one's need is known."""

    def __init__(self, pack: int) -> None:
        self.width, self.open = pack or 1, pack == 0

    def decide(self, device: str) -> None:
        if self.open:
            self.width, self.open = room(device), False


def _together(one: Job, other: Job) -> bool:
    """Switches of torch hold for a whole process; trials under different ones take it in turn."""
    alike = one.trial["precision"] == other.trial["precision"]
    return alike and (one.threads, one.device) == (other.threads, other.device)


def _failure(error: BaseException) -> Message:
    text = "".join(traceback.format_exception(error))
    return {
        "status": "oom" if _is_oom(error) else "failed",
        "error_type": type(error).__name__,
        "error_text": _text(text[-ERROR_CHARS:]),
    }


def _spoiled() -> bool:
    replay = sys.modules.get("bench.replay")
    return replay is not None and replay.spoiled


def _works(device: str) -> bool:
    """Returns whether the device still does anything; frees what a failed trial held of it."""
    gc.collect()
    if device != "cuda":
        return True
    import torch

    try:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


_found: dict[str | None, Registry] = {}


def _registry(job: Job) -> Registry:
    """Returns the plugins, as this process found them before if those of the job are the same now.

    To read them all takes longer than a short trial; the job's own are read again each time.
    """
    registry = _found.get(job.plugins, {})
    for name in job.sources:
        kind, _, plugin = name.partition(":")
        before = registry.get(kind, {}).get(plugin)
        try:
            same = before is not None and source_hash(before.path) == before.hash
        except (OSError, SyntaxError):  # find says it in its own words
            same = False
        if not same:
            registry = _found[job.plugins] = find(Path(job.plugins) if job.plugins else None)
            break
    return registry


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
