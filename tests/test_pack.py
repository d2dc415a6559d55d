"""Trials side by side: turns, errors that cost a run alone, and the same numbers as alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.config import Trial
from bench.job import Job
from bench.pack import take_turns
from bench.worker import run_trials
from tests.jobs import job_of

SMALL: dict[str, Any] = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 12,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 2,
}
CLOCKS = {"train_seconds", "eval_seconds", "tokens_per_s", "started_utc", "peak_mem_bytes"}


def counting(length: int, log: list[str], name: str) -> Generator[None, None, str]:
    for turn in range(length):
        log.append(f"{name}{turn}")
        yield
    return name.upper()


def test_turns_go_round_and_the_next_job_starts_when_one_ends() -> None:
    log: list[str] = []
    lengths = {"a": 1, "b": 3, "c": 2}
    ends = list(take_turns(lengths, lambda name: counting(lengths[name], log, name), lambda: 2))
    assert log == ["a0", "b0", "b1", "b2", "c0", "c1"]
    assert ends == [("a", 2, "A"), ("b", 2, "B"), ("c", 2, "C")]


def test_no_job_is_taken_before_there_is_room_for_it() -> None:
    taken: list[str] = []

    def jobs() -> Iterator[str]:
        for name in "abc":
            taken.append(name)
            yield name

    ends = take_turns(jobs(), lambda name: counting(1, [], name), lambda: 1)
    assert next(ends) == ("a", 1, "A")
    assert taken == ["a"]


def test_those_that_may_not_run_together_wait() -> None:
    log: list[str] = []
    jobs = ["a1", "a2", "b1", "a3"]
    alike = lambda one, other: one[0] == other[0]  # noqa: E731
    ends = list(take_turns(jobs, lambda name: counting(2, log, name), lambda: 3, alike))
    assert [company for _, company, _ in ends] == [2, 2, 1, 1]
    assert log[:4] == ["a10", "a20", "a11", "a21"]


def test_an_error_is_an_outcome_and_ctrl_c_is_not() -> None:
    def failing(error: type[BaseException]) -> Generator[None, None, None]:
        yield
        raise error("no")

    ((_, _, outcome),) = take_turns([MemoryError], failing, lambda: 1)
    assert isinstance(outcome, MemoryError)
    with pytest.raises(KeyboardInterrupt):
        list(take_turns([KeyboardInterrupt], failing, lambda: 1))


def records(jobs: list[Job], pack: int) -> tuple[list[dict[str, Any]], bool]:
    messages: list[dict[str, Any]] = []
    reusable = run_trials(jobs, messages.append, pack)
    return messages, reusable


def by_id(messages: list[dict[str, Any]], key: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for message in messages:
        if key in message:
            found.setdefault(message["run_id"], []).append(message[key])
    return found


def test_packed_trials_have_the_numbers_they_have_alone() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"cell": "gru", "regularizer": "ar+tar", "epochs": 3},
        {"cell": "lstm_zoneout", "nhid": 9, "rep": 1},
        {"precision": "fp64"},
        {"cell": "rnn_tanh", "lr": 2.0, "batch_size": 4},
    ]
    jobs = [job_of(Trial(**SMALL | change)) for change in changes]
    packed, _ = records(jobs, 3)
    alone, _ = records(jobs, 1)
    assert {r: e[-1]["packed"] for r, e in by_id(alone, "record").items()} == {
        job.run_id: 1 for job in jobs
    }
    ends = by_id(packed, "record")
    assert [ends[job.run_id][0]["packed"] for job in jobs] == [3, 3, 3, 1, 1]
    for key in ("record", "epoch"):
        one, other = by_id(packed, key), by_id(alone, key)
        assert one.keys() == other.keys()
        for run_id in one:
            for a, b in zip(one[run_id], other[run_id], strict=True):
                for name in a.keys() - CLOCKS - {"packed", "seconds"}:
                    assert a[name] == b[name], (run_id, name)


FAILS_BESIDE = """
from torch import nn
class Cell(nn.Module):
    runs = 0
    def __init__(self, input_size, hidden_size, *, always: bool = False):
        super().__init__()
        self.rnn = nn.LSTM(input_size, hidden_size)
        type(self).runs += 1
        self.fails = always or type(self).runs <= 2
    def initial_state(self, batch_size):
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros
    def forward(self, x, state, noise):
        if self.fails and self.training:
            raise MemoryError("too little")
        raw, (h, c) = self.rnn(x, tuple(s.unsqueeze(0) for s in state))
        return raw, (h.squeeze(0), c.squeeze(0))
"""


def test_a_trial_that_fails_beside_others_is_run_once_more_alone(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "narrow.py").write_text(FAILS_BESIDE)
    trials = [
        Trial(**SMALL),
        Trial(**SMALL, cell="narrow"),
        Trial(**SMALL, cell="narrow:always=true"),
    ]
    jobs = [job_of(trial, tmp_path) for trial in trials]
    messages, reusable = records(jobs, 3)
    ends = {run_id: found for run_id, found in by_id(messages, "record").items()}
    assert [len(ends[job.run_id]) for job in jobs] == [1, 1, 1], "one record each"
    assert [ends[job.run_id][0]["status"] for job in jobs] == ["ok", "ok", "oom"]
    assert [ends[job.run_id][0]["packed"] for job in jobs] == [3, 1, 1]
    assert not reusable, "after an error the process is given up"
