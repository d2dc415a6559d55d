"""What runs on a Ray worker, without Ray: the messages of a list of jobs, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from bench.backends import outbox, ray_trial
from bench.backends.ray_trial import Jobs, packed
from bench.worker import Job, Message

Report = Callable[[Message], None]
Run = Callable[[list[Job], Report, int], bool]


def job(run_id: str) -> Job:
    return Job(
        run_id, {}, "0" * 64, {}, "{}", "{}", "tree", "/data", "/plugins", "cpu", 1, False, {}
    )


def begin(monkeypatch: pytest.MonkeyPatch, run: Run) -> Jobs:
    """A trial of Tune's that has two of our jobs, which `run` runs."""
    monkeypatch.setattr(outbox, "PERIOD", 0.0)
    monkeypatch.setattr(ray_trial, "run_trials", run)
    jobs = Jobs.__new__(Jobs)  # Tune's own part wants a folder
    jobs.setup({"jobs": packed([job("a"), job("b")])})
    return jobs


def test_the_jobs_travel_without_the_drivers_plugin_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []

    def run(jobs: list[Job], report: Report, pack: int) -> bool:
        seen.extend(jobs)
        return True

    jobs = begin(monkeypatch, run)
    assert jobs.step() == {"parcel": [], "done": True}
    assert [(one.run_id, one.data_dir, one.plugins) for one in seen] == [
        ("a", "/data", None),
        ("b", "/data", None),
    ]


def test_a_process_that_is_reused_runs_the_next_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: list[Job], report: Report, pack: int) -> bool:
        for one in jobs:
            report({"run_id": one.run_id})
        return True

    jobs = begin(monkeypatch, run)
    assert jobs.step() == {"parcel": [{"run_id": "a"}, {"run_id": "b"}], "done": True}
    assert jobs.reset_config({"jobs": packed([job("c")])})
    assert jobs.step() == {"parcel": [{"run_id": "c"}], "done": True}


def test_a_process_is_given_up_only_when_all_it_said_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    def run(jobs: list[Job], report: Report, pack: int) -> bool:
        report({"run_id": "a", "epoch": 1})
        go_on.wait(10)
        report({"run_id": "a", "record": {}})
        return False

    jobs = begin(monkeypatch, run)
    first: dict[str, Any] = jobs.step()
    assert first == {"parcel": [{"run_id": "a", "epoch": 1}], "done": False}
    go_on.set()
    jobs.thread.join(10)  # all is said before Tune asks again
    assert jobs.step() == {"parcel": [{"run_id": "a", "record": {}}], "done": False}
    with pytest.raises(RuntimeError, match="given up"):
        jobs.step()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("started", ["", "a", "ab"])
def test_what_ends_the_thread_is_told_of_the_trials_under_way(
    monkeypatch: pytest.MonkeyPatch, started: str, error: type[BaseException]
) -> None:
    said: list[Message] = [{"run_id": run_id, "start": True} for run_id in started]
    if started == "ab":
        said.append({"run_id": "a", "record": {}})

    def run(jobs: list[Job], report: Report, pack: int) -> bool:
        for message in said:
            report(message)
        raise error("by a plugin: \udc80")

    jobs = begin(monkeypatch, run)
    jobs.thread.join(10)
    step = jobs.step()
    *before, last = step["parcel"]
    assert before == said and not step["done"]
    assert last["run_id"] == (started or "a")[-1], "the one under way, or the first"
    lines = last["vanished"].strip().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"{error.__name__}: by a plugin: \\udc80", "text that can be stored"
    with pytest.raises(RuntimeError, match="given up"):
        jobs.step()


def test_trials_under_a_device_that_broke_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: list[Job], report: Report, pack: int) -> bool:
        for one in jobs:
            report({"run_id": one.run_id, "start": True})
        return False

    jobs = begin(monkeypatch, run)
    jobs.thread.join(10)
    how = "the device stopped working under several trials"
    assert jobs.step()["parcel"][2:] == [{"run_id": x, "vanished": how} for x in "ab"]
