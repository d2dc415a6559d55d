"""Hands jobs to processes, watches over them, and delivers what they say."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from bench.backends.child import GRACE, Child, died
from bench.errors import BadInput
from bench.job import LEFT, Job, Message, base_record

Deliver = Callable[[Message], None]
Stopping = Callable[[], bool]

_START = 300.0
"""Seconds until a process asks for its first trial, at most; torch takes some of them."""
_LOOK = 0.25
"""Seconds between looks at limits and at whether to stop."""


class Pool:
    """Processes that run trials, `slots` at most; those that ended their jobs well run the next.

    `gpus` names the devices that slots take turns in (CUDA_VISIBLE_DEVICES); none: as it is.
    """

    def __init__(self, slots: int, gpus: Sequence[str] = ()) -> None:
        self.slots, self.gpus = slots, gpus
        self.children: list[Child] = []

    def run(self, jobs: Sequence[Job], deliver: Deliver, stopping: Stopping) -> None:
        """Runs the jobs and delivers their messages.

        A trial whose process broke, hung or filled its memory delivers the record of that; one
        whose process was ended from outside, or that had company when it broke, `vanished`. Once
        `stopping` says so, no job is begun, and processes get GRACE seconds for their checkpoints.
        """
        waiting = deque(jobs)
        end: float | None = None
        while waiting or any(child.under_way for child in self.children):
            if end is None and stopping():
                end = time.monotonic() + GRACE
            if end is not None:
                waiting.clear()
                for child in self.children:
                    child.stop()
                if time.monotonic() > end or not self.children:
                    break
            self._begin(waiting, jobs[0])
            ready = wait([child.connection for child in self.children], _LOOK)
            for child in list(self.children):
                if child.connection in ready:
                    goes_on = self._hear(child, waiting, deliver)
                elif child.gone():
                    self._ended(child, waiting, deliver)
                    goes_on = False
                else:
                    goes_on = True
                if not (goes_on and _within_limits(child, deliver)):
                    child.close()
                    self.children.remove(child)
        if end is not None:
            for child in self.children:
                _give_up(child, LEFT, deliver)
            self.close()

    def close(self) -> None:
        """Ends all processes."""
        while self.children:
            self.children.pop().close()

    def _begin(self, waiting: deque[Job], first: Job) -> None:
        for child in self.children:
            if waiting and child.waits:
                child.give(waiting.popleft())
        while len(self.children) < self.slots:
            if len(waiting) <= sum(not child.asked for child in self.children):
                break
            taken = {child.slot for child in self.children}
            slot = next(s for s in range(self.slots) if s not in taken)
            environment = thread_limits(first.threads)
            if self.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
            try:
                self.children.append(Child(slot, environment, first.pack))
            except OSError as error:
                if not self.children:
                    said = f"no process can be started here: {error.strerror}"
                    raise BadInput(f"{said}; use fewer --jobs, or raise `ulimit`") from None
                self.slots = len(self.children)  # as many as there is room for

    def _hear(self, child: Child, waiting: deque[Job], deliver: Deliver) -> bool:
        """Handles one thing a process said; returns whether it goes on."""
        try:
            kind, message = child.connection.recv()
        except (EOFError, OSError):
            self._ended(child, waiting, deliver)
            return False
        if kind == "message":
            _note(child, message)
            deliver(message)
        elif kind == "room":
            child.asked = child.waits = True
            if waiting:
                child.give(waiting.popleft())
            elif child.under_way:
                child.give(None)
        else:
            broken = "the device stopped working under several trials"
            _give_up(child, LEFT if child.told else broken, deliver)
            return False
        return True

    def _ended(self, child: Child, waiting: deque[Job], deliver: Deliver) -> None:
        code, how = child.end()
        if not child.asked and waiting:  # it cannot even start: some trial must tell why
            deliver({"run_id": waiting.popleft().run_id, "vanished": how})
        elif len(child.under_way) == 1 and died(code) and not child.told:
            (run_id,) = child.under_way
            deliver(_record(child, run_id, "failed", "ProcessDied", how))
        _give_up(child, how, deliver)


def thread_limits(threads: int) -> dict[str, str]:
    """Returns the environment that holds a trial's process to its threads.

    Two OpenMP threads beside another busy process can be ten times slower than one.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names}


def _note(child: Child, message: Message) -> None:
    run_id = message["run_id"]
    if "record" in message or "vanished" in message:
        child.under_way.pop(run_id, None)
    elif run_id in child.under_way:
        trial = child.under_way[run_id]
        trial.about |= message.get("about", {})
        if message.keys() & {"start", "epoch"}:
            trial.heard = time.monotonic()
        if "start" in message:
            trial.began = trial.heard
        if trial.job.own_clock:
            trial.began -= message.get("spent", 0.0)
        if "waits" in message:  # until it starts again no clock of its own runs
            trial.began = trial.heard = math.inf


def _within_limits(child: Child, deliver: Deliver) -> bool:
    """Ends what is over a limit; returns whether the process goes on.

    Beside others the one to blame cannot be told: they share a thread, and a memory. All vanish,
    and are tried again, each alone.
    """
    if child.connection.poll():  # what it has said meanwhile comes first
        return True
    child.trim()
    now = time.monotonic()
    if not child.asked and now - child.born > _START:
        child.process.kill()  # its end is told as any other
        return True
    for run_id, trial in child.under_way.items():
        job = trial.job
        for what, limit, since in (
            ("trial", job.trial_timeout, trial.began),
            ("epoch", job.epoch_timeout, trial.heard),
        ):
            if limit is not None and now - since > limit:
                how = f"--{what}-timeout: no end of the {what} within {limit:g} s; it stood at"
                text = f"{child.where()}\n{how} the place above"
                if len(child.under_way) == 1:
                    deliver(_record(child, run_id, "timeout", "Timeout", text))
                _give_up(child, text, deliver)
                return False
    return _within_memory(child, deliver)


def _within_memory(child: Child, deliver: Deliver) -> bool:
    limits = [t.job.memory_limit for t in child.under_way.values() if t.job.memory_limit]
    if not limits:
        return True
    import psutil

    try:
        taken = psutil.Process(child.process.pid).memory_info().rss
    except psutil.Error:  # it is gone, and will be heard of
        return True
    if taken <= min(limits):
        return True
    how = f"--memory-limit: its process took {taken / 1e9:.2f} GB of {min(limits) / 1e9:.2f} GB"
    if len(child.under_way) == 1:
        (run_id,) = child.under_way
        text = f"{child.where()}\n{how}; it stood at the place above"
        deliver(_record(child, run_id, "oom", "MemoryLimit", text))
    _give_up(child, how, deliver)
    return False


def _record(child: Child, run_id: str, status: str, error: str, text: str) -> Message:
    """Returns the record of a trial whose process can no longer tell."""
    trial = child.under_way.pop(run_id)
    columns: dict[str, Any] = {"status": status, "error_type": error, "error_text": text}
    record = base_record(trial.job) | trial.about | columns
    return {"run_id": run_id, "record": record, "weights": None}


def _give_up(child: Child, how: str, deliver: Deliver) -> None:
    """Says of the trials under way that they get no record from this process."""
    for run_id in sorted(child.under_way):
        deliver({"run_id": run_id, "vanished": how})
    child.under_way.clear()
