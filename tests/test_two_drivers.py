"""Two drivers on one results folder: each trial is trained once, whoever comes and goes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench import store
from tests.grids import assert_same, bench, grid_file, rogue, start
from tests.test_resume import trainers, wait_until
from tests.test_train_verb import TINY as FIELDS

CALL = """if self.calls == 4:
            with open(os.environ["STARTS"], "a") as file:
                file.write(f"{os.getpid()}\\n")
        while self.calls > 4 and os.path.exists(os.environ["STARTS"] + ".hold"):
            __import__("time").sleep(0.01)"""
"""Each layer of each trial says once that it runs; all of them wait while there is a file."""
LOCAL = ("--backend", "local", "--no-report", "--jobs")
LAYERS = 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rogue(tmp_path / "p", "counts", call=CALL)
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    (tmp_path / "starts.hold").touch()
    return tmp_path


def starts(folder: Path) -> list[str]:
    path = folder / "starts"
    return path.read_text().split() if path.exists() else []


def options(folder: Path, results: str = "r") -> tuple[object, ...]:
    return ("--plugins", folder / "p", "--results", folder / results)


def first_line(run: subprocess.Popen[str], words: str) -> str:
    assert run.stdout is not None
    said = []
    for line in run.stdout:
        said.append(line)
        if words in line:
            return line
    pytest.fail("".join(said))


@pytest.fixture
def first(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A driver of three trials, all of which stand still; its grid is small.yaml."""
    grid = grid_file(folder, "{cell: [counts], regularizer: [none, ar, tar]}", "small")
    run = start("grid", grid, *options(folder), *LOCAL, 3)
    wait_until(lambda: len(starts(folder)) == 3 * LAYERS or run.poll() is not None)
    yield run
    run.kill()
    run.communicate()


def finish(run: subprocess.Popen[str]) -> str:
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0 and "Traceback" not in out, out
    return out


def test_each_trial_is_trained_once(folder: Path, first: subprocess.Popen[str]) -> None:
    large = grid_file(folder, "{cell: [counts], regularizer: [none, ar, tar, l1]}", "large")
    others = [
        start("grid", folder / "small.yaml", *options(folder), *LOCAL, 1),
        start("grid", large, *options(folder), *LOCAL, 1),
        start("train", "--cell", "counts", *FIELDS, *options(folder)),
    ]
    for run in others:
        line = first_line(run, "waiting for its end")
        assert f"run by process {first.pid} on {os.uname().nodename} now" in line
        assert str(folder / "r") in line
    # What shares no trial with them runs at once: theirs are all held still.
    apart = grid_file(folder, "{cell: [lstm, gru]}", "apart")
    assert bench("grid", apart, *options(folder), *LOCAL, 0) == 0
    assert bench("train", "--cell", "rnn_tanh", *FIELDS, *options(folder)) == 0
    assert first.poll() is None and len(starts(folder)) == 3 * LAYERS
    (folder / "starts.hold").unlink()
    assert "3 trials: 3 ok" in finish(first)
    ends = [finish(run).splitlines() for run in others]
    assert [lines[-1] for lines in ends] == ["3 trials: 3 ok", "4 trials: 4 ok", "1 trial: 1 ok"]
    assert [len(lines) for lines in ends] == [1, 2, 1], "two found nothing left to run"
    assert len(starts(folder)) == 4 * LAYERS, "each trial once"
    runs, problems = store.load_runs(folder / "r")
    assert problems == [] and len(runs) == 4 + 3
    assert [path.name for path in (folder / "r" / "claims").iterdir()] == ["claims.lock"]
    assert bench("grid", large, *options(folder, "calm"), *LOCAL, 0) == 0
    assert_same(folder / "calm", folder / "r")


def test_the_second_takes_over_from_one_that_is_killed(
    folder: Path, first: subprocess.Popen[str]
) -> None:
    second = start("grid", folder / "small.yaml", *options(folder), *LOCAL, 3)
    first_line(second, "waiting for its end")
    orphans = trainers(first)
    assert len(orphans) == 3
    first.kill()
    first.wait()
    assert not psutil.wait_procs(orphans, timeout=30)[1], "no trial goes on unseen"
    wait_until(lambda: len(starts(folder)) == 6 * LAYERS)
    (folder / "starts.hold").unlink()
    assert "3 trials: 3 ok" in finish(second)
    assert bench("grid", folder / "small.yaml", *options(folder, "calm"), *LOCAL, 0) == 0
    assert_same(folder / "r", folder / "calm")
    assert not list((folder / "r").glob("checkpoints/*"))
    assert [path.name for path in (folder / "r" / "claims").iterdir()] == ["claims.lock"]
