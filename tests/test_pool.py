"""The parent of processes that run trials: its limits, and a machine that has no room for more."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bench.backends import pool as pools
from bench.backends.child import Child
from bench.backends.pool import Pool, thread_limits
from bench.config import Trial
from bench.errors import BadInput
from bench.job import Job, Message
from tests.grids import rogue
from tests.jobs import job_of

CORPUS = "synthetic:train=2000:valid=300:test=300"


def ends(jobs: list[Job], slots: int = 1) -> list[Any]:
    """Returns how each job ended, in the order of their ends."""
    said: list[Message] = []
    pool = Pool(slots)
    try:
        pool.run(jobs, said.append, lambda: False)
    finally:
        pool.close()
    return [m["record"]["status"] if "record" in m else m["vanished"] for m in said if _last(m)]


def _last(message: Message) -> bool:
    return "record" in message or "vanished" in message


def test_a_trial_that_never_falls_silent_is_held_to_its_limit() -> None:
    trial = Trial(corpus=CORPUS, nhid=8, epochs=100_000, lr_decay=1.0001, min_lr=1e-9)
    job = dataclasses.replace(job_of(trial), trial_timeout=2.0)
    assert ends([job]) == ["timeout"]


@pytest.mark.parametrize("every", ["off", "0.1s"])
def test_a_checkpoint_is_no_end_of_an_epoch(every: str, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "slow", call="__import__('time').sleep(0.02)")
    trial = Trial(corpus=CORPUS, cell="slow", nhid=8, batch_size=2, bptt=2, epochs=1)
    job = dataclasses.replace(
        job_of(trial, tmp_path / "p"),
        epoch_timeout=3.0,
        checkpoints=str(tmp_path),
        checkpoint_every=every,
    )
    assert ends([job]) == ["timeout"]
    assert bool(list(tmp_path.glob("checkpoints/*/*"))) == (every != "off")


def test_where_there_is_no_room_for_more_processes_the_others_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = 0

    def child(*given: Any) -> Child:
        nonlocal begun
        begun += 1
        if begun > 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return Child(*given)

    monkeypatch.setattr(pools, "Child", child)
    jobs = [job_of(Trial(corpus=CORPUS, nhid=8, epochs=1, rep=rep)) for rep in range(3)]
    assert ends(jobs, slots=40) == ["ok"] * 3
    assert begun == 2
    with pytest.raises(BadInput, match=r"Too many open files; use fewer --jobs"):
        ends(jobs, slots=40)


def test_a_child_without_room_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for name in ("os.pipe", "tempfile.mkstemp", "subprocess.Popen"):
        with monkeypatch.context() as patch:
            patch.setattr(f"bench.backends.child.{name}", refuse)
            with pytest.raises(OSError, match="Too many"):
                Child(0, {}, 1)
        assert len(os.listdir("/proc/self/fd")) == before, name  # noqa: PTH208


def test_what_a_process_writes_for_days_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(0, thread_limits(1), 1)
    try:
        os.write(child._stderr, b"a warning\n" * 9)
        child.trim()
        assert child.said().startswith("a warning")
        monkeypatch.setattr("bench.backends.child._MOST", 80)
        child.trim()
        assert child.said() == ""
    finally:
        child.close()
