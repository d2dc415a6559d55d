"""A Ray cluster of several nodes on this machine, by `ray start`; any part of it can be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

UP = "will now block forever"
"""What `ray start --block` says once its node is up."""
START_SECONDS = 60
MARK = "BENCH_DRILL"
"""A variable in the environment of all that a drill starts, and of what that starts."""
_LOST_HEAD = 4
_EACH = (
    "--num-gpus=0",
    "--object-store-memory=80000000",
    "--min-worker-port=0",  # any: the nodes share this machine's ports
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
    "--disable-usage-stats",
    "--block",
)


def settings(folder: Path) -> dict[str, str]:
    """Returns the environment of all that has to do with a cluster whose files lie in `folder`.

    Apart from other clusters of this machine, with a token of its own; what vanished is noticed
    within two seconds, and the head's end after a few more (Ray's own clocks: 15 and 60).
    """
    return {
        MARK: str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_health_check_initial_delay_ms": "500",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_LOST_HEAD),
    }


@dataclass
class Node:
    """A `ray start --block`, which is the parent of all that its node runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        return self.process.poll() is None

    def up(self) -> bool:
        return self.alive() and UP in self.log.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """Returns its processes, workers and their trials among them, while it lives."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Ends all of it by SIGKILL, at once."""
        kill(self.family())
        self.process.wait()


@dataclass
class Cluster:
    """A head without CPUs and `wanted` nodes of one; what is killed is begun anew by `tend`."""

    folder: Path
    environment: dict[str, str]
    wanted: int
    port: int = field(default_factory=lambda: _free_port())
    head: Node | None = None
    workers: list[Node] = field(default_factory=list)
    started: int = 0
    not_before: float = 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Starts the head and the workers. RuntimeError if they do not come up."""
        self.start_head()
        end = time.monotonic() + self.wanted * START_SECONDS
        while sum(node.up() for node in self.workers) < self.wanted:
            self.tend()
            if time.monotonic() > end:
                raise RuntimeError(f"no worker came up: {self._last_words()}")
            time.sleep(0.1)

    def start_head(self) -> None:
        """Starts the head, at the same address each time, and waits for it. RuntimeError."""
        words = ("--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false")
        for _ in range(3):
            self.head = self._start(*words)
            end = time.monotonic() + START_SECONDS
            while self.head.alive() and time.monotonic() < end:
                if self.head.up():
                    return
                time.sleep(0.1)
            self.head.end()
        raise RuntimeError(f"the head did not come up: {self._last_words()}")

    def tend(self) -> None:
        """Starts a worker that is missing, one at a time: two at once would take one socket."""
        self.workers = [node for node in self.workers if node.alive()]
        starting = [node for node in self.workers if not node.up()]
        if self.head is None or starting or time.monotonic() < self.not_before:
            return
        if len(self.workers) < self.wanted:
            self.workers.append(self._start(f"--address={self.address}", "--num-cpus=1"))

    def end(self) -> None:
        """Ends everything of Ray."""
        for node in [*self.workers, *([self.head] if self.head else [])]:
            node.end()
        self.head, self.workers = None, []

    def _start(self, *words: str) -> Node:
        self.started += 1
        log = self.folder / f"node-{self.started}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *_EACH],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        return Node(process, log)

    def _last_words(self) -> str:
        return (self.folder / f"node-{self.started}.log").read_text(errors="replace")[-2000:]


def raylet(node: Node) -> list[psutil.Process]:
    """Returns the process of a node that Ray cannot do without."""
    return [one for one in node.family() if _name(one) == "raylet"]


def gcs(node: Node) -> list[psutil.Process]:
    """Returns the head's own server."""
    return [one for one in node.family() if _name(one) == "gcs_server"]


def actors(nodes: Iterable[Node], kind: str) -> list[psutil.Process]:
    """Returns the Ray actors on these nodes whose class has `kind` in its name."""
    found = [(one, _line(one)) for node in nodes for one in node.family()]
    return [one for one, line in found if line.startswith("ray::") and kind in line]


def trainers(nodes: Iterable[Node]) -> list[psutil.Process]:
    """Returns the processes that train on these nodes."""
    return [one for node in nodes for one in node.family() if trains(one)]


def trains(process: psutil.Process) -> bool:
    return "bench.backends.child" in _line(process)


def kill(processes: Iterable[psutil.Process]) -> None:
    """Sends SIGKILL to each."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def belonging(folder: Path) -> list[psutil.Process]:
    """Returns the processes, but this one, that have `folder` as MARK in their environment.

    Ray's workers write their titles over it; those are known by their logs in the folder.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(MARK) == str(folder)
            if not ours and _line(process).startswith("ray::"):
                ours = any(file.path.startswith(f"{folder}/") for file in process.open_files())
            if ours and process.pid != os.getpid():
                found.append(process)
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def said(process: psutil.Process) -> str:
    """Returns the number of a process and the beginning of its words."""
    return f"{process.pid} {_line(process)[:100]}"


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.name())
    return ""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
