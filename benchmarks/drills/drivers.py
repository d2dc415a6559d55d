"""Drivers of one grid, started as a user starts them, and what they said."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAITING = "waiting for its end"
STOP_SECONDS = 10
"""That a driver has, and promises to need at most, to end when it is told to."""


def command_of(grid: Path, address: str, results: str, checkpoints: str | None) -> list[str]:
    """Returns the words behind `python -m bench.grid`."""
    words = [str(grid), "--address", address, "--device", "cpu", "--no-report"]
    words += ["--results", results, "--checkpoint-every", "0.2s"]
    return [*words, *(["--storage", checkpoints] if checkpoints else [])]


@dataclass
class Driver:
    """A driver; `expected` is what its end is to be like, once something was done to it."""

    process: subprocess.Popen[bytes]
    log: Path
    beside: bool = False
    """Whether another one ran when it was started."""
    expected: str = ""
    told: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def progresses(self) -> bool:
        """Whether it has told of the end of a trial."""
        return "\n[" in self.text()

    def last(self) -> str:
        """Returns its last line."""
        return (self.text().strip().splitlines() or ["nothing"])[-1][:300]

    def kill(self) -> None:
        self.expected = "killed"
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals) -> None:
        """Tells it to stop; `stopped_badly` says how that went."""
        self.expected, self.told = "stopped", time.monotonic()
        self.process.send_signal(number)

    def stopped_badly(self, command: list[str]) -> list[str]:
        """Returns what was wrong with the end of a driver that was told to stop."""
        code = self.process.returncode
        if code == 0:  # the grid was at its end
            return []
        found = [] if code == 130 else [f"stopped driver ended with {code}: {self.last()}"]
        if f"python -m bench.grid {command[0]}" not in self.last():
            found.append(f"stopped driver did not say how to go on: {self.last()}")
        return found


@dataclass
class Begin:
    """Starts drivers, each with the same command."""

    command: list[str]
    folder: Path
    environment: dict[str, str]
    count: int = 0

    def __call__(self, beside: bool = False) -> Driver:
        self.count += 1
        log = self.folder / f"driver-{self.count}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.grid", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
                # Where the drill runs in a shell's background, SIGINT is ignored and inherited so.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        return Driver(process, log, beside)
