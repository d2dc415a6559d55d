"""One immutable Parquet part-file per run and table; readers never see half of one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import FIELDS
from bench.errors import BadInput, one_line
from bench.store.schema import EPOCHS, FINAL, RUNS, SCHEMA_VERSION, STATUSES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = {"runs": RUNS, "epochs": EPOCHS}


class StoreError(BadInput):
    """The results folder cannot be written: read-only, full, or not there."""


def arrow_schema(table: str) -> pa.Schema:
    """Returns the Arrow schema of a table."""
    import pyarrow as pa

    return pa.schema([(c.name, _arrow_type(c.type)) for c in TABLES[table]])


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
        _publish(temporary, path)
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
    if status not in FINAL and read_status(results / "runs" / f"{run_id}.parquet") in FINAL:
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


def read_status(path: Path) -> str | None:
    """Returns the status in a run's part-file, None when there is no readable one."""
    part, _ = read_part(path, "runs")
    status: str | None = None if part is None else part["status"][0].as_py()
    return status


def statuses(results: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """Returns the status of each of these runs that has a readable record."""
    found = {}
    for run_id in run_ids:
        path = results / "runs" / f"{run_id}.parquet"
        status = read_status(path) if path.is_file() else None
        if status is not None:
            found[run_id] = status
    return found


def load_runs(
    results: Path, run_ids: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table of runs (these, or all) and a line for each file that cannot be read."""
    return _load(results, "runs", run_ids)


def load_epochs(
    results: Path, run_ids: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table of epochs (of these runs, or all) and a line for each broken file."""
    return _load(results, "epochs", run_ids)


def part_files(results: Path, table: str) -> list[Path]:
    """Returns the table's part-files; temporary and hidden files are none of them."""
    return sorted(p for p in (results / table).glob("*.parquet") if not p.name.startswith("."))


def read_part(path: Path, table: str) -> tuple[pa.Table | None, str | None]:
    """Returns one part-file, or None and why it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    try:
        # Not read_table on the path: it would take `a=b` in a folder's name for a column.
        with path.open("rb") as file:
            part = pq.ParquetFile(file).read()
    except Exception as error:  # a damaged footer raises anything, a UnicodeDecodeError too
        return None, f"{path}: not a whole Parquet file: {one_line(error, 120)}"
    for column in TABLES[table]:
        if column.later and column.name not in part.column_names:
            default = [FIELDS.get(column.name)] * part.num_rows
            part = part.append_column(column.name, pa.array(default, _arrow_type(column.type)))
    missing = [name for name in schema.names if name not in part.column_names]
    if missing:
        return None, f"{path}: not a record of ours: no column {missing[0]}"
    if table == "runs":
        version = part["schema"][0].as_py() if part.num_rows == 1 else None
        if part.num_rows != 1:
            return None, f"{path}: holds {part.num_rows} rows instead of one"
        if version != SCHEMA_VERSION:
            return None, f"{path}: has schema {version}; this version reads {SCHEMA_VERSION}"
    names = set(part["run_id"].to_pylist())
    if names - {path.stem}:
        return None, f"{path}: holds run {sorted(map(str, names))[0]}, not the run of its name"
    try:
        return part.select(schema.names).cast(schema), None
    except (pa.ArrowException, ValueError) as error:
        return None, f"{path}: not a record of ours: {one_line(error, 120)}"


def _load(
    results: Path, table: str, run_ids: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    import pyarrow as pa

    paths = part_files(results, table)
    if run_ids is not None:
        wanted = set(run_ids)
        paths = [p for p in paths if p.stem in wanted]
    parts, problems = [], []
    for path in paths:
        part, problem = read_part(path, table)
        if part is not None:
            parts.append(part)
        if problem:
            problems.append(problem)
    whole = pa.concat_tables([arrow_schema(table).empty_table(), *parts])
    return whole.to_pandas(), problems


def _write_part(results: Path, table: str, run_id: str, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    for row in rows:
        unknown = set(row) - set(schema.names)
        if unknown:
            raise ValueError(f"no column of {table}: {sorted(unknown)}")
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    part = pa.Table.from_pydict(columns, schema=schema)
    folder = results / table
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{run_id}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            pq.write_table(part, file)
            file.flush()
            os.fsync(file.fileno())
        if pq.read_metadata(temporary).num_rows != len(rows):
            raise OSError(f"{temporary} did not arrive whole")
        _publish(temporary, folder / f"{run_id}.parquet")
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    os.replace(temporary, path)  # noqa: PTH105 - the atomic step, by its own name
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    return pa.bool_() if name == "bool" else getattr(pa, name)()
