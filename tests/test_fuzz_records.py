"""Parquet of any schema, damaged files and odd grid files where our own are expected."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.store.rows import TABLES, arrow_type
from benchmarks.drills.fuzz_records import TARGETS, sound
from benchmarks.drills.fuzz_watch import Target
from tests.fuzzing import fed, often

Feed = Callable[[Target, bytes], None]


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    sound()  # made before the watch: it opens files of its own
    with fed(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


TYPES = st.sampled_from(
    [pa.string(), pa.large_string(), pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(),
     pa.bool_(), pa.binary(), pa.timestamp("ns"), pa.date32(), pa.null(), pa.decimal128(20, 3),
     pa.list_(pa.int32()), pa.struct([("a", pa.string())]),
     pa.dictionary(pa.int32(), pa.string())]
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.text(max_size=8), st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(),
    st.binary(max_size=8),
    st.sampled_from(["ok", "lost", "tree", "../../above", "a\n<script>", "compacted-1", "x" * 300]),
)  # fmt: skip


def array(kind: pa.DataType, value: Any, rows: int) -> pa.Array:
    """Returns a column of this type, of nulls where the value does not go into it."""
    with contextlib.suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([value] * rows, kind)
    return pa.nulls(rows, kind)


@st.composite
def parquet(draw: st.DrawFn) -> bytes:
    """Returns a letter for the place and a file: our columns but for some, in any order."""
    letter = draw(st.sampled_from("reRE"))
    rows = draw(st.integers(0, 3))
    ids = sound()[1]
    columns: dict[str, pa.Array] = {}
    for column in TABLES["runs" if letter in "rR" else "epochs"]:
        kind = arrow_type(column.type)
        fills = {"schema": 1, "run_id": ids[0 if letter.islower() else -1], "status": "ok"}
        columns[column.name] = array(kind, fills.get(column.name), rows)
    names = st.one_of(st.sampled_from([*columns, "run_id", "status"]), st.text(max_size=6))
    for name, kind, value in draw(st.lists(st.tuples(names, TYPES, VALUES), max_size=4)):
        columns[name] = array(kind, value, rows)
    for name in draw(st.lists(st.sampled_from(list(columns)), max_size=1)):
        columns.pop(name)
    order = draw(st.booleans())
    table = pa.table(dict(sorted(columns.items())) if order else columns)
    file = io.BytesIO()
    with contextlib.suppress(pa.ArrowException):  # not every name can be written
        pq.write_table(table, file, compression=draw(st.sampled_from(["none", "zstd"])))
    return letter.encode() + b"w" + file.getvalue()


DAMAGE = st.tuples(
    st.sampled_from(["r", "e", "R", "E"]),
    st.sampled_from(["e", "t", "z", "se", "st", "sz", "p"]),
    st.binary(max_size=16),
).map(lambda d: d[0].encode() + d[1].encode() + d[2])

FOUND = [
    b"Rp\x01\x00\x0b../../above",  # a run_id that leads out of the folder
    b"Rp\x01\x04\x00",  # rows of no run
    b"Ep\x00\x05\x00",
    b"Rp\x00\x0e\x00",  # a run twice
    b"rp\x01\x00\x0ca/b\n<script>",  # a run_id of two lines
    b"Rp\x05\x04\x00",  # no cell
    b"Rp\x0b\x04\x00",  # no origin
    b"ep\x00\x10\x01\x80",  # a run_id that is no text
    b"Ep\x00\x10\x01\x80",
    b"Rp\x05\x10\x01\x80",  # a cell that is no text
    b"rp\x05\x10\x01\x80",
]


@often(40)
@given(st.one_of(parquet(), DAMAGE))
def test_any_file_is_read_or_named(feed: Feed, data: bytes) -> None:
    feed(TARGETS["parquet"], data)


@often(12)
@given(st.sampled_from(["care", "merge"]), st.one_of(parquet(), DAMAGE))
def test_any_file_is_looked_after_within_the_folder(feed: Feed, what: str, data: bytes) -> None:
    feed(TARGETS[what], data)


@pytest.mark.parametrize("target", ["parquet", "care", "merge"])
@pytest.mark.parametrize("data", FOUND)
def test_what_the_drill_found_stays_mended(feed: Feed, target: str, data: bytes) -> None:
    feed(TARGETS[target], data)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
              st.sampled_from(["lstm", "none", "ar:alpha=2", "<script>alert(1)</script>"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["cell", "rep", "corpus", "nhid", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip
TRIAL = st.fixed_dictionaries(
    {},
    optional={name: JSON for name in ("cell", "regularizer", "corpus", "rep", "nhid", "lr")},
)
ENTRY = st.one_of(JSON, st.fixed_dictionaries({}, optional={"run_id": JSON, "trial": TRIAL}))
KEYS = {
    "name": JSON, "command": JSON, "created_utc": JSON, "merged": JSON, "common": TRIAL,
    "skipped": JSON, "wanted": st.one_of(JSON, st.lists(ENTRY, max_size=3)),
}  # fmt: skip


@often(30)
@given(st.one_of(JSON, st.fixed_dictionaries({}, optional=KEYS)).map(json.dumps))
@example("[" * 100_000)
@example('{"name": "x", "command": "c", "skipped": [], "wanted": [{"run_id": "a", "trial": 1}]}')
@example('{"wanted": {}, "name": [], "command": null, "skipped": {"a": 1}, "merged": "x"}')
def test_any_grid_file_of_results_is_drawn_or_one_line(feed: Feed, text: str) -> None:
    feed(TARGETS["grid-json"], b"w" + text.encode())
