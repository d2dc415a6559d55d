"""Runs jobs on this machine without Ray: in this process, or in N spawned ones."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench.worker import Job, Message, run_trials

Deliver = Callable[[Message], None]


def run(jobs: Sequence[Job], deliver: Deliver, *, slots: int, gpus: Sequence[str] = ()) -> None:
    """Runs the jobs and delivers their messages; slots 0 means in this process (debugging).

    A job whose process vanished delivers no record: the driver sees that it is missing. `gpus`
    names the devices that the slots take turns in (CUDA_VISIBLE_DEVICES).
    """
    waiting = deque(jobs)
    pack = jobs[0].pack
    if slots == 0:
        while waiting:  # again after a failure, for there is no other process
            run_trials(_each(waiting), deliver, pack)
        return
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while len(workers) < slots and len(waiting) > sum(not w.asked for w in workers):
                taken = {w.slot for w in workers}
                slot = next(s for s in range(slots) if s not in taken)
                environment = thread_limits(jobs[0].threads)
                if gpus:
                    environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
                workers.append(_Worker(slot, environment, pack))
            ready = wait([w.connection for w in workers])
            for worker in [w for w in workers if w.connection in ready]:
                if not worker.step(waiting, deliver):
                    worker.close()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.close()


def thread_limits(threads: int) -> dict[str, str]:
    """Returns the environment that holds a trial's process to its threads.

    Two OpenMP threads beside another busy process can be ten times slower than one.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names}


class _Worker:
    """A spawned process that asks for a job whenever it has room for one."""

    def __init__(self, slot: int, environment: dict[str, str], pack: int) -> None:
        self.slot = slot
        self.asked = False
        self.under_way: set[str] = set()
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        descriptor, name = tempfile.mkstemp(prefix="bench-", suffix=".stderr")
        os.close(descriptor)
        self.stderr = Path(name)
        self.process = context.Process(target=_serve, args=(theirs, name, pack), daemon=True)
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # a spawned process inherits what is set at its start
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def step(self, waiting: deque[Job], deliver: Deliver) -> bool:
        """Handles one thing the process said; returns whether it goes on."""
        try:
            kind, message = self.connection.recv()
        except (EOFError, OSError):
            if not self.asked and waiting:  # it cannot even start: some trial must tell why
                self.under_way.add(waiting.popleft().run_id)
            self.give_up(self.cause(), deliver)
            return False
        if kind == "message":
            if "record" in message:
                self.under_way.discard(message["run_id"])
            deliver(message)
        elif kind == "room":
            self.asked = True
            job = waiting.popleft() if waiting else None
            if job is not None:
                self.under_way.add(job.run_id)
            with contextlib.suppress(OSError):  # it vanished: the next step will see that
                self.connection.send(job)
        else:
            self.give_up("the device stopped working under several trials", deliver)
            return False
        return True

    def give_up(self, cause: str, deliver: Deliver) -> None:
        """Says of the trials under way that they get no record from this process."""
        for run_id in sorted(self.under_way):
            deliver({"run_id": run_id, "vanished": cause})

    def cause(self) -> str:
        """Returns how a process that vanished ended, and the last it said."""
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        said = self.stderr.read_bytes()[-4000:].decode(errors="backslashreplace").strip()
        return f"{said}\nits process ended with {how}".strip()

    def close(self) -> None:
        self.stderr.unlink(missing_ok=True)
        self.connection.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection[Any, Any], stderr: str, pack: int) -> None:
    # Ctrl-C reaches the whole process group; only the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # What a plugin prints would tear the driver's display; --jobs 0 shows it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY), 2)

    def jobs() -> Iterator[Job]:
        while True:
            connection.send(("room", None))
            if (job := connection.recv()) is None:
                return
            yield job

    with contextlib.suppress(EOFError):  # the driver is gone
        run_trials(jobs(), lambda message: connection.send(("message", message)), pack)
        connection.send(("end", None))


def _each(waiting: deque[Job]) -> Iterator[Job]:
    while waiting:
        yield waiting.popleft()


def _die_with_parent() -> None:
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed driver must not leave a trial running unseen
