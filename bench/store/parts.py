"""Writing: one Parquet part-file per run and table, whole or not there; a rerun replaces it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BadInput
from bench.store.files import part_path
from bench.store.folded import read_compacted
from bench.store.read import statuses
from bench.store.rows import arrow_schema
from bench.store.schema import FINAL, SCHEMA_VERSION, STATUSES

if TYPE_CHECKING:
    import pyarrow as pa


class StoreError(BadInput):
    """The results folder cannot be written: read-only, full, or not there."""


def prepare(results: Path) -> None:
    """Makes the results folder and shows that it can be written; raises StoreError."""
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


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, meets the old one or the new one. OSError."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    try:
        if weights is not None:
            (results / "weights").mkdir(parents=True, exist_ok=True)
            write_atomically(results / "weights" / f"{run_id}.safetensors", weights)
        elif status in FINAL:  # weights of a run that this one replaces are not its own
            (results / "weights" / f"{run_id}.safetensors").unlink(missing_ok=True)
        _write_part(results, "epochs", run_id, epochs)
        _write_part(results, "runs", run_id, [{"schema": SCHEMA_VERSION} | record])
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


def _write_part(results: Path, table: str, run_id: str, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa

    schema = arrow_schema(table)
    for row in rows:
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"no column of {table}: {sorted(unknown)}")
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    write_table(results, table, run_id, pa.Table.from_pydict(columns, schema=schema))


def write_table(results: Path, table: str, run_id: str, part: pa.Table) -> None:
    """Writes a run's part-file of one table from its rows. OSError."""
    import pyarrow.parquet as pq

    folder = results / table
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{run_id}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            pq.write_table(part, file)
            file.flush()
            os.fsync(file.fileno())
        if pq.read_metadata(temporary).num_rows != part.num_rows:
            raise OSError(f"{temporary} did not arrive whole")
        publish(temporary, part_path(results, table, run_id))
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Gives a whole file its name, in the place of the file that has it. OSError."""
    os.replace(temporary, path)  # noqa: PTH105 - the atomic step, by its own name
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)
