"""Exact resume: a trial that goes on elsewhere ends as if nothing had happened, to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import snapshot
from bench.backends import pool
from bench.backends.child import UnderWay
from bench.checkpoint import Keeper
from bench.course import Leave, build, course
from bench.job import Job, Message
from bench.snapshot import Misfit, put_back, take
from bench.storage import identity, open_storage
from benchmarks.drills import resume
from benchmarks.drills.resume import BOTH, FURTHER, End, same, undisturbed


def job(**fields: Any) -> Job:
    return resume.jobs([{"cell": "lstm", "regularizer": BOTH} | fields])[0]


def trials() -> list[dict[str, Any]]:
    return resume.every()


@pytest.mark.parametrize("trial", trials(), ids=lambda trial: "-".join(map(str, trial.values())))
def test_resumed_at_two_random_windows(trial: dict[str, Any], tmp_path: Path) -> None:
    """The drill, `python -m benchmarks.drills.resume`, takes twenty."""
    ((_, count, wrong),) = resume.by_dropping([trial], 2, seed=len(str(trial)))
    assert (count, wrong) == (2, 0)


@pytest.mark.slow
def test_the_drill_notices_whatever_is_forgotten() -> None:
    assert [name for name, noticed in resume.controls(1) if not noticed] == []


def finish(job: Job) -> End:
    trainer = build(job)
    return resume.ended(trainer, [epoch for epoch in trainer.turns() if epoch is not None])


@pytest.mark.parametrize("windows", [1, 3, 13, 16, 19, 24, 100_000])
def test_left_in_the_middle_of_an_evaluation(windows: int, tmp_path: Path) -> None:
    """Whose windows are no turns: the pass that was trained is not lost, and validated anew."""
    one = job(**FURTHER[0] | {"eval_mc": 2})
    end, _ = undisturbed(one)
    trainer, looks, epochs = build(one), 0, list[dict[str, Any]]()

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks > windows:
            raise Leave

    trainer.look = look
    try:
        for epoch in trainer.turns():  # one by one: those of before it is left count
            epochs += [epoch] if epoch is not None else []
        trainer.result()
        assert windows == 100_000
    except Leave:
        pass
    state = take(trainer)
    again = build(one)
    put_back(again, state)
    epochs += [epoch for epoch in again.turns() if epoch is not None]
    assert same(end, resume.ended(again, epochs))


def run(one: Job, stop_after: int | None = None) -> tuple[list[Message], bool]:
    """Runs a job's course, told to stop after so many turns; returns what it said, and if left."""
    said: list[Message] = []
    turns = 0
    going = course(one, lambda: stop_after is not None and turns >= stop_after)
    try:
        while True:
            message = next(going)
            turns += 1
            if message is not None:
                said.append(message)
    except StopIteration as end:
        said.append({"columns": end.value[0]})
        return said, False
    except Leave:
        return said, True


def epochs_of(said: list[Message]) -> list[dict[str, Any]]:
    clocks = ("seconds", "tokens_per_s")
    return [{k: v for k, v in m["epoch"].items() if k not in clocks} for m in said if "epoch" in m]


def test_a_course_that_is_told_to_stop_goes_on_from_there(tmp_path: Path) -> None:
    where = {"checkpoints": str(tmp_path), "checkpoint_every": "3600s"}
    (calm,) = resume.jobs([{"cell": "lstm"}])
    (one,) = resume.jobs([{"cell": "lstm"}], **where)
    whole, left = run(calm)
    assert not left
    said, left = run(one, stop_after=45)
    assert left and len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert len(epochs_of(said)) == 1
    said, left = run(one, stop_after=30)
    assert left and len(epochs_of(said)) == 2, "with those of before"
    said, left = run(one)
    assert not left
    assert epochs_of(said) == epochs_of(whole)
    assert said[-1]["columns"]["test_nll"] == whole[-1]["columns"]["test_nll"]
    assert [m["columns"]["resumed"] for m in (whole[-1], said[-1])] == [0, 2]
    assert any("goes on after epoch 2" in m.get("said", "") for m in said)


def test_a_course_may_be_stopped_at_any_turn(tmp_path: Path) -> None:
    """Also between the end of an epoch and its message: none is missing, none is there twice."""
    (calm,) = resume.jobs([{"cell": "lstm"}])
    whole, _ = run(calm)
    for turns in range(28, 68):
        (one,) = resume.jobs(
            [{"cell": "lstm"}], checkpoints=str(tmp_path / str(turns)), checkpoint_every="3600s"
        )
        assert run(one, stop_after=turns)[1]
        assert epochs_of(run(one)[0]) == epochs_of(whole), turns


def test_a_full_disk_costs_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> None:
        raise OSError("no room")

    (one,) = resume.jobs([{"cell": "lstm"}], checkpoints=str(tmp_path), checkpoint_every="0s")
    monkeypatch.setattr("bench.checkpoint.SHARE", 1e9)
    monkeypatch.setattr("bench.checkpoint.Keeper.save", put)
    said, left = run(one)
    assert not left and said[-1]["columns"]["status"] == "ok"
    assert [m["said"] for m in said if "said" in m] == ["no checkpoint: no room"], "said once"


@pytest.mark.parametrize("times", [1, 9])
def test_checkpoints_out_of_reach_are_waited_for_and_never_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    (one,) = resume.jobs([{"cell": "lstm"}], checkpoints=str(tmp_path))
    assert run(one, stop_after=45)[1]
    load, calls = Keeper.load, 0

    def get(keeper: Keeper) -> Any:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise OSError("the server is gone")
        return load(keeper)

    monkeypatch.setattr("bench.course._PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Keeper, "load", get)
    if times == 1:
        said, left = run(one)
        assert not left and any("goes on after" in m.get("said", "") for m in said)
        return
    going = course(one)
    with pytest.raises(Leave, match="out of reach: the server is gone"):
        list(going)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_machine_that_does_not_see_the_storage_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    """One that joined the cluster later, without the folder that the others share."""
    shared, local = tmp_path / "shared", tmp_path / "local"
    name = identity(open_storage(str(shared)))
    assert name == identity(open_storage(str(shared))) != identity(open_storage(str(local)))
    (calm,) = resume.jobs([{"cell": "lstm"}])
    (one,) = resume.jobs(
        [{"cell": "lstm"}], checkpoints=str(local), storage_id=name, checkpoint_every="1e"
    )
    said, left = run(one, stop_after=45)
    assert left and not list(tmp_path.rglob("*.safetensors"))
    assert ["does not see --storage" in m["said"] for m in said if m.get("loud")] == [True]
    said, left = run(one)
    assert not left and epochs_of(said) == epochs_of(run(calm)[0])
    there = dataclasses.replace(one, checkpoints=str(shared))
    said, left = run(there, stop_after=45)
    assert left and list(shared.rglob("*.safetensors"))
    assert not any("loud" in m for m in said)


def test_a_checkpoint_that_cannot_be_written_is_said_aloud_once(tmp_path: Path) -> None:
    (one,) = resume.jobs([{"cell": "lstm"}], checkpoints=str(tmp_path), checkpoint_every="0s")
    going = course(one)
    said = [next(going)]

    (tmp_path / "checkpoints").write_text("in the way")
    said += list(going)
    assert len([m for m in said if m and "no checkpoint" in m.get("said", "")]) == 1


def test_what_a_trial_took_before_it_was_resumed_counts(tmp_path: Path) -> None:
    where = {"checkpoints": str(tmp_path), "checkpoint_every": "3600s"}
    (one,) = resume.jobs([{"cell": "lstm"}], **where)
    run(one, stop_after=45)
    said, _ = run(one, stop_after=50)
    (message,) = [m for m in said if "spent" in m]
    assert 0 < message["spent"] < 600
    trial = UnderWay(one)
    before = trial.began
    child = SimpleNamespace(under_way={one.run_id: trial})
    pool._note(child, message)  # type: ignore[arg-type]
    assert trial.began == before - message["spent"]
    assert trial.heard >= before, "the clock of its epoch is its own"
    shared = UnderWay(dataclasses.replace(one, own_clock=False))
    began = shared.began
    pool._note(SimpleNamespace(under_way={one.run_id: shared}), message)  # type: ignore[arg-type]
    assert shared.began == began, "others trained on its clock"


@pytest.mark.parametrize("other", [{"cell": "gru"}, {"nhid": 13}, {"precision": "fp64"}])
def test_a_snapshot_of_another_trial_changes_nothing(other: dict[str, Any]) -> None:
    stranger = build(job(**other))
    next(iter(stranger.turns()))
    trainer = build(job())
    before = [p.clone() for p in trainer.parameters]
    with pytest.raises(Misfit):
        put_back(trainer, take(stranger))
    assert all(map(torch.equal, before, trainer.parameters)) and trainer.at.step == 0


def test_numbers_of_another_version_are_a_misfit() -> None:
    trainer = build(job())
    tensors, numbers = take(trainer)
    others: list[Any] = [{}, numbers["at"] | {"more": 1}, None]
    for at in others:
        with pytest.raises(Misfit):
            put_back(build(job()), (tensors, numbers | {"at": at}))


def test_a_trial_that_diverged_is_at_its_end() -> None:
    trainer = build(job())
    trainer.diverged = True
    with pytest.raises(ValueError, match="at its end"):
        snapshot.take(trainer)


def test_the_clock_leaves_out_what_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    monkeypatch.setattr("bench.loop.time.perf_counter", clock)
    trainer = build(job(epochs=1))
    for turn, _ in enumerate(trainer.turns()):
        if turn % 5 == 0:
            with trainer.pause():
                now[0] += 1000
    assert trainer.at.train_seconds < 10
