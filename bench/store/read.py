"""Reading the two tables: each run exactly once, whatever is written or compacted meanwhile.

A run's row lies in a part-file of its own or in the compacted file of its table. A part-file wins:
it is a rerun, or not folded yet. `compact` publishes the compacted file before it takes part-files
away, so a reader opens the part-files first: one that is gone by then is in the compacted file.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import FIELDS
from bench.errors import BadInput, one_line
from bench.store.files import COMPACTED, aside_path, own_files, part_path
from bench.store.schema import EPOCHS, RUNS, SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = {"runs": RUNS, "epochs": EPOCHS}
_FEW = 64
"""So many runs are looked up by name; for more the folder is listed."""
_BATCH = 1000


@functools.cache
def arrow_schema(table: str) -> pa.Schema:
    """Returns the Arrow schema of a table."""
    import pyarrow as pa

    return pa.schema([(c.name, arrow_type(c.type)) for c in TABLES[table]])


def arrow_type(name: str) -> pa.DataType:
    """Returns the Arrow type of a column's `type`."""
    import pyarrow as pa

    return pa.bool_() if name == "bool" else getattr(pa, name)()


def load_runs(
    results: Path, run_ids: Iterable[str] | None = None, columns: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table of runs (these, or all) and a line for each file that cannot be read.

    Rows are sorted by run_id. `columns` reads these alone, which is quicker.
    """
    rows, problems = read(results, "runs", run_ids, columns)
    return rows.to_pandas(), problems


def load_epochs(
    results: Path, run_ids: Iterable[str] | None = None, columns: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns the table of epochs (of these runs, or all) and a line for each broken file.

    Rows are sorted by run_id and, within a run, in the order of its epochs.
    """
    rows, problems = read(results, "epochs", run_ids, columns)
    return rows.to_pandas(), problems


def statuses(results: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """Returns the status of each of these runs that has a readable record, in their order.

    A part-file that is broken is a run that is trained again; a compacted file that is broken would
    be all of them, so that raises BadInput.
    """
    wanted = list(run_ids)
    rows, problems = read(results, "runs", wanted, ("run_id", "status"))
    for problem in problems:
        if problem.startswith(f"{results / 'runs' / COMPACTED}:"):
            raise BadInput(f"{problem}; restore it, or move it away to run its trials again")
    known = dict(zip(rows["run_id"].to_pylist(), rows["status"].to_pylist(), strict=True))
    return {name: status for name in wanted if (status := known.get(name)) is not None}


def read(
    results: Path,
    table: str,
    run_ids: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[pa.Table, list[str]]:
    """Returns the rows of these runs (or of all), sorted by run_id, and a line for each problem.

    The epochs of a run come from where its record comes from. A part-file that cannot be read
    counts as its run's: an older record in the compacted file does not answer for it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = None if run_ids is None else set(run_ids)
    parts: list[pa.Table] = []
    problems: list[str] = []
    seen: list[str] = []
    for run_id in _with_own_file(results, table, wanted):
        found = read_own(results, table, run_id, columns)
        if found is None:
            continue
        seen.append(run_id)
        part, problem = found
        if part is not None:
            parts.append(part)
        if problem:
            problems.append(problem)
        if len(parts) == _BATCH:  # thousands of tiny tables would take far more room than one
            parts = [pa.concat_tables(parts).combine_chunks()]
    folded, problem = read_compacted(results, table, wanted, columns)
    if problem:
        problems.insert(0, problem)
    if seen and folded.num_rows:
        folded = folded.filter(pc.invert(pc.is_in(folded["run_id"], pa.array(seen))))
    whole = pa.concat_tables([folded, *parts])
    if parts and folded.num_rows:
        whole = whole.take(pc.sort_indices(whole, [("run_id", "ascending")]))  # it is stable
    return whole, problems


def _with_own_file(results: Path, table: str, wanted: set[str] | None) -> list[str]:
    if wanted is not None and len(wanted) <= _FEW:
        records = [name for name in sorted(wanted) if _has_record(results, name)]
    else:
        records = own_files(results, "runs")
        if wanted is not None:
            records = [name for name in records if name in wanted]
    if table == "runs":
        return records
    # A writer publishes epochs before the record: epochs without a record are not its run's yet.
    present = records if len(records) <= _FEW else own_files(results, table)
    return sorted(set(records) & set(present))


def _has_record(results: Path, run_id: str) -> bool:
    paths = (part_path(results, "runs", run_id), aside_path(results, "runs", run_id))
    return any(path.is_file() for path in paths)


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
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        return None, f"{path}: cannot be read: {error.strerror or error}"
    return parse_part(content, path, table, columns)


def parse_part(
    content: bytes, path: Path, table: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table | None, str | None]:
    """Returns the table in a part-file's bytes, or None and why it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        part, problem = _typed(file, None, table, columns, path)
    except Exception as error:  # a damaged footer raises anything, a UnicodeDecodeError too
        return None, f"{path}: not a whole Parquet file: {one_line(error, 120)}"
    if part is None:
        return None, problem
    if table == "runs":
        if part.num_rows != 1:
            return None, f"{path}: holds {part.num_rows} rows instead of one"
        version = part["schema"][0].as_py()
        if version != SCHEMA_VERSION:
            return None, f"{path}: has schema {version}; this version reads {SCHEMA_VERSION}"
    stem = path.name.removeprefix(".").removesuffix(".aside").removesuffix(".parquet")
    for name in part["run_id"].unique().to_pylist():
        if name != stem:
            return None, f"{path}: holds run {name}, not the run of its name"
    return part if columns is None else part.select(list(columns)), None


def read_compacted(
    results: Path,
    table: str,
    wanted: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[pa.Table, str | None]:
    """Returns the rows of these runs (or of all) in the compacted file, and what is wrong with it.

    Only the row groups that may hold one of them are read. No file is no rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = results / table / COMPACTED
    names = list(columns or arrow_schema(table).names)
    nothing = arrow_schema(table).empty_table().select(names)
    rows: pa.Table | None = None
    problem: str | None = None
    for once_more in (True, False):
        try:
            with pq.ParquetFile(path) as file:
                groups = None if wanted is None else _groups(file, sorted(wanted))
                rows, problem = _typed(file, groups, table, columns, path)
                break
        except (FileNotFoundError, NotADirectoryError):
            return nothing, None
        except Exception as error:
            if once_more:  # a network file system may lose a file that another machine replaces
                continue
            return nothing, f"{path}: not a whole Parquet file: {one_line(error, 120)}"
    if rows is None:
        return nothing, problem
    if table == "runs":
        other = set(rows["schema"].unique().to_pylist()) - {SCHEMA_VERSION}
        if other:
            return nothing, f"{path}: has schema {other}; this version reads {SCHEMA_VERSION}"
    if wanted is not None:
        rows = rows.filter(pc.is_in(rows["run_id"], pa.array(list(wanted), pa.string())))
    return rows.select(names), None


def _groups(file: pa.parquet.ParquetFile, wanted: Sequence[str]) -> list[int]:
    """Returns the row groups whose range of run_ids holds a wanted one."""
    metadata = file.metadata
    column = file.schema_arrow.names.index("run_id")
    found = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            found.append(group)
            continue
        place = bisect.bisect_left(wanted, statistics.min)
        if place < len(wanted) and wanted[place] <= statistics.max:
            found.append(group)
    return found


def _typed(
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
            return None, f"{path}: not a record of ours: no column {column.name}"
    needed = schema.names
    if columns is not None:
        check = ("schema", "run_id") if table == "runs" else ("run_id",)
        needed = list(dict.fromkeys((*check, *columns)))
    there = [name for name in needed if name in there]
    if groups is None:
        rows = file.read(there, use_threads=file.metadata.num_row_groups > 1)
    else:
        rows = file.read_row_groups(groups, there)
    for column in absent:
        if column.name in needed:
            default = pa.array([FIELDS.get(column.name)], arrow_type(column.type))
            filled = pa.chunked_array([default.take(pa.array([0] * rows.num_rows))])
            rows = rows.append_column(column.name, filled)
    typed = pa.schema([schema.field(name) for name in needed])
    rows = rows.select(needed)
    if rows.schema.equals(typed):
        return rows.replace_schema_metadata(None), None
    try:
        return rows.cast(typed), None
    except (pa.ArrowException, ValueError) as error:
        return None, f"{path}: not a record of ours: {one_line(error, 120)}"
