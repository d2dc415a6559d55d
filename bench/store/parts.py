"""Writing: one Parquet part-file per run and table, whole or not there; a rerun replaces it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BadInput
from bench.storage.atomic import staged, write_atomically
from bench.store.files import part_path, refuse_links
from bench.store.folded import read_compacted
from bench.store.read import statuses
from bench.store.rows import arrow_schema
from bench.store.schema import FINAL, SCHEMA_VERSION, STATUSES
from bench.store.seal import EMPTY, sealed

if TYPE_CHECKING:
    import pyarrow as pa


class StoreError(BadInput):
    """The results folder cannot be written: read-only, full, or not there."""


def prepare(results: Path) -> None:
    """Makes the results folder and shows that it can be written; raises BadInput, StoreError."""
    refuse_links(results)
    try:
        for folder in ("runs", "epochs", "grids"):
            (results / folder).mkdir(parents=True, exist_ok=True)
        write_atomically(results / "grids" / ".probe", b"x" * 4096)
        (results / "grids" / ".probe").unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"--results {results}: cannot be written: {error.strerror or error}; "
            "choose another folder or make room"
        ) from None


def write_run(
    results: Path,
    record: dict[str, Any],
    epochs: Sequence[dict[str, Any]] = (),
    weights: bytes | None = None,
) -> None:
    """Writes a run's weights, its epochs and last its record, which makes the run count.

    `lost` never replaces a final record. Raises StoreError when the folder is full or read-only.
    """
    run_id = record["run_id"]
    status = record["status"]
    if status not in STATUSES:
        raise ValueError(f"no such status: {status}")
    if status not in FINAL and _has_final(results, run_id):
        return
    rows = {"epochs": epochs, "runs": [{"schema": SCHEMA_VERSION} | record]}
    files = {
        part_path(results, table, run_id): _as_file(as_table(table, some))
        for table, some in rows.items()
    }
    own_weights = results / "weights" / f"{run_id}.safetensors"
    if weights is not None:
        files = {own_weights: weights} | files
    try:
        with contextlib.ExitStack() as stack:
            names = []
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                names.append(stack.enter_context(staged(path, content)))
            # All is on the disk: from here on, one that is full cannot mix this run with an older.
            if weights is None and status in FINAL:
                own_weights.unlink(missing_ok=True)  # they are of a run that this one replaces
            for name_it in names:
                name_it()
    except OSError as error:
        raise StoreError(
            f"--results {results}: record {run_id} cannot be written: {error.strerror or error}; "
            "make room and run the same command again"
        ) from None


def _has_final(results: Path, run_id: str) -> bool:
    # Of a rerun whose part-file is broken, an older record may lie in a compacted file.
    older, _ = read_compacted(results, "runs", [run_id], ("run_id", "status"))
    known = {statuses(results, [run_id]).get(run_id), *older["status"].to_pylist()}
    return not known.isdisjoint(FINAL)


def as_table(table: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Returns rows in the types of `table`, null where they lack a column. ValueError."""
    import pyarrow as pa

    schema = arrow_schema(table)
    for row in rows:
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"no column of {table}: {sorted(unknown)}")
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def write_table(results: Path, table: str, run_id: str, part: pa.Table) -> None:
    """Writes a run's part-file of one table from its rows. OSError."""
    path = part_path(results, table, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _as_file(part))


def _as_file(part: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, part.schema) as writer:
        writer.write_table(part)
        writer.add_key_value_metadata(EMPTY)
    return sealed(sink.getvalue().to_pybytes())
