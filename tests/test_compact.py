"""compact: one file per table, read as the part-files were, in any mix with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from bench import store
from bench.errors import BadInput
from bench.store import compact as module
from bench.store import read as reading
from bench.store.care import check, merge, prune
from bench.store.compact import compact
from bench.store.files import own_files, part_path
from tests.attempts import IDS, PAIR, TABLES, compacted, files, filled, seen, whole, write
from tests.grids import bench


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


def test_a_folder_becomes_one_file_per_table_and_reads_the_same(results: Path) -> None:
    before = [load(results)[0] for load in (store.load_runs, store.load_epochs)]
    assert compact(results) == (5, [])
    assert files(results) == PAIR
    for old, load in zip(before, (store.load_runs, store.load_epochs), strict=True):
        pd.testing.assert_frame_equal(load(results)[0], old)
        some, _ = load(results, IDS[1:3])
        pd.testing.assert_frame_equal(some, old[old.run_id.isin(IDS[1:3])].reset_index(drop=True))
    assert store.load_runs(results, ["f" * 12])[0].empty
    assert store.statuses(results, [IDS[3], "f" * 12, IDS[0]]) == {IDS[3]: "ok", IDS[0]: "ok"}
    assert check(results) == [] and compact(results) == (0, [])


def test_other_tools_read_a_compacted_folder(results: Path) -> None:
    compact(results)
    assert sorted(pd.read_parquet(results / "runs").run_id) == IDS
    write(results, "a" * 12, 1)
    rows = duckdb.sql(f"select count(distinct run_id), count(*) from '{results}/runs/*.parquet'")
    assert rows is not None and rows.fetchall() == [(6, 6)]
    assert len(pd.read_parquet(results / "epochs")) == sum(n % 4 for n in range(5)) + 1


def test_a_rerun_wins_over_what_was_compacted_until_it_is_folded_too(results: Path) -> None:
    compact(results)
    write(results, IDS[3], 8)  # without epochs: those of the run before are not its own
    expected = whole(dict(zip(IDS, (0, 1, 2, 8, 4), strict=True)))
    assert seen(results) == expected
    assert compact(results) == (1, [])
    assert seen(results) == expected and files(results) == PAIR


def test_lost_replaces_no_final_record_that_was_compacted(results: Path) -> None:
    write(results, IDS[1], 9, "lost")
    compact(results)
    write(results, IDS[2], 9, "lost")
    assert own_files(results, "runs") == []
    write(results, "a" * 12, 1, "lost")
    compact(results)
    write(results, "a" * 12, 2)
    assert seen(results) == whole({**dict(zip(IDS, range(5), strict=True)), "a" * 12: 2})


def test_many_row_groups_are_read_by_the_ids_that_are_asked_for(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS_PER_GROUP", 2)
    expected = seen(results)
    compact(results)
    assert seen(results) == expected
    asked: list[list[int]] = []
    read = pq.ParquetFile.read_row_groups

    def counted(self: Any, groups: list[int], *rest: Any, **more: Any) -> Any:
        asked.append(groups)
        return read(self, groups, *rest, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    assert store.load_runs(results, [IDS[0], IDS[4]])[0].run_id.tolist() == [IDS[0], IDS[4]]
    assert asked == [[0, 2]]


def test_a_broken_part_file_stays_and_is_named(results: Path, capsys: Any) -> None:
    compact(results)
    write(results, IDS[2], 7)
    path = part_path(results, "runs", IDS[2])
    path.write_bytes(path.read_bytes()[:-1])
    write(results, IDS[3], 7)
    folded, problems = compact(results)
    assert folded == 1 and len(problems) == 1 and str(path) in problems[0]
    assert path.is_file() and part_path(results, "epochs", IDS[2]).is_file()
    assert IDS[2] not in store.statuses(results, IDS), "it counts as not yet run"
    write(results, IDS[2], 11)
    compact(results)
    assert seen(results) == whole(dict(zip(IDS, (0, 1, 11, 7, 4), strict=True)))


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_compacted_file_is_named_and_never_rewritten(results: Path, table: str) -> None:
    compact(results)
    write(results, IDS[0], 5)
    path = compacted(results, table)
    path.write_bytes(path.read_bytes()[:-10])
    before = path.read_bytes()
    with pytest.raises(BadInput, match=f"{table}/{path.name}: does not match its checksum"):
        compact(results)
    assert path.read_bytes() == before and own_files(results, "runs") == [IDS[0]]
    assert sum(str(path) in line for line in check(results)) >= 1
    load = store.load_runs if table == "runs" else store.load_epochs
    rows, problems = load(results)
    assert set(rows.run_id) == {IDS[0]} and len(problems) == 1
    if table == "runs":  # else all that it holds would be trained again
        with pytest.raises(BadInput, match="restore it, or move it away to run its trials again"):
            store.statuses(results, IDS)


def test_a_file_that_is_lost_for_a_moment_is_opened_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(results)
    whole_file = pq.ParquetFile
    failed: list[int] = []

    def stale(*words: Any, **more: Any) -> Any:
        if not failed:
            failed.append(1)
            raise OSError(116, "Stale file handle")
        return whole_file(*words, **more)

    monkeypatch.setattr(pq, "ParquetFile", stale)
    assert list(store.statuses(results, IDS)) == IDS and failed


def test_two_at_once_are_refused(results: Path) -> None:
    lock = FileLock(results / ".compact.lock")
    with lock:
        for act in (lambda: compact(results), lambda: prune(results, IDS[:1])):
            with pytest.raises(BadInput, match="another compact or prune is at work"):
                act()
    assert seen(results) == whole(dict(zip(IDS, range(5), strict=True)))
    assert compact(results) == (5, [])


def test_the_verb_says_what_it_did(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("store", "compact", "--results", results) == 0
    assert capsys.readouterr().out == "5 records folded, 0 problems\n"
    assert bench("store", "check", "--results", results) == 0
    assert capsys.readouterr().out == "5 records, 0 problems\n"
    assert bench("store", "compact", "--results", results / "no") == 2


def test_merge_and_prune_work_on_any_mix(results: Path, tmp_path: Path) -> None:
    compact(results)
    write(results, IDS[4], 6)
    other = tmp_path / "other"
    store.prepare(other)
    write(other, IDS[0], 3)
    write(other, IDS[1], 3, "lost")
    compact(other)
    write(other, IDS[2], 3, "lost")
    count, remarks = merge(other, [results])
    assert count == 4 and len(remarks) == 1 and IDS[0] in remarks[0] and "seed" in remarks[0]
    assert seen(other) == whole(dict(zip(IDS, (3, 1, 2, 3, 6), strict=True)))
    write(results, IDS[1], 9)
    assert prune(results, [IDS[1], IDS[2], IDS[4]]) == 4  # two part-files of each rerun
    assert seen(results) == whole({IDS[0]: 0, IDS[3]: 3})
    assert check(results) == []


@pytest.mark.parametrize("step", ["_with_own_file", "read_own", "read_compacted"])
@pytest.mark.parametrize("after", [False, True])
def test_a_reader_that_is_overtaken_at_any_step_sees_each_run_once(
    results: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    original = getattr(reading, step)
    folded = 0

    def overtaken(*words: Any, **more: Any) -> Any:
        nonlocal folded
        found = original(*words, **more) if after else None
        if not folded:
            folded = -1  # compact reads, too
            folded, _ = compact(results)
        return found if after else original(*words, **more)

    expected = store.load_runs(results)[0], store.load_epochs(results)[0]
    for load, whole_table in zip((store.load_runs, store.load_epochs), expected, strict=True):
        folded = 0
        with monkeypatch.context() as patch:
            patch.setattr(reading, step, overtaken)
            rows, problems = load(results)
        assert problems == [] and folded == len(IDS)
        pd.testing.assert_frame_equal(rows, whole_table)
        for path in [compacted(results, table) for table in TABLES]:
            path.unlink()
        for n, run_id in enumerate(IDS):
            write(results, run_id, n)
