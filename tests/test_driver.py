"""What the driver does with messages while trials run."""

from __future__ import annotations

import contextlib
import itertools
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
