"""`python -m benchmarks.drills.chaos`: a grid on three nodes while anything of it is killed.

A Ray cluster of a head and two workers runs on this machine, and `python -m bench.grid` on it.
Every few seconds something gets a SIGKILL: a process that trains, a Ray actor, a raylet, all of a
node, the driver, the head. Nodes come back, and the same command is started again. Drivers are also
stopped by SIGTERM and SIGINT, and started beside another. After so many kills nothing is disturbed
any more, and the same command must end the grid: each trial recorded once, equal to an undisturbed
run, no checkpoint and no process left. Prints a table, and exits with 1 when anything else happens.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from bench.checkpoint import kept
from bench.storage import open_storage
from bench.store.mirror import results_folder
from benchmarks.drills.drivers import Begin, command_of
from benchmarks.drills.kills import KINDS
from benchmarks.drills.nodes import Cluster, belonging, kill, said, settings, trains
from benchmarks.drills.s3_server import Server, server
from benchmarks.drills.storm import Storm
from benchmarks.drills.verdict import Verdict, judge, trained, tries

ROOT = Path(__file__).resolve().parents[2]
GRID = """name: chaos
base: {corpus: "synthetic:train=2000:valid=200:test=200", nhid: 24, batch_size: 5, bptt: 10, lr: 5}
axes:
  model: [{cell: lstm, epochs: 4}, {cell: gru, epochs: 2}, {cell: qrnn, epochs: 4}]
  regularizer: [none, "ar:alpha=2+tar:beta=1"]
"""
_EACH_REP = 6
NODES = 2
_GONE_SECONDS = 20
"""That orphans have to notice that they are some: a trial takes eight to write its checkpoint."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the drill; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drills.chaos", description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="at least so many")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seconds-between", type=float, default=3.0, help="kills, on average")
    parser.add_argument("--storage", choices=("none", "folder", "s3"), default="folder")
    parser.add_argument("--results-on", choices=("folder", "s3"), default="folder")
    parser.add_argument("--quick", action="store_true", help="12 trials, 4 kills, no dead node")
    parser.add_argument("--seed", type=int, default=1, help="of what is killed, and when")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    if options.trials < 1 or options.kills < 0 or options.seconds_between <= 0:
        parser.error("--trials must be at least 1, --kills 0, and --seconds-between above 0")
    if options.quick:
        options.trials, options.kills, options.seconds_between = 12, 4, 1.0
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    figures, violations = drill(scratch, options)
    if violations:
        violations.append(f"all logs: {scratch}")
    else:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = "".join(f"| {what} | {value} |\n" for what, value in figures.items())
    table = f"| what | |\n| --- | --- |\n{rows}".rstrip()
    print(f"\n{table}", *violations, sep="\n", flush=True)
    if options.name and not violations:
        _write(options.name, table, figures)
    return 1 if violations else 0


def _write(name: str, table: str, figures: dict[str, Any]) -> None:
    import torch

    from benchmarks import record

    found = record.environment(torch.device("cpu")) | {"figures": figures}
    record.write(f"drill-chaos-{name}", "Random kills on three nodes", table, found)


def drill(scratch: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Runs the grid undisturbed and disturbed; returns the figures, and what must not be."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(_bucket(options))
        environment = os.environ | settings(scratch) | _environment(scratch, bucket)
        environment.pop("RAY_ADDRESS", None)
        stack.enter_context(patch.dict(os.environ, environment))
        stack.callback(lambda: kill(belonging(scratch)))
        grid = scratch / "grid.yaml"
        grid.write_text(f"{GRID}reps: {-(-options.trials // _EACH_REP)}\n")
        calm = stack.enter_context(_undisturbed(scratch, grid, environment))
        cluster = Cluster(scratch, environment, NODES)
        stack.callback(cluster.end)
        cluster.begin()
        if calm.wait() != 0:
            raise RuntimeError(f"the undisturbed run: {(scratch / 'calm.log').read_text()[-2000:]}")
        results, checkpoints = _places(scratch, options)
        begin = Begin(command_of(grid, cluster.address, results, checkpoints), scratch, environment)
        s3 = bucket.process if bucket else None
        storm = Storm(cluster, begin, lambda: _recorded(scratch), options, s3)
        storm.rage()
        calm_since = time.monotonic()
        storm.end_in_peace()
        violations = list(storm.violations)
        with results_folder(results, write=False) as opened:
            verdict = judge(scratch / "calm", opened.folder, "chaos")
            waves = tries(opened.folder / "grids" / "chaos.log")
        violations += verdict.lines() + _left_behind(checkpoints or results, scratch)
        cluster.end()
        violations += _running(scratch)
    print(f"{time.monotonic() - calm_since:.0f} s undisturbed at the end", flush=True)
    figures = _figures(options, storm, verdict, waves) | {
        "violations": len(violations),
        "seconds": round(time.monotonic() - started),
    }
    return figures, violations


@contextlib.contextmanager
def _bucket(options: argparse.Namespace) -> Iterator[Server | None]:
    if "s3" not in (options.storage, options.results_on):
        yield None
        return
    with server() as running:
        running.make_bucket("drill")
        yield running


def _environment(scratch: Path, bucket: Server | None) -> dict[str, str]:
    temporary = scratch / "tmp"
    temporary.mkdir()
    mine = {"BENCH_CACHE": str(scratch / "cache"), "TMPDIR": str(temporary)}
    threads = {"OMP_NUM_THREADS": "1"}
    return mine | threads | (bucket.environment() if bucket else {})


def _places(scratch: Path, options: argparse.Namespace) -> tuple[str, str | None]:
    """Returns where results and checkpoints go."""
    results = "s3://drill/results" if options.results_on == "s3" else str(scratch / "results")
    storages = {"none": None, "folder": str(scratch / "shared"), "s3": "s3://drill/shared"}
    return results, storages[options.storage]


@contextlib.contextmanager
def _undisturbed(
    scratch: Path, grid: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the grid without Ray and without checkpoints."""
    words = ["--backend", "local", "--jobs", "2", "--checkpoint-every", "off", "--no-report"]
    words += ["--results", str(scratch / "calm")]
    with (scratch / "calm.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.grid", str(grid), *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _recorded(scratch: Path) -> int:
    """Returns how many trials are trained to their end, in the folder or the bucket's mirror."""
    places = ("results", "cache/results-mirror/*-write")
    logs = [log for place in places for log in scratch.glob(f"{place}/grids/chaos.log")]
    return len({run_id for log in logs for run_id in trained(log)})


def _left_behind(checkpoints: str, scratch: Path) -> list[str]:
    """Names checkpoints that nobody needs any more, and trials that run unseen."""
    found = [f"left: checkpoints of {run_id}" for run_id in sorted(kept(open_storage(checkpoints)))]
    return found + _running(scratch, trains)


def _running(
    scratch: Path, chosen: Callable[[psutil.Process], bool] = lambda process: True
) -> list[str]:
    """Names the processes that still run when those without a parent had time to notice."""
    end = time.monotonic() + _GONE_SECONDS
    while True:
        alive = [one for one in belonging(scratch) if chosen(one)]
        if not alive or time.monotonic() > end:
            return [f"runs still: {said(one)}" for one in alive]
        time.sleep(0.2)


def _figures(
    options: argparse.Namespace, storm: Storm, verdict: Verdict, waves: int
) -> dict[str, Any]:
    return {
        "trials": -(-options.trials // _EACH_REP) * _EACH_REP,
        "checkpoints, results": f"{options.storage}, {options.results_on}",
        "kills": sum(storm.done[kind] for kind in KINDS),
        **{f"- {words}": storm.done[kind] for kind, (_, words) in KINDS.items()},
        "SIGTERM or SIGINT to a driver": storm.done["stop"],
        "- the longest took, seconds": round(storm.longest_stop, 1),
        "drivers started beside another, which waited": storm.waited,
        "the S3 server stood still for 10 s": storm.done["pause"],
        "drivers started": storm.begin.count,
        "nodes started": storm.cluster.started,
        "times that a driver left a trial for another wave": waves,
        "records resumed from a checkpoint": verdict.resumed,
        "lost": len(verdict.lost),
        "double": len(verdict.double),
        "wrong": len(verdict.wrong),
    }


if __name__ == "__main__":
    raise SystemExit(main())
