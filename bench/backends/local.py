"""Runs jobs on this machine without Ray: in this process, or in N others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from bench.backends.pool import Deliver, Pool, Stopping
from bench.job import Job


def run(
    jobs: Sequence[Job],
    deliver: Deliver,
    stopping: Stopping = lambda: False,
    *,
    slots: int,
    gpus: Sequence[str] = (),
) -> None:
    """Runs the jobs and delivers their messages; slots 0 means in this process (debugging).

    A job whose process vanished delivers no record: the driver sees that it is missing. `gpus`
    names the devices that the slots take turns in (CUDA_VISIBLE_DEVICES).
    """
    if slots == 0:
        from bench.worker import run_trials

        waiting = deque(jobs)
        while waiting and not stopping():  # again after a failure, for there is no other process
            run_trials(_each(waiting), deliver, jobs[0].pack, stopping)
        return
    pool = Pool(slots, gpus)
    try:
        pool.run(jobs, deliver, stopping)
    finally:
        pool.close()


def _each(waiting: deque[Job]) -> Iterator[Job]:
    while waiting:
        yield waiting.popleft()
