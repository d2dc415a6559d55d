"""The rows of one file in our types: a part-file's, or what any Parquet file holds of a table."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import FIELDS
from bench.errors import one_line
from bench.store.files import aside_path, part_path, read_file, shown
from bench.store.schema import EPOCHS, RUNS, SCHEMA_VERSION
from bench.store.seal import DAMAGED, is_whole

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = {"runs": RUNS, "epochs": EPOCHS}


@functools.cache
def arrow_schema(table: str) -> pa.Schema:
    """Returns the Arrow schema of a table."""
    import pyarrow as pa

    return pa.schema([(c.name, arrow_type(c.type)) for c in TABLES[table]])


def arrow_type(name: str) -> pa.DataType:
    """Returns the Arrow type of a column's `type`."""
    import pyarrow as pa

    return pa.bool_() if name == "bool" else getattr(pa, name)()


def strings(names: Iterable[str]) -> pa.Array:
    """Returns these names, but for those of foreign files that are no text and thus of no run."""
    import pyarrow as pa

    found = [n for n in names if n.isascii() or n.encode(errors="replace").decode() == n]
    return pa.array(found, pa.string())


def own_content(results: Path, table: str, run_id: str) -> tuple[bytes, Path] | None:
    """Returns what is in a run's own file, None when there is none (any more). OSError."""
    for path in (part_path(results, table, run_id), aside_path(results, table, run_id)):
        try:
            return read_file(path), path
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OSError(error.errno, f"{shown(path)}: {unreadable(error)}") from None
    return None


def read_own(
    results: Path, table: str, run_id: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table | None, str | None] | None:
    """Returns what `read_part` does of a run's own file, or None when there is none any more."""
    for path in (part_path(results, table, run_id), aside_path(results, table, run_id)):
        try:
            return read_part(path, table, columns)
        except FileNotFoundError:
            continue
    return None


def read_part(
    path: Path, table: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table | None, str | None]:
    """Returns one part-file, or None and why it is none of ours; FileNotFoundError."""
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return None, f"{shown(path)}: {unreadable(error)}"
    return parse_part(content, path, table, columns)


def unreadable(error: OSError) -> str:
    """Returns why a file cannot be read, in words."""
    return f"cannot be read: {error.strerror or error}"


def parse_part(
    content: bytes,
    path: Path,
    table: str,
    columns: Sequence[str] | None = None,
    whole: bool = False,
) -> tuple[pa.Table | None, str | None]:
    """Returns the table in a part-file's bytes, or None and why it is none of ours.

    `whole`: columns that this version does not know are a reason, too.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not is_whole(content):
        return None, f"{shown(path)}: {DAMAGED}"
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        part, problem = typed(file, None, table, columns, path)
    except Exception as error:  # a damaged footer raises anything, a UnicodeDecodeError too
        return None, f"{shown(path)}: not a whole Parquet file: {one_line(error, 120)}"
    if part is None:
        return None, problem
    if whole and (names := unknown(file, table)):
        return None, f"{shown(path)}: {names}"
    if table == "runs":
        if part.num_rows != 1:
            return None, f"{shown(path)}: holds {part.num_rows} rows instead of one"
        version = part["schema"][0].as_py()
        if version != SCHEMA_VERSION:
            said = f"has schema {version}; this version reads {SCHEMA_VERSION}"
            return None, f"{shown(path)}: {said}"
    stem = path.name.removeprefix(".").removesuffix(".aside").removesuffix(".parquet")
    for name in part["run_id"].unique().to_pylist():
        if name != stem:
            said = f"holds run {one_line(name, 40)}, not the run of its name"
            return None, f"{shown(path)}: {said}"
    return part if columns is None else part.select(list(columns)), None


def unknown(file: pa.parquet.ParquetFile, table: str) -> str:
    """Says which columns a file has that this version does not know; nothing if it has none.

    Who writes its rows anew would throw them away.
    """
    names = [name for name in file.schema.names if name not in arrow_schema(table).names]
    return f"has columns of a newer version: {one_line(', '.join(names), 80)}" if names else ""


def typed(
    file: pa.parquet.ParquetFile,
    groups: list[int] | None,
    table: str,
    columns: Sequence[str] | None,
    path: Path,
) -> tuple[pa.Table | None, str | None]:
    """Returns a file's rows in our types, or None and why it cannot be; raises what arrow does."""
    import pyarrow as pa

    schema = arrow_schema(table)
    there = file.schema.names
    absent = [c for c in TABLES[table] if c.name not in there]
    for column in absent:
        if not column.later:
            return None, f"{shown(path)}: not a record of ours: no column {column.name}"
    needed = schema.names
    if columns is not None:
        check = ("schema", "run_id") if table == "runs" else ("run_id",)
        needed = list(dict.fromkeys((*check, *columns)))
    there = [name for name in needed if name in there]
    if groups is None:
        rows = file.read(there, use_threads=file.metadata.num_row_groups > 1)
    else:
        rows = file.read_row_groups(groups, there)
    rows.validate(full=True)  # or a text that is none in UTF-8 is noticed by whoever asks for it
    for column in absent:
        if column.name in needed:
            default = pa.array([FIELDS.get(column.name)], arrow_type(column.type))
            filled = pa.chunked_array([default.take(pa.array([0] * rows.num_rows))])
            rows = rows.append_column(column.name, filled)
    wanted = pa.schema([schema.field(name) for name in needed])
    rows = rows.select(needed)
    if rows.schema.equals(wanted):
        return rows.replace_schema_metadata(None), None
    try:
        return rows.cast(wanted), None
    except (pa.ArrowException, ValueError) as error:
        return None, f"{shown(path)}: not a record of ours: {one_line(error, 120)}"
