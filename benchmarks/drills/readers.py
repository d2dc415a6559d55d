"""`python -m benchmarks.drills.readers`: readers while writers are killed at random moments.

Two writers run their trials again and again, and compact: each writes a run's record and epochs
in its next attempt, every few of them it compacts. Each is killed by SIGKILL at a random moment and
begun anew, with the next attempts. Meanwhile this process loads runs, epochs and statuses in a loop
and demands: no exception, no problem, no run less than before, each run once and in no older
attempt than was seen, every value as it was written. Prints figures, with --name writes
records/drill-readers-NAME.{json,md}, and ends with exit code 1 when a demand was not met.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.errors import BadInput
from bench.storage import atomic
from bench.store import compact, load_epochs, load_runs, parts, statuses, write_run
from bench.store.care import check
from bench.store.files import own_files

SLOTS = 2
RUNS = 12
"""Runs of each writer."""
COMPACT_EVERY = 3
LONGEST = 0.3
"""Seconds of a writer's life; a run takes some 20 ms, a compact a hundred."""
MOST_EPOCHS = 6
_ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run_of(run_id: str, attempt: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the record and the epochs that an attempt writes; they say which it was."""
    value = attempt + int(run_id, 16) / 1000
    record = {
        "run_id": run_id, "status": "ok", "stop_reason": "epochs", "seed": attempt,
        "valid_nll": value, "test_nll": -value, "epochs_done": attempt % MOST_EPOCHS,
        "host": f"{run_id} in attempt {attempt}", "started_utc": f"{attempt:012}",
    }  # fmt: skip
    epochs = [
        {"run_id": run_id, "epoch": n + 1, "step": attempt, "train_nll": value, "valid_nll": -value}
        for n in range(attempt % MOST_EPOCHS)
    ]
    return record, epochs


# --- the writers ----------------------------------------------------------------------------------


def writer(results: Path, slot: int, first: int) -> None:
    """Writes the runs of a slot, from attempt number `first` on, until it is killed."""
    attempt, parent = first, os.getppid()
    while os.getppid() == parent:  # or nobody is left to kill it
        run_id = f"{slot * RUNS + attempt % RUNS:012x}"
        write_run(results, *run_of(run_id, attempt))
        attempt += 1
        if attempt % COMPACT_EVERY == 0:
            _compact(results)


def _compact(results: Path) -> None:
    try:
        _, problems = compact.compact(results)
    except BadInput as error:
        if "another compact or prune is at work" not in str(error):
            raise
    else:
        assert not problems, problems


def torn(temporary: Path, path: Path) -> None:
    """Publishes a file as one who has not thought of readers does: it is written in its place."""
    content = temporary.read_bytes()
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), 512):
            file.write(content[start : start + 512])
            time.sleep(0)


def kill_writers(results: Path, kills: int, seed: int) -> int:
    """Begins and kills writers, by forks of this process; returns 1 if one ended by itself."""
    import filelock  # noqa: F401 - what a writer would import in its short life
    import pandas  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    draws = random.Random(seed)
    done, attempts = 0, [0] * SLOTS
    alive: dict[int, tuple[int, float]] = {}
    try:
        while done < kills:
            for slot in set(range(SLOTS)) - {s for s, _ in alive.values()}:
                attempts[slot] += 1000
                alive[_fork(results, slot, attempts[slot])] = (
                    slot,
                    time.monotonic() + draws.uniform(0, LONGEST),
                )
            pid = min(alive, key=lambda one: alive[one][1])
            time.sleep(max(0.0, alive[pid][1] - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            del alive[pid]
            if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
                return 1
            done += 1
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return 0


def _fork(results: Path, slot: int, first: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            writer(results, slot, first)
        except BaseException as error:
            print(f"writer {slot}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)  # never back into the parent's code
    return pid


# --- the reader -----------------------------------------------------------------------------------


def wrong(results: Path, newest: dict[str, int]) -> list[str]:
    """Reads all once; returns what is wrong with it. `newest` attempts seen are kept up."""
    found: list[str] = []
    try:
        runs, problems = load_runs(results)
        found += problems
        if len(set(runs.run_id)) != len(runs):
            found.append("a run twice")
        for record in runs.to_dict("records"):
            run_id, attempt = record["run_id"], record["seed"]
            if attempt < newest.get(run_id, 0):
                found.append(f"{run_id}: attempt {attempt} after {newest[run_id]}")
            written, _ = run_of(run_id, attempt)
            found += _differing(run_id, {**record}, written)
            newest[run_id] = max(newest.get(run_id, 0), attempt)
        if gone := newest.keys() - set(runs.run_id):
            found.append(f"{len(gone)} runs are gone: {min(gone)}")
        curves, problems = load_epochs(results)
        found += problems
        for run_id in sorted(set(curves.run_id)):
            curve = curves[curves.run_id == run_id]
            attempt = int(curve.step.iloc[0])
            _, rows = run_of(run_id, attempt)
            there = curve[[*rows[0]]].to_dict("records") if rows else []
            if there != rows:
                found.append(f"{run_id}: epochs are not those of attempt {attempt}")
        known = statuses(results, sorted(newest))
        if list(known) != sorted(newest) or set(known.values()) - {"ok"}:
            found.append("statuses does not know every run")
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    return found


def _differing(run_id: str, record: dict[Any, Any], written: dict[str, Any]) -> list[str]:
    names = [name for name, value in written.items() if record[name] != value]
    return [f"{run_id}: {', '.join(names)} not as written"] if names else []


def drill(results: Path, kills: int, seed: int, unsafe: bool) -> dict[str, Any]:
    """Kills writers and reads meanwhile; returns the figures and what was wrong."""
    newest: dict[str, int] = {}
    violations: list[str] = []
    reads, started = 0, time.monotonic()
    argv = [sys.executable, "-m", "benchmarks.drills.readers", "--folder", str(results)]
    argv += ["--kills", str(kills), "--seed", str(seed), "--child", *(["--torn"] * unsafe)]
    with subprocess.Popen(argv, env=os.environ | _ENV) as killer:
        while killer.poll() is None:
            violations += wrong(results, newest)
            reads += 1
    if killer.returncode:
        violations.append(f"the writers ended with {killer.returncode}")
    if len(newest) < SLOTS:
        violations.append("nothing was seen of some writer")
    left = [path.name for path in results.rglob("*.tmp")]
    violations += _afterwards(results, newest)
    return {
        "kills": kills, "reads of all tables": reads, "rows of runs": len(newest),
        "rows of epochs": len(load_epochs(results)[0]),
        "temporary files that kills left": len(left),
        "of these a compact's": sum(name.startswith(".compacted") for name in left),
        "violations": len(violations), "seconds": round(time.monotonic() - started, 1),
        "wrong": violations[:20],
    }  # fmt: skip


def _afterwards(results: Path, newest: dict[str, int]) -> list[str]:
    """One compact more, by a process that lives: all is folded, and nothing else is moved."""
    found = wrong(results, newest)
    before = [load(results)[0] for load in (load_runs, load_epochs)]
    try:
        _compact(results)
    except (BadInput, AssertionError) as error:
        return [*found, f"the last compact: {error}"]
    found += wrong(results, newest)
    after = [load(results)[0] for load in (load_runs, load_epochs)]
    if not all(one.equals(other) for one, other in zip(before, after, strict=True)):
        found.append("the last compact changed what is read")
    halves = ("left by a", "epochs of a run that has no record")  # what a kill may leave
    found += [line for line in check(results) if not any(half in line for half in halves)]
    return found + [f"{run_id}: not folded" for run_id in own_files(results, "runs")]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.drills.readers", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="40 kills")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--folder", type=Path, help="an empty one; kept afterwards")
    parser.add_argument("--name", help="of the record; without one none is written")
    parser.add_argument("--torn", action="store_true", help=argparse.SUPPRESS)  # must not pass
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.kills < 1:
        parser.error("--kills must be at least 1")
    kills = min(options.kills, 40) if options.quick else options.kills
    if options.child:
        if options.torn:
            atomic.publish = torn
        return kill_writers(options.folder, kills, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        results = options.folder or Path(scratch)
        parts.prepare(results)
        figures = drill(results, kills, options.seed, options.torn)
    lines = figures.pop("wrong")
    table = "\n".join(
        [
            "| what | |\n| --- | --- |",
            *(f"| {what} | {value:,} |" for what, value in figures.items()),
        ]
    )
    title = "Readers while writers are killed"
    print(f"{title}\n\n{table}", *lines, sep="\n")
    if options.name and not lines:
        _write(f"drill-readers-{options.name}", title, table, figures, argv)
    return 1 if lines else 0


def _write(name: str, title: str, table: str, figures: dict[str, Any], argv: list[str]) -> None:
    import torch

    from benchmarks import record

    command = " ".join(["python -m benchmarks.drills.readers", *argv])
    found = record.environment(torch.device("cpu")) | {"command": command}
    record.write(name, title, table, {"figures": figures} | found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
