"""Reading compacted files: which of several answers for a run, and the rows that it holds of it.

A results folder holds one compacted pair (runs and epochs), or several: folders were copied
together, or `compact` was stopped between publishing its file and removing those it was made from.
A run's record and epochs come from one pair: from a file rather than one that it was made from (its
metadata names them); else a final record rather than `lost`; else the one that was started last;
else by name, so that all readers agree.
"""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import one_line
from bench.plugins.spelling import NAME
from bench.store.files import compacted_names, part_path, shown
from bench.store.rows import arrow_schema, strings, typed, unknown, unreadable
from bench.store.schema import FINAL, SCHEMA_VERSION
from bench.store.seal import DAMAGED, is_whole_file

if TYPE_CHECKING:
    import pyarrow as pa

MADE_FROM = b"made_from"
"""Key of a file's metadata: the names of the compacted files whose runs it took up, as JSON."""
_TRIES = 10


def read_compacted(
    results: Path,
    table: str,
    wanted: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[pa.Table, list[str]]:
    """Returns the rows of these runs (or of all), each run once, and a line for each problem.

    Rows are sorted by run_id. No file is no rows.
    """
    names = compacted_names(results)
    for attempt in range(_TRIES):
        rows, problems = _read(results, table, names, wanted, columns)
        # A listing, or a file, that `compact` changed on the way is looked at again; so is every
        # problem: a network file system may lose a file for a moment that another machine removes.
        now = compacted_names(results)
        if now == names and (attempt or not problems):
            break
        names = now
        time.sleep(0.01 * attempt)
    return rows, list(dict.fromkeys(problems))


def _read(
    results: Path,
    table: str,
    names: Sequence[str],
    wanted: Collection[str] | None,
    columns: Sequence[str] | None,
) -> tuple[pa.Table, list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(names) == 1:
        rows, problem = read_one(results, table, names[0], wanted, columns)
        return rows, [problem] if problem else []
    answers, problems = answering(results, names, wanted)
    asked = arrow_schema(table).names if columns is None else list(columns)
    needed = list(dict.fromkeys(["run_id", *asked]))
    found = [arrow_schema(table).empty_table().select(needed)]
    for name, run_ids in answers.items():
        rows, problem = read_one(results, table, name, run_ids, needed)
        problems += [problem] if problem else []
        found.append(rows)
    whole = pa.concat_tables(found)
    if len(found) > 1:
        whole = whole.take(pc.sort_indices(whole, [("run_id", "ascending")]))  # it is stable
    return whole.select(asked), problems


def answering(
    results: Path, names: Sequence[str], wanted: Collection[str] | None = None
) -> tuple[dict[str, list[str]], list[str]]:
    """Returns for each of these pairs the runs (of these, or of all) that are read from it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    heads: dict[str, pa.Table] = {}
    problems: list[str] = []
    for name in names:
        rows, problem = read_one(results, "runs", name, wanted, ("run_id", "status", "started_utc"))
        heads[name] = rows
        problems += [problem] if problem else []
    if len(names) < 2:
        return {name: rows["run_id"].to_pylist() for name, rows in heads.items()}, problems
    parts = []
    made = {name: {*made_from(results, name)} for name in names}
    for place, (name, rows) in enumerate(heads.items()):
        for other in names:
            # A name is a hash of what it names: two that were made from each other both lie.
            if name in made[other] and other not in _reached(made, name):
                newer = heads[other]["run_id"]
                rows = rows.filter(pc.invert(pc.is_in(rows["run_id"], newer.combine_chunks())))
        final = pc.is_in(rows["status"], pa.array(FINAL))
        parts.append(
            pa.table(
                {
                    "run_id": rows["run_id"],
                    "final": pc.cast(final, pa.int8()),
                    "started": pc.fill_null(rows["started_utc"], ""),
                    "place": pa.array([place] * rows.num_rows, pa.int32()),
                }
            )
        )
    order = [("run_id", "ascending")]
    order += [(key, "descending") for key in ("final", "started", "place")]
    every = pa.concat_tables(parts)
    every = every.take(pc.sort_indices(every, order)).combine_chunks()
    answers: dict[str, list[str]] = {name: [] for name in names}
    last = None
    for run_id, place in zip(*(every[c].to_pylist() for c in ("run_id", "place")), strict=True):
        if run_id != last:
            answers[names[place]].append(run_id)
        last = run_id
    return answers, problems


def read_one(
    results: Path,
    table: str,
    name: str,
    wanted: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[pa.Table, str | None]:
    """Returns the rows of these runs (or of all) in one compacted file, and what is wrong with it.

    Only the row groups that may hold one of them are read.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = part_path(results, table, name)
    asked = arrow_schema(table).names if columns is None else list(columns)
    nothing = arrow_schema(table).empty_table().select(asked)
    try:
        if damage := _damage(path):
            return nothing, f"{shown(path)}: {damage}"
        with pq.ParquetFile(path) as file:
            groups = None if wanted is None else _groups(file, sorted(wanted))
            rows, problem = typed(file, groups, table, columns, path)
    except FileNotFoundError:
        return nothing, f"{shown(path)}: is not there, its pair is"
    except Exception as error:
        return nothing, f"{shown(path)}: not a whole Parquet file: {one_line(error, 120)}"
    if rows is None:
        return nothing, problem
    if said := _odd(rows["run_id"], unique=table == "runs"):
        return nothing, f"{shown(path)}: {said}"
    if table == "runs":
        other = set(rows["schema"].unique().to_pylist()) - {SCHEMA_VERSION}
        if other:
            said = f"has schema {one_line(other, 60)}; this version reads {SCHEMA_VERSION}"
            return nothing, f"{shown(path)}: {said}"
    if wanted is not None:
        rows = rows.filter(pc.is_in(rows["run_id"], strings(wanted)))
    return rows.select(asked), None


def _odd(run_ids: pa.ChunkedArray, unique: bool) -> str:
    """Says what is wrong with the run_ids of a file: they become names of files, in a prune say."""
    import pyarrow.compute as pc

    if run_ids.null_count:
        return "holds a row of no run"
    if not unique:
        return ""
    if len(run_ids.unique()) < len(run_ids):
        return "holds a run twice"
    safe = pc.match_substring_regex(run_ids, rf"\A(?:{NAME.pattern})\z")
    if not pc.all(safe, min_count=0).as_py():
        name = run_ids.filter(pc.invert(safe))[0].as_py()
        return f"holds run {one_line(name, 40)!r}, which is no name of a run"
    return ""


def _damage(path: Path) -> str:
    """Says what is wrong with a file before its content is looked at. FileNotFoundError."""
    try:
        return "" if is_whole_file(path) else DAMAGED
    except FileNotFoundError:
        raise
    except OSError as error:
        return unreadable(error)


def made_from(results: Path, name: str) -> list[str]:
    """Returns the names of the compacted files that a file says it was made from."""
    import pyarrow.parquet as pq

    path = part_path(results, "runs", name)
    try:
        if _damage(path):
            return []
        metadata = pq.read_metadata(path).metadata or {}
        found = json.loads(metadata.get(MADE_FROM, b"[]"))
    except Exception:  # whoever reads its rows says what is wrong with it
        return []
    found = found if isinstance(found, list) else []
    return [old for old in found if isinstance(old, str)]


def _reached(made: Mapping[str, Collection[str]], name: str) -> set[str]:
    """Returns all that a file was made from, and what that was made from, and so on."""
    found: set[str] = set()
    left = [name]
    while left:
        new = {*made.get(left.pop(), ())} - found
        found |= new
        left += new
    return found


def rows_by_run(results: Path, table: str, name: str) -> tuple[dict[str, int], str | None]:
    """Returns how many rows a compacted file holds of each run, and what is wrong with it."""
    rows, problem = read_one(results, table, name, columns=("run_id",))
    counts = rows["run_id"].value_counts()
    found = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    return dict(found), problem


def unknown_columns(results: Path, names: Iterable[str]) -> str:
    """Names the first of these files that holds columns of a newer version; nothing if none."""
    import pyarrow.parquet as pq

    for name in names:
        for table in ("runs", "epochs"):
            path = part_path(results, table, name)
            try:
                if _damage(path):
                    continue
                with pq.ParquetFile(path) as file:
                    if said := unknown(file, table):
                        return f"{shown(path)}: {said}"
            except Exception:  # whoever reads its rows says what is wrong with it
                continue
    return ""


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
