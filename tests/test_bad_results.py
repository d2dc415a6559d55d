"""A results folder that cannot be written, is full, or holds broken records: nothing is lost."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import driver, store
from bench.gridlog import log_file
from bench.storage import atomic
from tests.conftest import Verb
from tests.grids import assert_same, grid_file, rogue
from tests.test_bad_input import refused

LOCAL = ("--backend", "local", "--jobs", 0, "--no-report")
AXES = "{cell: [lstm, gru, rnn_tanh]}"
SIX = AXES + "\nreps: 2"
WAIT = """
import time


def wait_for(path: str) -> None:
    for _ in range(3000):
        if os.path.exists(path):
            return
        time.sleep(0.01)
    raise TimeoutError(path)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of an undisturbed run."""
    from tests.grids import bench

    folder = tmp_path_factory.mktemp("whole")
    assert bench("grid", grid_file(folder, SIX), *LOCAL, "--results", folder) == 0
    return folder


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


def mounted(folder: Path, options: str) -> bool:
    """Mounts a small file system, where that is permitted."""
    folder.mkdir(exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(argv, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    if not mounted(folder, "size=64k"):
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("where", ["file", "file/results", "x" * 300, "/proc/results", "runs-file"])
def test_a_results_folder_that_cannot_be_made(verb: Verb, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "runs-file").mkdir()
    (tmp_path / "runs-file" / "runs").write_text("mine")
    grid = grid_file(tmp_path, AXES)
    before = sorted(tmp_path.rglob("*"))
    outcome = verb("grid", grid, *LOCAL, "--results", where)
    refused(outcome, where[:40])
    assert "cannot be written" in outcome.err or "File name too long" in outcome.err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_results_folder(verb: Verb, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    outcome = verb("grid", grid_file(tmp_path, AXES), *LOCAL, "--results", disk / "results")
    refused(outcome, f"--results {disk}/results: cannot be written: Read-only file system; choose")
    assert not list(disk.iterdir())


def test_a_full_disk_keeps_what_is_finished_and_the_same_command_goes_on(
    verb: Verb, disk: Path, tmp_path: Path, whole: Path
) -> None:
    argv = ("grid", grid_file(tmp_path, SIX), *LOCAL, "--results", disk)
    outcome = verb(*argv)
    refused(outcome, "cannot be written: No space left on device; make room and run the same")
    runs, problems = store.load_runs(disk)
    assert 1 <= len(runs) <= 5, "the disk is too small or too large for this test"
    assert problems == []
    assert not list(disk.rglob("*.tmp"))

    refused(verb(*argv), "No space left on device")
    assert len(store.load_runs(disk)[0]) == len(runs), "nothing lost by trying"

    subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
    outcome = verb(*argv)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"6 trials, {len(runs)} recorded, {6 - len(runs)} to run" in outcome.out
    assert_same(whole, disk)


@pytest.mark.parametrize("record", [1, 2, 3])
def test_a_disk_that_fills_up_at_any_record(
    verb: Verb, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, record: int
) -> None:
    staged, count = atomic.staged, 0

    def full(path: Path, content: bytes) -> Any:
        nonlocal count
        count += path.parent.name == "runs"
        if count == record:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return staged(path, content)

    monkeypatch.setattr(store.parts, "staged", full)
    argv = ("grid", grid_file(tmp_path, SIX), *LOCAL)
    refused(verb(*argv), "cannot be written: No space left on device; make room and run the same")
    results = tmp_path / "results"
    assert len(store.load_runs(results)[0]) == record - 1
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert "6 trials: 6 ok" in verb(*argv).out
    assert_same(whole, results)


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_full_disk_is_no_fault_of_the_next_trial(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """The first record fails while the next trial trains, and is told at the end of its epoch."""
    begun, failed = tmp_path / "begun", tmp_path / "failed"
    call = f"open({str(begun)!r}, 'w').close()\n        wait_for({str(failed)!r})"
    rogue(tmp_path, "second", top=WAIT, call=call)

    def full(results: Path, record: dict[str, Any], *_: Any) -> None:
        if failed.exists():
            written.append(record)
            return
        wait_for(begun)
        failed.touch()
        raise store.StoreError(f"--results {results}: no room")

    written: list[dict[str, Any]] = []
    monkeypatch.setattr(store, "write_run", full)
    grid = grid_file(tmp_path, "{cell: [lstm, second]}")
    argv = ("--backend", "local", "--jobs", jobs, "--plugins", tmp_path)
    outcome = verb("grid", grid, *argv)
    refused(outcome, "no room")
    assert written == [], "no record of what was no fault of the trial's"


def test_a_log_that_cannot_be_written(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "results" / "grids" / "tiny.log").mkdir(parents=True)
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *LOCAL[:-1])
    refused(outcome, str(Path("results") / "grids/tiny.log"))
    assert store.load_runs(tmp_path / "results")[0].empty


def test_a_report_that_cannot_be_written_is_no_failure(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reports").write_text("in the way")
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *LOCAL[:-1])
    assert (outcome.code, outcome.err) == (0, ""), "the trial is done and recorded"
    last = outcome.out.splitlines()[-1]
    assert last.startswith("report not drawn: ") and last.endswith("bench.report tiny")
    assert len(store.load_runs(tmp_path / "results")[0]) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_fills_the_disk_makes_no_noise(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "log_file", lambda _: log_file(Path("/dev/full")))
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *LOCAL)
    assert (outcome.code, outcome.err) == (0, ""), "the records hold all that the log does"


# --- broken records -------------------------------------------------------------------------------


def test_broken_records_are_named_count_as_missing_and_are_run_again(
    verb: Verb, tmp_path: Path, whole: Path
) -> None:
    argv = ("grid", grid_file(tmp_path, SIX), *LOCAL)
    assert verb(*argv).code == 0
    runs = sorted((tmp_path / "results" / "runs").glob("*.parquet"))
    content = runs[0].read_bytes()
    runs[0].write_bytes(content[: len(content) // 2])
    runs[1].write_bytes(b"")
    pd.DataFrame({"x": [1, 2]}).to_parquet(runs[2])
    runs[3].write_bytes(content)  # another run's record
    runs[4].unlink()
    runs[4].mkdir()  # not even a file
    foreign = tmp_path / "results" / "runs" / "notes.parquet"
    foreign.write_text("not ours")

    outcome = verb(*argv, "--dry-run")
    assert outcome.code == 0
    assert "6 trials, 5 to run" in outcome.out
    for path in runs[:5]:
        assert f"warning: {path.relative_to(tmp_path)}: " in outcome.out

    runs[4].rmdir()
    outcome = verb(*argv)
    assert (outcome.code, outcome.err) == (0, "")
    assert "6 trials, 1 recorded, 5 to run" in outcome.out
    for path in runs[:4]:
        assert f"{path.relative_to(tmp_path)}: no record of its trial, which is run again" in (
            outcome.out
        )
    assert foreign.read_text() == "not ours", "what is not ours is left alone"
    foreign.unlink()
    assert_same(whole, tmp_path / "results")
    assert "6 recorded, 0 to run" in verb(*argv).out


def test_a_flipped_bit_is_named_and_its_trial_is_run_again(
    verb: Verb, tmp_path: Path, whole: Path
) -> None:
    argv = ("grid", grid_file(tmp_path, SIX), *LOCAL)
    assert verb(*argv).code == 0
    path = sorted((tmp_path / "results" / "runs").glob("*.parquet"))[0]
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<d", pd.read_parquet(path).valid_nll[0]))] ^= 1
    path.write_bytes(content)  # Parquet itself reads another nll from it
    line = f"{path.relative_to(tmp_path)}: does not match its checksum"
    outcome = verb(*argv, "--dry-run")
    assert "6 trials, 1 to run" in outcome.out and f"warning: {line}" in outcome.out
    assert line in verb("store", "check").out
    assert "6 trials, 5 recorded, 1 to run" in verb(*argv).out
    assert_same(whole, tmp_path / "results")


def test_the_report_and_the_store_live_with_broken_records(verb: Verb, tmp_path: Path) -> None:
    argv = ("grid", grid_file(tmp_path, AXES), *LOCAL)
    assert verb(*argv).code == 0
    runs = sorted((tmp_path / "results" / "runs").glob("*.parquet"))
    epochs = sorted((tmp_path / "results" / "epochs").glob("*.parquet"))
    runs[0].write_bytes(runs[0].read_bytes()[:-9])
    epochs[1].write_bytes(b"PAR1")
    outcome = verb("report", "tiny")
    assert (outcome.code, outcome.err) == (0, "")
    assert runs[0].name in (tmp_path / "results" / "reports" / "tiny.html").read_text()
    outcome = verb("store", "check")
    assert outcome.code == 1
    assert [x.split(":")[0] for x in outcome.out.splitlines()[:-1]] == [
        f"results/runs/{runs[0].name}",
        f"results/epochs/{epochs[1].name}",
    ]
    for words in (["orphans"], ["prune", "--yes"]):
        assert verb("store", *words).code == 0
