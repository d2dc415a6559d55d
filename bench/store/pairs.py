"""Writing and removing compacted pairs: runs and their epochs, named by their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.storage.atomic import hold, publish
from bench.store.files import COMPACTED, part_path, shown
from bench.store.folded import MADE_FROM, rows_by_run
from bench.store.rows import TABLES, arrow_schema
from bench.store.seal import EMPTY, seal

if TYPE_CHECKING:
    import pyarrow as pa

Pair = tuple["pa.Table", "pa.Table"]
"""Runs, and their epochs."""


def write_pair(
    results: Path,
    chunks: Iterable[Pair],
    sources: Iterable[str] = (),
    worth: Callable[[], bool] = lambda: True,
) -> str:
    """Publishes a compacted pair of chunks that are sorted by run_id; returns its name. OSError.

    `sources` are the names of the pairs that it is made from. What is published was read back. When
    `worth`, asked after the last chunk, says no, nothing is, and the name is empty; so it is when
    another one took the pair up at once.
    """
    import pyarrow.parquet as pq

    unique = uuid.uuid4().hex
    temporary = {table: results / table / f".{COMPACTED}.{unique}.tmp" for table in TABLES}
    # Two at once never write one name, so neither removes what the other has just published.
    metadata = {MADE_FROM: json.dumps(sorted(sources)), "written_as": unique}
    wrote: dict[str, Counter[str]] = {table: Counter() for table in TABLES}
    try:
        with contextlib.ExitStack() as stack:
            files, writers = {}, {}
            for table, path in temporary.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                files[table] = stack.enter_context(path.open("w+b"))
                hold(files[table])
                schema = arrow_schema(table).with_metadata(metadata)
                writer = pq.ParquetWriter(files[table], schema, compression="zstd")
                writers[table] = stack.enter_context(writer)
            for pair in chunks:
                for table, rows in zip(TABLES, pair, strict=True):
                    _count(wrote[table], rows)
                    writers[table].write_table(rows, row_group_size=max(1, rows.num_rows))
            digest = hashlib.sha256()
            for table, file in files.items():
                writers[table].add_key_value_metadata(EMPTY)
                writers[table].close()
                file.flush()
                digest.update(bytes.fromhex(seal(file)))
                os.fsync(file.fileno())
            if not worth():
                return ""
            name = f"{COMPACTED}-{digest.hexdigest()[:16]}"
            for table in ("epochs", "runs"):  # the pair is there when its runs are
                publish(temporary[table], part_path(results, table, name))
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    arrived = {table: rows_by_run(results, table, name)[0] for table in TABLES}
    if not part_path(results, "runs", name).exists():
        return ""  # another one at work has taken it up by now
    for table in TABLES:
        if arrived[table] != wrote[table]:
            for other in TABLES:  # what it was made from is all there
                part_path(results, other, name).unlink(missing_ok=True)
            raise OSError(f"{part_path(results, table, name)} did not arrive whole")
    return name


def _count(counter: Counter[str], rows: pa.Table) -> None:
    counts = rows["run_id"].value_counts()
    names, numbers = (counts.field(key).to_pylist() for key in ("values", "counts"))
    counter.update(dict(zip(names, numbers, strict=True)))


def remove_pairs(
    results: Path,
    new: str,
    answers: Mapping[str, Sequence[str]],
    dropped: Collection[str],
    curves: Collection[str],
) -> list[str]:
    """Removes the pairs of `answers` whose rows are seen in the new one; says which stay. OSError.

    `answers` are the runs that were taken from each, but for those of `dropped`; the epochs of
    `curves` were taken from part-files.
    """
    holds = {table: rows_by_run(results, table, new)[0] for table in TABLES}
    problems = []
    for name, run_ids in answers.items():
        answered = {*run_ids}.difference(dropped)
        left = name == new
        for table, there in holds.items():
            old, problem = rows_by_run(results, table, name)
            left |= problem is not None
            for run_id, number in old.items():
                # Its epochs come from where its record comes from.
                other = run_id not in answered or run_id in curves
                if run_id in dropped or (table == "epochs" and other):
                    continue
                left |= there.get(run_id) != number
        if not left:
            for table in TABLES:  # the runs first: without them the pair is not there
                part_path(results, table, name).unlink(missing_ok=True)
        elif part_path(results, "runs", name).exists() and name != new:
            path = part_path(results, "runs", name)
            problems.append(f"{shown(path)}: stays, for not all of it was seen in {new}")
    return problems
