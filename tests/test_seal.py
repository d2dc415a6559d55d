"""No flipped bit and no cut passes: a file is named as damaged, or holds what it held."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import store
from bench.errors import BadInput
from bench.store import compact as module
from bench.store import seal
from bench.store.care import check
from bench.store.compact import compact
from bench.store.files import part_path
from bench.store.rows import parse_part
from tests.attempts import IDS, TABLES, compacted, filled, seen, whole, write

ALL = dict(zip(IDS, range(5), strict=True))
FLIPS = 500
LOAD = {"runs": store.load_runs, "epochs": store.load_epochs}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return one.astype(str).equals(other.astype(str))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fold", [False, True])
def test_a_flipped_bit_is_named_or_changes_nothing(
    results: Path, table: str, fold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS_PER_GROUP", 2)
    if fold:
        compact(results)
    path = compacted(results, table) if fold else part_path(results, table, IDS[3])
    some = [IDS[1], IDS[3]]
    content, before = path.read_bytes(), LOAD[table](results, some)[0]
    others = before[before.run_id != IDS[3]].iloc[: 0 if fold else None].reset_index(drop=True)
    draws = random.Random(f"{table} {fold}")
    harmless = 0
    for bit in draws.sample(range(len(content) * 8), FLIPS):
        path.write_bytes(flipped(content, bit))
        after, problems = LOAD[table](results, some)
        if not problems:
            harmless += 1
            assert same(after, before), bit
            continue
        (line,) = problems
        assert line.startswith(f"{path}: ") and "\n" not in line
        assert same(after, others), bit
        if table == "runs" and fold:
            with pytest.raises(BadInput, match=r"does not match|not a whole"):
                store.statuses(results, some)
        elif table == "runs":
            assert store.statuses(results, some) == {IDS[1]: "ok"}
    assert harmless <= FLIPS // 50, "bits of the seal's own name"
    path.write_bytes(flipped(content, 8 * 300))
    assert f"{path}: {seal.DAMAGED}" in check(results)


@pytest.mark.parametrize("table", TABLES)
def test_a_cut_at_any_length_is_named(results: Path, table: str) -> None:
    part = part_path(results, table, IDS[3])
    content = part.read_bytes()
    for length in range(0, len(content), 1 if table == "epochs" else 17):
        rows, problem = parse_part(content[:length], part, table)
        assert rows is None and problem and problem.startswith(f"{part}: ")
    compact(results)
    path = compacted(results, table)
    content = path.read_bytes()
    few = [0, 1, 3, 4, 7, 8, 11, 12, len(content) // 2, *(len(content) - n for n in (9, 8, 4, 1))]
    for length in (*few, *range(13, len(content), 211)):
        path.write_bytes(content[:length])
        rows, problems = LOAD[table](results)
        assert rows.empty and len(problems) == 1 and problems[0].startswith(f"{path}: ")


def test_a_seal_is_over_every_byte_and_once_in_a_file(results: Path) -> None:
    write(results, IDS[0], 0)
    parts = [part_path(results, table, IDS[0]) for table in TABLES]
    kept = [path.read_bytes() for path in parts]
    compact(results)
    for content in (*kept, *(compacted(results, table).read_bytes() for table in TABLES)):
        assert content.count(b"bench.sha256") == 1 and seal.is_whole(content)
        place = content.index(b"bench.sha256")
        for bit in (0, 8 * len(content) - 1, 8 * place - 20, 8 * place + 8 * 40):
            assert not seal.is_whole(flipped(content, bit))


def test_other_tools_see_nothing_of_a_seal(results: Path) -> None:
    schema = pq.read_table(part_path(results, "runs", IDS[0])).schema
    assert "bench.sha256" not in str(schema.metadata)
    compact(results)
    assert len(pd.read_parquet(results / "runs")) == len(IDS)
    rows = duckdb.sql(f"select count(*) from '{results}/runs/*.parquet'")
    assert rows is not None and rows.fetchall() == [(len(IDS),)]


def test_what_another_tool_wrote_anew_is_read_without_a_seal(results: Path) -> None:
    for table in TABLES:
        path = part_path(results, table, IDS[3])
        pd.read_parquet(path).astype({"epoch": "int32"} if table == "epochs" else {}).to_parquet(
            path
        )
        assert b"bench.sha256" not in path.read_bytes()
    assert seen(results) == whole(ALL)
    compact(results)
    for table in TABLES:
        path = compacted(results, table)
        pq.write_table(pq.read_table(path), path)
        assert b"bench.sha256" not in path.read_bytes()
    assert seen(results) == whole(ALL) and check(results) == []


def test_a_large_file_is_hashed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.parquet"
    sink = pa.BufferOutputStream()
    table = pa.table({"x": list(range(400_000))})
    with pq.ParquetWriter(sink, table.schema, compression="none") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(seal.EMPTY)
    content = seal.sealed(sink.getvalue().to_pybytes())
    assert len(content) > 2 * seal._BLOCK
    path.write_bytes(content)
    hashed: list[str] = []
    of_file = seal._of_file

    def counted(file: BinaryIO) -> Any:
        hashed.append(file.name)
        return of_file(file)

    monkeypatch.setattr(seal, "_of_file", counted)
    monkeypatch.setattr(seal, "_whole", set())
    assert [seal.is_whole_file(path) for _ in range(2)] == [True, True]
    assert len(hashed) == 2, "it may change within the tick of the clock that it was written in"
    monkeypatch.setattr(seal, "_SETTLED_SECONDS", -1.0)
    assert [seal.is_whole_file(path) for _ in range(3)] == [True] * 3 and len(hashed) == 3
    times = path.stat()
    path.with_name("new").write_bytes(flipped(content, 8 * 1_500_000))
    path.with_name("new").replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not seal.is_whole_file(path), "its size and its time are what they were"


def test_a_file_without_room_for_a_seal_is_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room for a seal"):
        seal.sealed(b"PAR1 and more")
    with (tmp_path / "f").open("w+b") as file, pytest.raises(ValueError, match="no room"):
        seal.seal(file)


def test_compact_leaves_a_damaged_part_file_and_takes_no_value_from_it(results: Path) -> None:
    path = part_path(results, "runs", IDS[2])
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * 200))
    number, problems = compact(results)
    assert number == 4 and problems == [f"{path}: {seal.DAMAGED}"]
    path.write_bytes(content)
    assert seen(results) == whole(ALL)


def test_a_pair_that_arrives_damaged_is_not_trusted(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.storage import atomic
    from bench.store import pairs

    publish = atomic.publish

    def rots(temporary: Path, path: Path) -> None:
        temporary.write_bytes(flipped(temporary.read_bytes(), 8 * 100))
        publish(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(pairs, "publish", rots)
        with pytest.raises(store.StoreError, match="did not arrive whole"):
            compact(results)
    assert seen(results) == whole(ALL), "no part-file was taken away, and no pair stands in the way"
    assert compact(results) == (5, []) and seen(results) == whole(ALL)
