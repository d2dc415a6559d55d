"""Reading the two tables: each run exactly once, whatever is written or compacted meanwhile.

A run's row lies in a part-file of its own or in a compacted file. A part-file wins: it is a rerun,
or not folded yet; unless it is of a `lost` run, which never replaces a final record. `compact`
publishes its file before it takes part-files away, so a reader opens the part-files first: one that
is gone by then is in a compacted file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadInput
from bench.store.files import COMPACTED, aside_path, own_files, part_path, shown
from bench.store.folded import read_compacted
from bench.store.rows import arrow_schema, read_own, strings
from bench.store.schema import FINAL

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FEW = 64
"""So many runs are looked up by name; for more the folder is listed."""
_BATCH = 1000


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
        if problem.startswith(shown(results / "runs" / COMPACTED)):
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
    counts as its run's: an older record in a compacted file does not answer for it.
    """
    wanted = None if run_ids is None else set(run_ids)
    asked = arrow_schema(table).names if columns is None else list(columns)
    rows, problems, nowhere = _read(results, table, wanted, asked)
    if nowhere:
        # A network file system may know that a part-file is gone before it knows what took it up.
        rows, problems, _ = _read(results, table, wanted, asked)
    return rows.select(asked), problems


def _read(
    results: Path, table: str, wanted: set[str] | None, asked: Sequence[str]
) -> tuple[pa.Table, list[str], bool]:
    """Returns rows and problems, and whether a run that was listed was found nowhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = list(dict.fromkeys(["run_id", *asked]))
    parts: list[pa.Table] = []
    problems: list[str] = []
    seen: list[str] = []
    gone: list[str] = []
    for run_id in _with_own_file(results, table, wanted):
        found = read_own(results, table, run_id, columns)
        if found is None:
            gone.append(run_id)
            continue
        seen.append(run_id)
        part, problem = found
        if part is not None:
            parts.append(part)
        if problem:
            problems.append(problem)
        if len(parts) == _BATCH:  # thousands of tiny tables would take far more room than one
            parts = [pa.concat_tables(parts).combine_chunks()]
    folded, more = read_compacted(results, table, wanted, columns)
    if seen or gone:
        twice, _ = read_compacted(results, "runs", {*seen, *gone}, ("run_id", "status"))
        final = twice.filter(pc.is_in(twice["status"], pa.array(FINAL)))["run_id"].to_pylist()
        hidden = {*seen} - {run_id for run_id in final if _is_lost(results, run_id)}
        gone = sorted({*gone} - {*twice["run_id"].to_pylist()})
        folded = folded.filter(pc.invert(pc.is_in(folded["run_id"], strings(hidden))))
        if len(hidden) < len(seen):
            parts = [p.filter(pc.is_in(p["run_id"], strings(hidden))) for p in parts]
    whole = pa.concat_tables([folded, *parts])
    if parts and folded.num_rows:
        whole = whole.take(pc.sort_indices(whole, [("run_id", "ascending")]))  # it is stable
    return whole, [*more, *problems], bool(gone)


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
    return any(os.path.lexists(path) for path in paths)  # a broken link is there, too


def _is_lost(results: Path, run_id: str) -> bool:
    """Whether a run's own record is readable and not final."""
    part, _ = read_own(results, "runs", run_id, ("status",)) or (None, None)
    return part is not None and part["status"][0].as_py() not in FINAL
