"""What runs on a Ray worker, without Ray: the messages of a list of jobs, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from bench.backends import outbox
from bench.backends.pool import Deliver, Stopping
from bench.backends.ray_trial import Jobs, packed
from bench.job import Job

Run = Callable[[Sequence[Job], Deliver, Stopping], None]


def job(run_id: str) -> Job:
    return Job(
        run_id=run_id,
        trial={},
        corpus_hash="0" * 64,
        sources={},
        cell_hparams="{}",
        regularizer_hparams="{}",
        plugin_origin="tree",
        data_dir="/data",
        plugins="/plugins",
        git={},
        device="cpu",
        threads=1,
        keep_weights=False,
    )


def begin(monkeypatch: pytest.MonkeyPatch, run: Run) -> Jobs:
    """A trial of Tune's that has two of our jobs, which `run` runs in the place of processes."""
    monkeypatch.setattr(outbox, "PERIOD", 0.0)
    monkeypatch.setattr("bench.backends.ray_trial.Pool.run", lambda self, *given: run(*given))
    jobs = Jobs.__new__(Jobs)  # Tune's own part wants a folder
    jobs.setup({"jobs": packed([job("a"), job("b")])})
    return jobs


def test_the_jobs_travel_without_the_drivers_plugin_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []
    jobs = begin(monkeypatch, lambda jobs, deliver, stopping: seen.extend(jobs))
    assert jobs.step() == {"parcel": [], "done": True}
    assert [(one.run_id, one.data_dir, one.plugins) for one in seen] == [
        ("a", "/data", None),
        ("b", "/data", None),
    ]


def test_a_process_that_is_reused_runs_the_next_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: Sequence[Job], deliver: Deliver, stopping: Stopping) -> None:
        for one in jobs:
            deliver({"run_id": one.run_id})

    jobs = begin(monkeypatch, run)
    assert jobs.step() == {"parcel": [{"run_id": "a"}, {"run_id": "b"}], "done": True}
    assert jobs.reset_config({"jobs": packed([job("c")])})
    assert jobs.step() == {"parcel": [{"run_id": "c"}], "done": True}


def test_it_ends_only_when_all_it_said_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def run(jobs: Sequence[Job], deliver: Deliver, stopping: Stopping) -> None:
        deliver({"run_id": "a", "epoch": 1})
        go_on.wait(10)
        deliver({"run_id": "a", "record": {}})

    jobs = begin(monkeypatch, run)
    assert jobs.step() == {"parcel": [{"run_id": "a", "epoch": 1}], "done": False}
    go_on.set()
    jobs.thread.join(10)
    assert jobs.step() == {"parcel": [{"run_id": "a", "record": {}}], "done": True}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_machine_at_its_end_says_so_of_all_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: Sequence[Job], deliver: Deliver, stopping: Stopping) -> None:
        raise OSError("no more processes")

    jobs = begin(monkeypatch, run)
    jobs.thread.join(10)
    step = jobs.step()
    assert [message["run_id"] for message in step["parcel"]] == ["a", "b"]
    assert all("no more processes" in message["vanished"] for message in step["parcel"])


def test_the_bell_stops_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()

    def run(jobs: Sequence[Job], deliver: Deliver, stopping: Stopping) -> None:
        while not stopping():
            stopped.wait(0.01)
        stopped.set()

    jobs = begin(monkeypatch, run)
    jobs.stopping.set()
    assert stopped.wait(10)
    assert jobs.step()["done"]
