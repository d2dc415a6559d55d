"""What the driver does with messages while trials run."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from bench import driver, store
from bench.backends import local
from bench.backends.pool import Deliver
from bench.driver import _in_background
from bench.job import Job, Message, base_record
from tests.conftest import Verb
from tests.grids import grid_file
from tests.test_bad_input import refused

LOCAL = ("--backend", "local", "--jobs", 0, "--no-report")


def test_messages_are_taken_in_order_and_all_by_the_end() -> None:
    taken: list[Message] = []
    said: list[Message] = [{"run_id": str(n)} for n in range(200)]
    with _in_background(taken.append) as deliver:
        for message in said:
            deliver(message)
    assert taken == said


def test_nobody_waits_for_the_disk_until_too_much_does() -> None:
    disk, delivered = threading.Event(), threading.Event()

    def take(message: Message) -> None:
        disk.wait(60)

    def deliver_all() -> None:
        with _in_background(take) as deliver:
            for _ in range(driver._WAITING):
                deliver({})
            delivered.set()
            deliver({})
            assert disk.is_set()

    thread = threading.Thread(target=deliver_all, daemon=True)
    thread.start()
    assert delivered.wait(10)
    thread.join(0.2)
    assert thread.is_alive()
    disk.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("further", [0, 50])
def test_what_a_full_disk_raises_is_raised(further: int) -> None:
    taken: list[Message] = []

    def take(message: Message) -> None:
        taken.append(message)
        if message.get("last"):
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"), _in_background(take) as deliver:
        deliver({"run_id": "a"})
        deliver({"run_id": "b", "last": True})
        for _ in range(further):
            deliver({"run_id": "c"})
    assert [m["run_id"] for m in taken[:2]] == ["a", "b"]
    assert len(taken) <= 2 + further


def test_ctrl_c_loses_nothing_that_was_handed_over() -> None:
    taken: list[Message] = []
    with pytest.raises(KeyboardInterrupt), _in_background(taken.append) as deliver:
        for _ in range(5):
            deliver({})
        raise KeyboardInterrupt
    assert len(taken) == 5


def failing(message: Message) -> None:
    raise OSError("no room")


def test_after_an_error_nobody_is_heard() -> None:
    """A worker may take the first error for its trial's own."""
    with pytest.raises(OSError, match="no room"), _in_background(failing) as deliver:
        deliver({"run_id": "a"})
        for _ in range(200):
            with contextlib.suppress(OSError):
                while True:
                    deliver({})
            with pytest.raises(OSError, match="no room"):
                deliver({"run_id": "b", "record": {"status": "failed"}})


@pytest.mark.parametrize("ends_with", [KeyboardInterrupt, ValueError])
def test_an_end_hides_no_full_disk(ends_with: type[BaseException]) -> None:
    disk = threading.Event()

    def take(message: Message) -> None:
        disk.wait(10)
        failing(message)

    with pytest.raises(BaseException, match="no room"), _in_background(take) as deliver:
        deliver({})
        threading.Timer(0.1, disk.set).start()
        raise ends_with


def test_weights_wait_in_one_message_only() -> None:
    disk, delivered, taken = threading.Event(), threading.Event(), list[str]()

    def take(message: Message) -> None:
        disk.wait(60)
        taken.append(message["run_id"])

    def deliver_all() -> None:
        with _in_background(take) as deliver:
            deliver({"run_id": "a", "record": {}, "weights": b"x"})
            deliver({"run_id": "b", "record": {}, "weights": None})
            delivered.set()
            deliver({"run_id": "c", "record": {}, "weights": b"x"})
            assert "a" in taken

    thread = threading.Thread(target=deliver_all, daemon=True)
    thread.start()
    assert delivered.wait(10)
    thread.join(0.2)
    assert thread.is_alive()
    disk.set()
    thread.join(10)
    assert not thread.is_alive() and taken == ["a", "b", "c"]


@pytest.mark.parametrize("full", [False, True])
def test_ctrl_c_says_that_trials_are_kept_only_if_they_are(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    interrupted, write = threading.Event(), store.write_run

    def run(jobs: list[Job], deliver: Deliver, *_: Any, **__: Any) -> None:
        record = base_record(jobs[0]) | {"status": "stopped"}
        deliver({"run_id": jobs[0].run_id, "record": record, "weights": None})
        interrupted.set()
        raise KeyboardInterrupt

    def late(results: Path, record: dict[str, Any], *rest: Any) -> None:
        assert interrupted.wait(10)
        if full:
            raise store.StoreError(f"--results {results}: no room")
        write(results, record, *rest)

    monkeypatch.setattr(local, "run", run)
    monkeypatch.setattr(store, "write_run", late)
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm, gru]}"), *LOCAL)
    kept = len(store.load_runs(tmp_path / "results")[0])
    if full:
        refused(outcome, "no room")
        assert kept == 0
    else:
        assert outcome.code == 130 and "finished trials are kept" in outcome.err
        assert kept == 1


@pytest.mark.parametrize("where", ["_forget", "log_file"])
def test_a_stop_that_is_asked_for_before_the_first_trial_is_heard(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real = getattr(driver, where)

    def then(*given: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return real(*given)

    monkeypatch.setattr(driver, where, then)
    monkeypatch.setattr(local, "run", lambda *_, **__: pytest.fail("it runs"))
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *LOCAL)
    assert outcome.code == 130 and "To go on" in outcome.err


def test_a_stop_between_two_waves_is_heard(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = []

    def run(jobs: list[Job], deliver: Deliver, *_: Any, **__: Any) -> None:
        waves.append(jobs)
        deliver({"run_id": jobs[0].run_id, "vanished": "its node"})

    write = store.write_run

    def lost(*given: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(local, "run", run)
    monkeypatch.setattr(store, "write_run", lost)
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *LOCAL)
    assert outcome.code == 130 and len(waves) == 1


def test_what_is_tried_again_runs_apart_from_packs(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs: list[list[int]] = []

    def run(jobs: list[Job], deliver: Deliver, *_: Any, **__: Any) -> None:
        first = not packs
        packs.append([job.pack for job in jobs])
        for job, end in zip(jobs, ("oom", "stopped", "vanished", "not begun"), strict=False):
            if first and end == "vanished":
                deliver({"run_id": job.run_id, "vanished": "its node"})
            elif not first or end != "not begun":
                record = base_record(job) | {"status": end if first else "stopped"}
                deliver({"run_id": job.run_id, "record": record, "weights": None})

    monkeypatch.setattr(local, "run", run)
    grid = grid_file(tmp_path, "{cell: [lstm, gru, rnn_tanh, rnn_relu]}")
    assert verb("grid", grid, *LOCAL, "--pack", 3).code == 0
    assert packs == [[3, 3, 3, 3], [1, 1], [3]]


def test_a_rerun_goes_on_from_its_own_checkpoint(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm, gru]}")
    assert verb("grid", grid, *LOCAL).code == 0
    names = [path.stem for path in sorted((tmp_path / "results" / "runs").iterdir())]
    kept = [tmp_path / "results" / "checkpoints" / name / "000001-x.safetensors" for name in names]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of a rerun that was stopped")
    seen: list[bool] = []

    def run(jobs: list[Job], *_: Any, **__: Any) -> None:
        seen.extend(path.exists() for path in kept)

    monkeypatch.setattr(local, "run", run)
    verb("grid", grid, *LOCAL, "--rerun", "all", "--max-retries", 0)
    assert seen == [True, True]
    grid = grid_file(tmp_path, "{cell: [lstm, gru, rnn_tanh]}")
    verb("grid", grid, *LOCAL, "--max-retries", 0)
    assert seen[2:] == [False, False], "nobody needs them"


def test_a_log_that_is_a_link_is_refused(verb: Verb, tmp_path: Path) -> None:
    """As in a results folder of somebody else: to any file of ours."""
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    folder = tmp_path / "results" / "grids"
    folder.mkdir(parents=True)
    (folder / "tiny.log").symlink_to(tmp_path / "precious")
    refused(verb("grid", grid, *LOCAL), "tiny.log: a link")
    assert not (tmp_path / "precious").exists()


def test_the_log_tells_the_nearest_cause_of_the_last_try(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = itertools.count(1)

    def run(jobs: list[Job], deliver: Deliver, *_: Any, **__: Any) -> None:
        for how in (f"a plugin's traceback, try {next(tries)}", "its process or node vanished"):
            deliver({"run_id": jobs[0].run_id, "vanished": how})

    monkeypatch.setattr(local, "run", run)
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    assert verb("grid", grid, *LOCAL, "--max-retries", 1).code == 1
    runs, _ = store.load_runs(tmp_path / "results")
    assert list(runs["error_text"]) == ["a plugin's traceback, try 2"]
    log = (tmp_path / "results" / "grids" / "tiny.log").read_text()
    assert "try 1" in log and "try 2" in log and "vanished" not in log
