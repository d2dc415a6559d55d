"""compact killed, or overtaken by a rerun, at any step: readers see each run once, in one piece."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from bench import store
from bench.store.care import check
from bench.store.compact import compact
from bench.store.files import aside_path, own_files, part_path
from bench.store.parts import as_table, write_table
from tests.attempts import (
    IDS,
    PAIR,
    TABLES,
    Killed,
    at_step,
    die,
    files,
    filled,
    seen,
    whole,
    write,
)
from tests.records import epochs, record


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


def number_of_steps(results: Path, monkeypatch: pytest.MonkeyPatch, copy: Path) -> int:
    shutil.copytree(results, copy)
    with at_step(monkeypatch, 0, None) as steps:
        compact(copy)
    return len(steps)


@pytest.fixture
def mixed(results: Path) -> Path:
    """Compacted runs, a rerun, a new run."""
    compact(results)
    write(results, IDS[1], 6)
    write(results, "a" * 12, 3)
    return results


BEFORE = dict(zip(IDS, (0, 6, 2, 3, 4), strict=True)) | {"a" * 12: 3}


def test_a_kill_at_any_step_changes_nothing_that_is_seen(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"kill {number}"
        shutil.copytree(mixed, folder)

        with pytest.raises(Killed), at_step(monkeypatch, number, die):
            compact(folder)
        assert seen(folder) == whole(BEFORE), number
        assert compact(folder)[1] == []
        assert seen(folder) == whole(BEFORE), number
        assert own_files(folder, "runs") == own_files(folder, "epochs") == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_rerun_at_any_step_is_not_lost(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    after = BEFORE | {IDS[1]: 7}
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"rerun {number}"
        shutil.copytree(mixed, folder)

        def rerun(folder: Path = folder) -> None:
            write(folder, IDS[1], 7)
            assert seen(folder) == whole(after)
            if killed:
                raise Killed

        with contextlib.suppress(Killed), at_step(monkeypatch, number, rerun):
            compact(folder)
        assert seen(folder) == whole(after), number
        compact(folder)
        assert seen(folder) == whole(after), number
        assert own_files(folder, "runs") == own_files(folder, "epochs") == []


def test_the_halves_of_a_rerun_around_any_step_stay_together(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epochs come before a step, its record after the last."""
    rows = as_table("epochs", [row | {"step": 7} for row in epochs(IDS[1], 3)])
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"half {number}"
        shutil.copytree(mixed, folder)
        with at_step(
            monkeypatch,
            number,
            lambda f=folder: write_table(f, "epochs", IDS[1], rows),
        ):
            compact(folder)
        assert store.load_runs(folder)[0].seed.tolist() == [*BEFORE.values()]
        write_table(folder, "runs", IDS[1], as_table("runs", [record(IDS[1], seed=7)]))
        assert seen(folder) == whole(BEFORE | {IDS[1]: 7}), number
        compact(folder)
        assert seen(folder) == whole(BEFORE | {IDS[1]: 7}), number


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(store.StoreError, match="cannot be rewritten: No space left"):
            compact(mixed)
    assert seen(mixed) == whole(BEFORE)
    assert not [name for name in files(mixed) if name.endswith(".tmp")]


def test_what_was_left_aside_is_read_and_a_newer_part_file_replaces_it(mixed: Path) -> None:
    for table in TABLES:
        part_path(mixed, table, IDS[1]).rename(aside_path(mixed, table, IDS[1]))
    assert seen(mixed) == whole(BEFORE) and check(mixed) == []
    write(mixed, IDS[1], 9)
    assert seen(mixed) == whole(BEFORE | {IDS[1]: 9})
    compact(mixed)
    assert seen(mixed) == whole(BEFORE | {IDS[1]: 9}) and files(mixed) == PAIR
