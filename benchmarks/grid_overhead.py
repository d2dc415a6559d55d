"""`python -m benchmarks.grid_overhead`: what the harness itself costs a grid of many short trials.

Runs `bench.grid` as a user does, in a process of its own, on trials that sleep a given time or do
nothing (a tiny recurrence on a tiny corpus for one epoch, whose cell sleeps in its first step), and
watches it from outside. Ideal is trials x seconds / slots. Start-up ends where the first trial's
sleep began; what came on top of both is over the ideal. The driver's memory is its own, without its
workers'. The first epoch is that of the default grid, as a terminal shows it, the median of some
rounds. Prints a table and, with --name, writes records/grid_overhead-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import os
import pty
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.record import environment, write

ROOT = Path(__file__).resolve().parent.parent
CELL = '''"""A tanh recurrence that sleeps in its first step."""

import time

import torch
from torch import nn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, seconds: float = 1.0) -> None:
        super().__init__()
        self.rnn, self.seconds = nn.RNN(input_size, hidden_size), seconds

    def initial_state(self, batch_size: int) -> tuple[torch.Tensor]:
        return (self.rnn.weight_hh_l0.new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x, state, noise):
        time.sleep(self.seconds)
        self.seconds = 0.0
        raw, h = self.rnn(x, state[0][None])
        return raw, (h[0],)
'''
GRID = """
name: overhead
base: {{corpus: "synthetic:train=100:valid=20:test=20", cell: "sleeper:seconds={seconds:g}",
       nlayers: 1, nhid: 2, batch_size: 5, bptt: 10, epochs: 1}}
reps: {trials}
"""


def measure(trials: int, seconds: float, slots: int, backend: str) -> dict[str, Any]:
    """Returns wall and start-up seconds of one grid and the peak bytes of its driver."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cells").mkdir()
        (folder / "cells" / "sleeper.py").write_text(CELL)
        (folder / "overhead.yaml").write_text(GRID.format(seconds=seconds, trials=trials))
        words: list[object] = [
            folder / "overhead.yaml",
            "--plugins",
            folder,
            "--results",
            folder / "results",
        ]
        words += ["--backend", backend, "--jobs", slots, "--device", "cpu", "--no-report"]
        began = time.perf_counter()
        run = _start(words, stdout=subprocess.PIPE, text=True)
        peak = _Peak(run.pid)
        assert run.stdout is not None
        stamps = [time.perf_counter() - began for line in run.stdout if line.startswith("[")]
        if run.wait() != 0 or len(stamps) != trials:
            raise SystemExit(f"the grid failed: exit code {run.returncode}, {len(stamps)} trials")
        wall = time.perf_counter() - began
        peak.thread.join()
    start_up = stamps[0] - seconds
    ideal = trials * seconds / slots
    over = stamps[-1] - start_up - ideal
    return {
        "backend": backend,
        "trials": trials,
        "seconds": seconds,
        "slots": slots,
        "wall_s": wall,
        "ideal_s": ideal,
        "first_result_s": stamps[0],
        "overhead_s": over,
        "overhead_share": over / ideal if ideal else None,
        "ms_per_trial": 1000 * over * slots / trials,
        "driver_peak_bytes": peak.bytes,
    }


def first_epoch(backend: str, limit: float = 120) -> float:
    """Returns the seconds from the command to the first epoch that a terminal shows."""
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as results:
        words = ["quick", "--results", results, "--backend", backend, "--no-report"]
        began = time.perf_counter()
        run = _start(words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = b""
        try:
            while b"epoch 1/" not in seen:
                if time.perf_counter() - began > limit:
                    raise SystemExit(f"no epoch was shown within {limit:g} s")
                seen = (seen + os.read(ours, 65536))[-100_000:]
            return time.perf_counter() - began
        except OSError:  # nobody has the other end any more
            raise SystemExit("the grid ended before its first epoch") from None
        finally:
            threading.Thread(target=_drain, args=(ours,), daemon=True).start()
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
            run.wait()


class _Peak:
    """Watches a process's resident memory until it ends: its own alone, not its children's."""

    def __init__(self, pid: int) -> None:
        self.process, self.bytes = psutil.Process(pid), 0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        try:
            while self.process.status() != psutil.STATUS_ZOMBIE:
                self.bytes = max(self.bytes, self.process.memory_info().rss)
                time.sleep(0.2)
        except psutil.NoSuchProcess:
            pass


def _start(words: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "bench.grid", *map(str, words)]
    terminal = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | terminal,
        # What a shell starts in its background ignores SIGINT, and so would all it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
        **options,
    )


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.grid_overhead", description=__doc__)
    parser.add_argument("--trials", nargs="+", type=int, default=[1000], metavar="N")
    parser.add_argument("--seconds", nargs="+", type=float, default=[1.0, 0.0], metavar="S")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--backend", nargs="+", default=["ray", "local"], choices=["ray", "local"])
    parser.add_argument("--rounds", type=int, default=5, help="of the first epoch; 0: not measured")
    parser.add_argument("--quick", action="store_true", help="10 trials of 0.2 s, no rounds")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    if options.quick:
        options.trials, options.seconds, options.rounds = [10], [0.2], 0
    if min(*options.trials, options.slots) < 1 or min(options.rounds, *options.seconds) < 0:
        parser.error("trials and slots must be at least 1, seconds and rounds not negative")
    rows: list[dict[str, Any]] = []
    firsts: dict[str, list[float]] = {}
    for backend in options.backend:
        for seconds in options.seconds:
            for trials in options.trials:
                rows.append(measure(trials, seconds, options.slots, backend))
                print(_line(rows[-1]), flush=True)
        if options.rounds:
            firsts[backend] = [first_epoch(backend) for _ in range(options.rounds)]
    title = f"What the harness costs a grid of short trials, {options.slots} at a time"
    names = ["backend", "trials", "each, s", "whole, s", "ideal, s", "first result, s"]
    names += ["over the ideal", "ms per trial", "driver, MB"]
    table = "\n".join([f"| {' | '.join(names)} |", "| --- " * len(names) + "|", *map(_line, rows)])
    for backend, took in firsts.items():
        table += f"\n\nFirst epoch of `quick`, {backend}: {statistics.median(took):.1f} s"
        table += f" (median of {len(took)})"
    print(f"\n{title}\n\n{table}")
    if options.name:
        record = {"rows": rows, "first_epoch_s": firsts} | environment(torch.device("cpu"))
        write(f"grid_overhead-{options.name}", title, table, record)
    return 0


def _line(row: dict[str, Any]) -> str:
    share = "–" if row["overhead_share"] is None else f"{100 * row['overhead_share']:.1f} %"
    return (
        f"| {row['backend']} | {row['trials']:,} | {row['seconds']:g} | {row['wall_s']:.1f} | "
        f"{row['ideal_s']:.0f} | {row['first_result_s']:.1f} | {share} | "
        f"{row['ms_per_trial']:.1f} | {row['driver_peak_bytes'] / 2**20:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
