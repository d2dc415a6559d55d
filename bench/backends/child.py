"""A process that runs trials, and the two ends of talking to it.

A trial has a process of its own, on every backend: what it crashes, hangs or fills is that process.
The parent learns how it ended, and what Python's faulthandler wrote as it did.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from bench.errors import one_line
from bench.job import Job
from bench.stop import Stop

GRACE = 6.0
"""Seconds that a process has to write its checkpoints when it is told to end."""
_LOOK = 0.2
"""Seconds between looks at whether to end, where there is nothing to do."""
_SAID, _MOST = 8000, 1 << 24
"""Characters of what a process wrote at its end that are kept; bytes until it is emptied."""


@dataclass
class UnderWay:
    """A trial that was handed to a process, and when it and its last epoch began (monotonic)."""

    job: Job
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    about: dict[str, Any] = field(default_factory=dict)


class Child:
    """The parent's end: a process that asks for a job whenever it has room for one."""

    def __init__(self, slot: int, environment: dict[str, str], pack: int) -> None:
        self.slot = slot
        self.asked = self.waits = self.told = False
        self.under_way: dict[str, UnderWay] = {}
        self.born = time.monotonic()
        with contextlib.ExitStack() as whole:  # or nothing of it stays open
            self.connection, theirs = Pipe()
            whole.callback(self.connection.close)
            with theirs:
                lifeline, self._lifeline = os.pipe()
                whole.callback(os.close, self._lifeline)
                try:
                    self._stderr = _unseen_file()
                    whole.callback(os.close, self._stderr)
                    self.process = self._begin(environment, (theirs.fileno(), lifeline), pack)
                finally:
                    os.close(lifeline)
            whole.pop_all()

    def _begin(
        self, environment: dict[str, str], ends: tuple[int, int], pack: int
    ) -> subprocess.Popen[bytes]:
        numbers = f"{ends[0]}, {ends[1]}, {pack}"
        inherited = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        return subprocess.Popen(
            # -P: what lies in the current folder, a checkout of ours perhaps, is not imported.
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({numbers})"],
            env=inherited | {"PYTHONPATH": path} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what a plugin prints would tear the driver's display
            stderr=self._stderr,
            pass_fds=ends,
            start_new_session=True,  # Ctrl-C is the driver's to interpret
        )

    def give(self, job: Job | None) -> None:
        """Answers a request for a job; None: there is none for one more beside those it runs."""
        self.waits = False
        if not self.under_way:
            os.ftruncate(self._stderr, 0)
        if job is not None:
            self.under_way[job.run_id] = UnderWay(job)
        with contextlib.suppress(OSError):  # it vanished: the next word from it will be its end
            self.connection.send(job)

    def trim(self) -> None:
        """Empties what the process wrote when it is too much: days of warnings fill a disk."""
        if self._written() > _MOST:
            os.ftruncate(self._stderr, 0)

    def stop(self) -> None:
        """Tells the process to write its checkpoints and end."""
        if not self.told:
            self.told = True
            self.process.terminate()

    def gone(self) -> bool:
        """Whether it has ended and all it said is heard; what it started may hold its pipe open."""
        return self.process.poll() is not None and not self.connection.poll()

    def where(self) -> str:
        """Returns where the process stands, thread by thread; it may hang in native code."""
        size = before = self._written()
        self.process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + 2
        while time.monotonic() < end:  # it is written within milliseconds, in several pieces
            time.sleep(0.05)
            if size == (size := self._written()) != before:
                break
        return self.said(before)

    def said(self, start: int = 0) -> str:
        """Returns the last that the process wrote to its standard error."""
        start = max(start, self._written() - _SAID)
        return os.pread(self._stderr, _SAID, start).decode(errors="backslashreplace").strip()

    def _written(self) -> int:
        return os.fstat(self._stderr).st_size

    def end(self) -> tuple[int | None, str]:
        """Returns the exit code of a process that has closed its connection, and how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.poll()
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"signal {-code}"
            with contextlib.suppress(ValueError):
                how += f" ({signal.Signals(-code).name})"
        return code, f"{self.said()}\nits process ended with {how}".strip()

    def close(self) -> None:
        """Ends the process, however it stands, with all that it started."""
        self.connection.close()
        os.close(self._lifeline)
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk
            self.process.wait(5)
        os.close(self._stderr)


def _unseen_file() -> int:
    """Opens a file without a name: nobody else reads it, and a killed driver leaves nothing."""
    descriptor, name = tempfile.mkstemp(prefix="bench-")
    os.unlink(name)  # noqa: PTH108
    # Each writer at its end, so that it can be emptied.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def serve(connection_fd: int, lifeline: int, pack: int) -> None:
    """The child's end: runs jobs until it is told to end, or its parent is gone."""
    for descriptor in (connection_fd, lifeline):
        os.set_inheritable(descriptor, False)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    os._exit = _exit_aloud(os._exit)  # type: ignore[assignment]
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    threading.Thread(target=_end_with_parent, args=(lifeline, stop), daemon=True).start()
    connection: Connection[Any, Any] = Connection(connection_fd)

    def say(kind: str, message: object = None) -> None:
        try:
            connection.send((kind, message))
        except OSError:  # nobody hears it; what can be kept is kept as a checkpoint
            stop.ask()

    def jobs() -> Iterator[Job]:
        while not stop():
            say("room")
            while not connection.poll(_LOOK):
                if stop():
                    return
            job = connection.recv()
            if job is None:
                return
            yield job

    with contextlib.suppress(EOFError, ConnectionError):
        from bench.worker import run_trials  # with torch, which the parent does not need

        while not stop():
            if not run_trials(jobs(), lambda said: say("message", said), pack, stop):
                break
        say("end")
    if select.select([lifeline], [], [], 0)[0]:  # the parent is gone; so goes what a trial started
        os.killpg(0, signal.SIGKILL)


def _exit_aloud(leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    """Returns `os._exit` that says where it is called: nothing else would tell of it."""

    def exit(status: int) -> NoReturn:
        traceback.print_stack()
        leave(status)

    return exit


def _end_with_parent(lifeline: int, stop: Stop) -> None:
    os.read(lifeline, 1)  # returns when the parent is gone, whatever ended it
    stop.ask()
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)  # a killed driver must not leave a trial running unseen


def died(code: int | None) -> bool:
    """Whether a process broke by what ran in it; else something outside ended it."""
    outside = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    return code is not None and -code not in outside


def summary(text: str) -> str:
    """Returns the last line of what a process wrote, for where there is room for one."""
    return one_line((text.splitlines() or [""])[-1], 200)
