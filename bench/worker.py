"""Runs trials; every end becomes a record. All that a backend calls."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bench import provenance
from bench.course import Course, Leave, course
from bench.job import Job, Message, Report, base_record
from bench.pack import room, take_turns

log = logging.getLogger(__name__)

REUSABLE = frozenset({"ok", "diverged", "stopped"})
"""After any other end a process is given up: what broke it may still be in it."""
ERROR_CHARS = 20_000
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def run_trials(
    jobs: Iterable[Job],
    report: Report,
    pack: int = 1,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Runs the jobs, up to `pack` side by side, and reports their epochs and records.

    Once `stopping` says so, no job is begun and those under way are left at their next window, with
    a checkpoint where they have a place for it; they get no record.

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
        return course(job, stopping, lambda: size.decide(job.device))

    def fresh() -> Iterator[Job]:
        source = iter(jobs)
        while reusable and not stopping() and (job := next(source, None)) is not None:
            yield job

    def turns() -> Iterator[tuple[Job, int, Any]]:
        yield from take_turns(fresh(), begin, lambda: size.width, _together, report)
        while alone and not stopping():
            yield from take_turns([alone.popleft()], begin, lambda: 1, heard=report)

    for job, company, outcome in turns():
        record, weights = records.pop(job.run_id), None
        if isinstance(outcome, Leave):
            report({"run_id": job.run_id, "vanished": str(outcome)})
            continue
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
            report({"run_id": job.run_id, "waits": True})
            alone.append(job)
            continue
        with contextlib.suppress(Exception):  # a broken device must not keep the record from us
            record |= provenance.of_process(job.device) | provenance.of_thread(job.device)
            record |= {"packed": company, "peak_mem_bytes": provenance.peak_memory(job.device)}
        report({"run_id": job.run_id, "record": record, "weights": weights})
        reusable = reusable and record["status"] in REUSABLE and not _spoiled()
        if not works:
            return False
    return reusable and not stopping()


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
