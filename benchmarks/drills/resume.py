"""`python -m benchmarks.drills.resume`: a trial that is killed and resumed ends as if undisturbed.

First every cell under ar+tar, every regularizer under lstm and further settings, at random windows:
all objects are dropped, and a new Trainer goes on from the file of a checkpoint. Then processes
that train are killed (SIGKILL) at random moments, and another process goes on. Epochs, weights and
record must be equal to the bit each time. Last the control: each piece of state is forgotten in
turn, and the drill must notice. Exits with 1 when anything else happens.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.backends.pool import Pool
from bench.checkpoint import Keeper, drop
from bench.config import Grid, expand
from bench.config.grid import Block
from bench.corpora import default_data_dir
from bench.course import build
from bench.job import How, Job, Message
from bench.loop import Trainer
from bench.plan import plan
from bench.plugins import find
from bench.snapshot import put_back, take
from bench.storage import open_storage
from bench.store import EPOCH_RESULT_COLUMNS, RESULT_COLUMNS
from benchmarks.record import environment, write

BASE = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 12,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 3,
    "lr": 5,
}
BOTH = "ar:alpha=2+tar:beta=1"
FURTHER: tuple[dict[str, Any], ...] = (
    {"optimizer": "nt-asgd", "nonmono": 1, "epochs": 5, "variable_bptt": True, "lr": 2},
    {"locked": True, "dropoute": 0.1, "eval_mc": 2, "objective": "augmented", "tied": False},
    {"precision": "fp64", "epochs": 4, "lr": 100, "clip": 0.05},
)
KILLED = ("lstm", "lstm_batchnorm", "qrnn")
End = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Tensor]]
"""Epochs, columns and weights of a trial, without what its clock said."""
Forget = Callable[[dict[str, Tensor], dict[str, Any]], None]


def jobs(trials: Sequence[dict[str, Any]], **how: Any) -> list[Job]:
    """Returns the jobs of trials, each given as the fields that are not those of BASE."""
    registry, data_dir = find(), default_data_dir()
    blocks = tuple(Block(BASE | trial, {}, 1, "drill") for trial in trials)
    grid = Grid("drill", blocks, where="drill")
    given: dict[str, Any] = {"device": "cpu", "threads": 1, "keep_weights": False} | how
    with tempfile.TemporaryDirectory() as results:
        return plan(
            grid,
            expand(grid, registry, data_dir),
            registry,
            results=Path(results),
            data_dir=data_dir,
            plugins=None,
            how=How(**given),
        ).jobs


def every(cells: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Returns the trials of the first part: every cell, every regularizer, further settings."""
    registry = find()
    trials: list[dict[str, Any]]
    trials = [{"cell": cell, "regularizer": BOTH} for cell in sorted(registry["cell"])]
    for name, plugin in sorted(registry["regularizer"].items()):
        cell = "lstm_zoneout" if "memory" in plugin.needs else "lstm"
        trials.append({"cell": cell, "regularizer": name})
    if cells:
        trials = [trial for trial in trials if trial["cell"] in cells]
    return trials + [{"cell": "lstm", "regularizer": BOTH} | more for more in FURTHER]


def ended(trainer: Trainer, epochs: list[dict[str, Any]]) -> End:
    """Returns what a trial came to, once its turns are at their end."""
    columns = {k: v for k, v in trainer.result().items() if k in RESULT_COLUMNS}
    kept = [{k: v for k, v in e.items() if k in EPOCH_RESULT_COLUMNS} for e in epochs]
    now = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    return kept, columns, now


def undisturbed(job: Job) -> tuple[End, int]:
    """Trains a job; returns its end and its turns."""
    trainer, epochs, turns = build(job), [], 0
    for turns, epoch in enumerate(trainer.turns(), start=1):  # noqa: B007
        epochs += [epoch] if epoch is not None else []
    return ended(trainer, epochs), turns


def resumed(job: Job, after: int, folder: Path, forget: Forget | None = None) -> End:
    """Trains a job for so many turns, drops all of it, and goes on from its checkpoint."""
    keeper = Keeper(open_storage(str(folder)), job.run_id, {})
    trainer, epochs = build(job), []
    for turn, epoch in enumerate(trainer.turns(), start=1):
        epochs += [epoch] if epoch is not None else []
        if turn == after:
            break
    keeper.save(*take(trainer), epochs)
    del trainer, epochs
    found = keeper.load()
    assert found is not None
    tensors, numbers, epochs = found
    if forget is not None:
        forget(tensors, numbers)
    trainer = build(job)
    put_back(trainer, (tensors, numbers))
    epochs += [epoch for epoch in trainer.turns() if epoch is not None]
    return ended(trainer, epochs)


def same(one: End, other: End) -> bool:
    """Whether two ends are equal to the bit."""
    weights = one[2].keys() == other[2].keys() and all(
        torch.equal(tensor, other[2][name]) for name, tensor in one[2].items()
    )
    return weights and one[:2] == other[:2]


def by_dropping(
    trials: Sequence[dict[str, Any]], points: int, seed: int, **how: Any
) -> Iterator[tuple[str, int, int]]:
    """Yields each trial's name, its points, and at how many of them it went on otherwise."""
    draws = random.Random(seed)
    for trial, job in zip(
        trials, jobs(trials, **how), strict=True
    ):  # a pair that is skipped would show
        end, turns = undisturbed(job)
        with tempfile.TemporaryDirectory() as folder:
            cuts = draws.sample(range(1, turns), min(points, turns - 1))
            wrong = sum(not same(end, resumed(job, cut, Path(folder) / str(cut))) for cut in cuts)
        more = [f"{k}={v}" for k, v in trial.items() if k not in ("cell", "regularizer")]
        yield " ".join([trial["cell"], trial["regularizer"], *more]), len(cuts), wrong


def by_killing(cells: Sequence[str], kills: int, seed: int) -> Iterator[tuple[str, int, int, int]]:
    """Yields each cell, its kills, the resumes after them, and how many ended otherwise."""
    draws = random.Random(seed)
    for cell in cells:
        trial = {"cell": cell, "regularizer": BOTH, "epochs": 25, "nhid": 24}
        with tempfile.TemporaryDirectory() as folder:
            (job,) = jobs([trial], keep_weights=True, checkpoints=folder, checkpoint_every="0.01s")
            calm, seconds = _run(job, None)
            resumes = wrong = 0
            for _ in range(kills):
                drop(open_storage(folder), job.run_id)  # as its record is, that of the run before
                end, _ = _run(job, draws.uniform(0, seconds))
                resumes += end["resumed"]
                names = [n for n in RESULT_COLUMNS if n in calm] + ["weights", "epochs"]
                wrong += any(calm[name] != end[name] for name in names)
        yield cell, kills, resumes, wrong


def _run(job: Job, kill_after: float | None) -> tuple[dict[str, Any], float]:
    """Runs a job in a process that is killed so long after its first epoch, and again to its end.

    Returns its record, with `epochs` and `weights`, and the seconds from the first epoch on.
    """
    pool, epochs, ends = Pool(1), list[dict[str, Any]](), list[Message]()
    clock: list[float] = []

    def deliver(message: Message) -> None:
        if "start" in message:
            epochs.clear()
        if "epoch" in message:
            clock.append(time.monotonic())
            kept = {k: v for k, v in message["epoch"].items() if k in EPOCH_RESULT_COLUMNS}
            epochs.append(kept)
        if "record" in message:
            ends.append(message)

    def late() -> bool:
        if kill_after is not None and clock and time.monotonic() - clock[0] > kill_after:
            for child in pool.children:
                child.process.kill()
        return False

    try:
        while not ends:
            pool.run([job], deliver, late)
            kill_after = None
    finally:
        pool.close()
    seconds = time.monotonic() - clock[0]
    return ends[0]["record"] | {"epochs": list(epochs), "weights": ends[0]["weights"]}, seconds


def controls(seed: int) -> Iterator[tuple[str, bool]]:
    """Yields each piece of state, and whether forgetting it was noticed."""
    trial = {"cell": "lstm_batchnorm", "regularizer": BOTH, "lr": 60, "epochs": 8}
    (job,) = jobs([trial | {"optimizer": "nt-asgd", "nonmono": 1, "variable_bptt": True}])
    end, turns = undisturbed(job)
    epoch = end[1]["averaged_from_epoch"]
    assert epoch is not None, "nothing was averaged"
    begun = turns * (epoch - 1) // end[1]["epochs_done"]
    middle = random.Random(seed).randrange(begun + 5, turns - 2)

    def zero(prefix: str) -> Forget:
        def forget(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
            found = [tensor for name, tensor in tensors.items() if name.startswith(prefix)]
            assert found, prefix
            for tensor in found:
                tensor.zero_()

        return forget

    def number(name: str) -> Forget:
        def forget(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
            numbers["at"][name] = 0 if name != "valid_nlls" else []

        return forget

    def steps(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        numbers["average_steps"] = 1

    pieces = {f"tensors {p}": zero(p) for p in ("model.", "state.", "average.", "sums")}
    pieces |= {f"number {n}": number(n) for n in ("step", "row", "windows", "lr")}
    pieces |= {"the averages' count": steps}
    with tempfile.TemporaryDirectory() as folder:
        assert same(end, resumed(job, middle, Path(folder) / "whole"))
        for name, forget in pieces.items():
            other = resumed(job, middle, Path(folder) / name.replace(" ", "-"), forget)
            yield name, not same(end, other)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the drill; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drills.resume", description=__doc__)
    parser.add_argument("--points", type=int, default=20, help="windows at which a trial is cut")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs for each of three cells")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="lstm and qrnn, 2 points, 1 kill")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    points, kills = (2, 1) if options.quick else (options.points, options.kills)
    rows = ["| what | times | resumed otherwise |", "| --- | --- | --- |"]
    bad = cut = killed = 0
    print("\n".join(rows), flush=True)

    def tell(row: str) -> None:
        rows.append(row)
        print(row, flush=True)

    chosen = every(("lstm", "qrnn") if options.quick else ())
    for name, count, wrong in by_dropping(chosen, points, options.seed):
        cut, bad = cut + count, bad + wrong
        tell(f"| dropped: {name} | {count} | {wrong} |")
    for cell, count, resumes, wrong in by_killing(
        KILLED[:1] if options.quick else KILLED, kills, options.seed
    ):
        killed, bad = killed + count, bad + wrong
        tell(f"| SIGKILL: {cell}, {resumes} times gone on with | {count} | {wrong} |")
    for name, noticed in controls(options.seed):
        bad += not noticed
        tell(f"| control: without {name} | 1 | {'noticed' if noticed else 'NOT NOTICED'} |")
    said = f"{cut} cuts, {killed} kills: {bad} ended otherwise or were not noticed"
    print(said)
    if options.name:
        record = environment(torch.device("cpu")) | {"cuts": cut, "kills": killed, "bad": bad}
        write(f"drill-resume-{options.name}", "Resume drill", "\n".join(rows), record)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
