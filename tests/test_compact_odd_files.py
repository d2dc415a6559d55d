"""compact, merge and prune among files that are broken, half there or of a newer version."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import store
from bench.errors import BadInput
from bench.store import folded, rows
from bench.store import read as reading
from bench.store.care import check, count, merge, prune
from bench.store.compact import compact
from bench.store.files import aside_path, compacted_names, own_files, part_path
from bench.store.parts import as_table, write_table
from tests.attempts import IDS, PAIR, TABLES, compacted, files, filled, seen, whole, write
from tests.records import epochs

ALL = dict(zip(IDS, range(5), strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


def add_column(path: Path) -> bytes:
    old = pq.read_table(path)
    pq.write_table(old.append_column("colour", pa.array(["red"] * old.num_rows)), path)
    return path.read_bytes()


@pytest.mark.parametrize("table", TABLES)
def test_a_part_file_of_a_newer_version_is_left_alone(results: Path, table: str) -> None:
    path = part_path(results, table, IDS[2])
    before = add_column(path)
    number, problems = compact(results)
    assert number == 4 and len(problems) == 1
    assert str(path) in problems[0] and "columns of a newer version: colour" in problems[0]
    assert path.read_bytes() == before and own_files(results, "runs") == [IDS[2]]
    assert seen(results) == whole(ALL)


@pytest.mark.parametrize("table", TABLES)
def test_a_compacted_file_of_a_newer_version_is_never_written_anew(
    results: Path, tmp_path: Path, table: str
) -> None:
    compact(results)
    path = compacted(results, table)
    before = add_column(path)
    write(results, IDS[1], 6)
    for act in (
        lambda: compact(results),
        lambda: prune(results, IDS[:1]),
        lambda: merge(tmp_path / "t", [results]),
    ):
        with pytest.raises(BadInput, match="columns of a newer version: colour"):
            act()
    assert path.read_bytes() == before and seen(results) == whole(ALL | {IDS[1]: 6})


def test_merge_copies_part_files_byte_for_byte(results: Path, tmp_path: Path) -> None:
    contents = {table: add_column(part_path(results, table, IDS[3])) for table in TABLES}
    assert merge(tmp_path / "t", [results]) == (5, [])
    for table, content in contents.items():
        assert part_path(tmp_path / "t", table, IDS[3]).read_bytes() == content
    assert seen(tmp_path / "t") == whole(ALL)


@pytest.mark.parametrize("compacted_before", [True, False])
def test_a_run_whose_epochs_are_broken_is_not_folded(results: Path, compacted_before: bool) -> None:
    if compacted_before:
        compact(results)
    write(results, IDS[3], 6)
    path = part_path(results, "epochs", IDS[3])
    path.write_bytes(path.read_bytes()[:-1])
    number, problems = compact(results)
    assert number == (0 if compacted_before else 4)
    assert len(problems) == 1 and str(path) in problems[0]
    assert path.exists() and part_path(results, "runs", IDS[3]).exists()
    assert store.load_runs(results, [IDS[3]])[0].seed.tolist() == [6]
    assert store.load_epochs(results, [IDS[3]])[0].empty, "not those of the run before"
    write(results, IDS[3], 7)
    compact(results)
    assert seen(results) == whole(ALL | {IDS[3]: 7})


def test_nothing_new_to_fold_writes_nothing(results: Path) -> None:
    compact(results)
    part_path(results, "runs", "a" * 12).write_bytes(b"PAR1")
    before = compacted(results)
    assert compact(results)[0] == 0 and compacted(results) == before


def test_lost_replaces_no_final_record_whose_rerun_is_broken(results: Path) -> None:
    compact(results)
    write(results, IDS[1], 6)
    path = part_path(results, "runs", IDS[1])
    path.write_bytes(b"PAR1")
    write(results, IDS[1], 7, "lost")
    assert path.read_bytes() == b"PAR1"
    path.unlink()
    part_path(results, "epochs", IDS[1]).unlink()
    assert seen(results) == whole(ALL)


@pytest.mark.parametrize("table", TABLES)
def test_a_file_that_cannot_be_read_is_a_line_of_its_own(results: Path, table: str) -> None:
    path = part_path(results, table, IDS[2])
    path.unlink()
    path.mkdir()
    number, problems = compact(results)
    assert number == 4 and problems == [f"{path}: cannot be read: Is a directory"]
    assert own_files(results, "runs") == [IDS[2]] and path.is_dir()
    assert any(str(path) in line for line in check(results))


def test_check_and_count_are_not_fooled_by_a_compact_meanwhile(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.store import care

    for act, expected in ((count, 5), (check, [])):
        listed: list[str] = []
        original = own_files

        def overtaken(
            results: Path, table: str, listed: list[str] = listed, original: Any = original
        ) -> list[str]:
            found: list[str] = original(results, table)
            if not listed:
                listed.append(table)
                compact(results)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(care, "own_files", overtaken)
            assert act(results) == expected and listed
        for path in [compacted(results, table) for table in TABLES]:
            path.unlink()
        for n, run_id in enumerate(IDS):
            write(results, run_id, n)


def test_a_run_that_is_found_nowhere_is_looked_for_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system: the part-file is gone, and what took it up is not seen yet."""
    originals = rows.read_own, folded.read_compacted
    late = [1, 1]

    def read_own(*words: Any, **more: Any) -> Any:
        return None if late else originals[0](*words, **more)

    def read_compacted(*words: Any, **more: Any) -> Any:
        found, problems = originals[1](*words, **more)
        return (found.slice(0, 0) if late and late.pop() else found), problems

    compact(results)
    write(results, IDS[2], 2)
    monkeypatch.setattr(reading, "read_own", read_own)
    monkeypatch.setattr(reading, "read_compacted", read_compacted)
    assert list(store.statuses(results, IDS)) == IDS and not late


def test_prune_does_not_mind_a_temporary_file_whose_writer_is_quicker(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = results / "runs" / ".x.123.tmp"
    left.touch()
    stat = Path.stat

    def gone(path: Path, **more: Any) -> os.stat_result:
        if path == left:
            path.unlink(missing_ok=True)
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", gone)
    assert prune(results, []) == 0 and not left.exists()


def test_epochs_of_a_rerun_that_was_killed_are_named_and_pruned(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(results)
    write_table(results, "epochs", IDS[3], as_table("epochs", epochs(IDS[3], 2)))
    path = part_path(results, "epochs", IDS[3])
    compact(results)
    (line,) = check(results)
    assert str(path) in line and "left by a writer that was killed" in line
    assert prune(results, []) == 0 and path.exists(), "its writer may live"
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    assert prune(results, []) == 1 and check(results) == []
    assert seen(results) == whole(ALL) and files(results) == PAIR


@pytest.mark.parametrize("place", [part_path, aside_path])
def test_epochs_that_a_kill_left_behind_their_record_go_with_the_next_compact(
    results: Path, place: Any
) -> None:
    content = part_path(results, "epochs", IDS[3]).read_bytes()
    compact(results)
    place(results, "epochs", IDS[3]).write_bytes(content)
    assert seen(results) == whole(ALL)
    assert compact(results) == (0, []) and files(results) == PAIR and check(results) == []


def test_old_files_stay_readable_under_a_name_without_a_hash(results: Path) -> None:
    compact(results)
    for path in [compacted(results, table) for table in TABLES]:
        path.rename(path.with_name("compacted.parquet"))
    assert seen(results) == whole(ALL)
    write(results, IDS[1], 6)
    compact(results)
    assert seen(results) == whole(ALL | {IDS[1]: 6}) and files(results) == PAIR
    assert len(pd.read_parquet(results / "runs")) == 5


def say_made_from(results: Path, name: str, said: bytes) -> None:
    """Writes a compacted file of runs anew with other metadata and without a seal."""
    path = part_path(results, "runs", name)
    rows = pq.read_table(path)
    pq.write_table(rows.replace_schema_metadata({folded.MADE_FROM: said}), path)


@pytest.mark.parametrize("said", [b"5", b"null", b"[[1]]", b'{"a": 1}', b'"x"', b"[1, null]", b"["])
def test_what_a_file_says_of_its_making_may_be_anything(results: Path, said: bytes) -> None:
    compact(results)
    other = filled(results.parent / "other")
    write(other, "a" * 12, 6)
    compact(other)
    shutil.copytree(other, results, dirs_exist_ok=True)
    for name in compacted_names(results):
        say_made_from(results, name, said)
    assert seen(results) == whole(ALL | {"a" * 12: 6})
    assert compact(results) == (0, []) and seen(results) == whole(ALL | {"a" * 12: 6})


@pytest.mark.parametrize("length", [1, 2, 3])
def test_files_that_were_made_from_each_other_hide_nothing(results: Path, length: int) -> None:
    compact(results)
    for number in range(max(1, length - 1)):
        other = filled(results.parent / f"other{number}")
        write(other, "a" * 12, 6)
        compact(other)
        shutil.copytree(other, results, dirs_exist_ok=True)
    names = compacted_names(results)
    for place, name in enumerate(names):
        of = name if length == 1 else names[(place + 1) % length]
        say_made_from(results, name, json.dumps([of]).encode())
    assert len(names) == max(2, length) and seen(results) == whole(ALL | {"a" * 12: 6})
    assert compact(results) == (0, []) and files(results) == PAIR
    assert seen(results) == whole(ALL | {"a" * 12: 6})
