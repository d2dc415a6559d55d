"""Looking after a results folder: check, merge, orphans, prune."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BadInput
from bench.plugins import Registry
from bench.storage.atomic import write_atomically
from bench.store.abandoned import abandoned, unpaired
from bench.store.compact import RUNS_PER_GROUP, alone, drop
from bench.store.files import (
    aside_path,
    compacted_names,
    own_files,
    part_path,
    read_file,
    shown,
)
from bench.store.folded import read_compacted, rows_by_run, unknown_columns
from bench.store.grids import grid_names, load_grid
from bench.store.parts import prepare, write_table
from bench.store.read import read, statuses
from bench.store.rows import TABLES, own_content, parse_part, read_own, read_part
from bench.store.schema import FINAL, RESULT_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

_PRUNE = "prune deletes it after an hour"


def check(results: Path) -> list[str]:
    """Returns a line for each thing that is wrong in a results folder."""
    problems = []
    broken = set()
    own = {table: own_files(results, table) for table in TABLES}  # first, as in bench.store.read
    for table, run_ids in own.items():
        for run_id in run_ids:
            found = read_own(results, table, run_id)
            if found and found[1]:
                problems.append(found[1])
                broken.add((table, run_id))
    folded: set[str] = set()
    for name in compacted_names(results):
        runs, problem = rows_by_run(results, "runs", name)
        epochs, other = rows_by_run(results, "epochs", name)
        problems += [said for said in (problem, other) if said]
        if any(number > 1 for number in runs.values()):
            problems.append(f"{shown(part_path(results, 'runs', name))}: holds a run twice")
        if without := epochs.keys() - runs.keys():
            path = part_path(results, "epochs", name)
            problems.append(f"{shown(path)}: epochs of {len(without)} runs that have no record")
        folded |= runs.keys()
    for run_id in sorted({*own["epochs"]} - {*own["runs"]}):
        path = part_path(results, "epochs", run_id)
        if ("epochs", run_id) in broken:
            continue
        if run_id not in folded:
            problems.append(f"{shown(path)}: epochs of a run that has no record")
        elif path.exists():
            problems.append(f"{shown(path)}: left by a writer that was killed, {_PRUNE}")
    for path in unpaired(results):
        problems.append(f"{shown(path)}: epochs without their runs: left by a compact, {_PRUNE}")
    for name in sorted(grid_names(results)):
        try:
            load_grid(results, name)
        except BadInput as error:
            problems.append(str(error))
    return problems


def count(results: Path) -> int:
    """Returns how many runs have a record, whole or broken."""
    own = own_files(results, "runs")  # first, as in bench.store.read
    folded, _ = read_compacted(results, "runs", columns=("run_id",))
    return len({*own, *folded["run_id"].to_pylist()})


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns the record in a part-file, None when it cannot be read."""
    try:
        part, _ = read_part(path, "runs")
    except FileNotFoundError:
        return None
    return None if part is None else part.to_pylist()[0]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the RESULT_COLUMNS in which two records of one run differ (NaN equals NaN)."""
    return [name for name in RESULT_COLUMNS if not _same(one.get(name), other.get(name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def merge(results: Path, sources: list[Path]) -> tuple[int, list[str]]:
    """Copies the records of other results folders into this one.

    A final record is kept over `lost`, else the first. Returns how many runs came in and a line
    for each run whose two final records differ, for each grid whose two definitions do, and for
    each file that cannot be read.
    """
    for source in sources:
        if not (source / "runs").is_dir():
            raise BadInput(f"{source}: no results folder; it has no runs/")
        if source.resolve() == results.resolve():
            raise BadInput(f"{source}: cannot be merged into itself")
    prepare(results)
    came = 0
    remarks: dict[str, None] = {}
    for source in sources:
        listing, problems = read(source, "runs", None, ("run_id", "status"))
        remarks |= dict.fromkeys(problems)
        theirs = dict(zip(*(listing[c].to_pylist() for c in ("run_id", "status")), strict=True))
        ours = statuses(results, theirs)
        both = [r for r, s in theirs.items() if s in FINAL and ours.get(r) in FINAL]
        wanted = [
            r for r, s in theirs.items() if r not in ours or (s in FINAL and ours[r] not in FINAL)
        ]
        for some in _portions(both):
            remarks |= dict.fromkeys(_compare(results, source, some))
        for some in _portions(wanted):
            number, problems = _copy(results, source, some)
            remarks |= dict.fromkeys(problems)
            came += number
        remarks |= dict.fromkeys(_merge_grids(results, source))
    return came, list(remarks)


def _merge_grids(results: Path, source: Path) -> Iterator[str]:
    """Copies the definitions of grids that are not here, or cannot be read; yields remarks."""
    for name in sorted(grid_names(source)):
        path = source / "grids" / f"{name}.json"
        try:
            theirs = _wanted(source, name)
            content = read_file(path)
        except BadInput as error:
            yield str(error)
            continue
        try:
            ours = _wanted(results, name)
        except BadInput:
            write_atomically(results / "grids" / path.name, content)
            continue
        if ours != theirs:
            yield (
                f"{shown(path)}: not taken: the grid of this name in {shown(results)} wants other "
                f"trials ({len(ours):,}, not these {len(theirs):,}); rename one with --name"
            )


def _wanted(results: Path, name: str) -> list[str]:
    return [entry["run_id"] for entry in load_grid(results, name)["wanted"]]


def _portions(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(run_ids), RUNS_PER_GROUP):
        yield run_ids[start : start + RUNS_PER_GROUP]


def _compare(results: Path, source: Path, run_ids: Sequence[str]) -> Iterator[str]:
    ours, _ = read(results, "runs", run_ids, RESULT_COLUMNS)
    theirs, problems = read(source, "runs", run_ids, RESULT_COLUMNS)
    yield from problems
    kept = {record["run_id"]: record for record in ours.to_pylist()}
    for record in theirs.to_pylist():
        names = differing(kept.get(record["run_id"], record), record)
        if names:
            path = part_path(source, "runs", record["run_id"])
            yield f"{shown(path)}: differs from the record kept in {', '.join(names)}"


def _copy(results: Path, source: Path, run_ids: Sequence[str]) -> tuple[int, list[str]]:
    runs, problems = read(source, "runs", run_ids)
    epochs, more = read(source, "epochs", run_ids)
    curves = _by_run(epochs)
    for run_id, record in _by_run(runs).items():
        name = f"{run_id}.safetensors"
        if (source / "weights" / name).is_file():
            (results / "weights").mkdir(exist_ok=True)
            content = (source / "weights" / name).read_bytes()
            write_atomically(results / "weights" / name, content)
        rows = {"epochs": curves.get(run_id, epochs.slice(0, 0)), "runs": record}
        own = _own_bytes(source, run_id, record)
        for table, part in rows.items():  # the record last: it makes the run count
            if table in own:
                write_atomically(part_path(results, table, run_id), own[table])
            elif table == "runs" and (said := unknown_columns(source, compacted_names(source))):
                raise BadInput(f"{said}; use the version that wrote it, or they are lost")
            else:
                write_table(results, table, run_id, part)
    return runs.num_rows, problems + more


def _own_bytes(source: Path, run_id: str, record: pa.Table) -> dict[str, bytes]:
    """Returns a run's part-files if its record is from there.

    They may have columns that this version does not know: they are copied byte for byte.
    """
    found = {}
    for table in TABLES:
        own = own_content(source, table, run_id)
        part = None if own is None else parse_part(*own, table)[0]
        if table == "runs" and (part is None or part["status"] != record["status"]):
            return {}
        if own is not None and part is not None:
            found[table] = own[0]
    return found


def _by_run(rows: pa.Table) -> dict[str, pa.Table]:
    """Returns the rows of each run; they are sorted by run_id."""
    found, start = {}, 0
    for one in rows["run_id"].value_counts().to_pylist():
        found[one["values"]] = rows.slice(start, one["counts"])
        start += one["counts"]
    return found


def orphans(results: Path, registry: Registry) -> list[tuple[str, str]]:
    """Returns (run_id, why) of the runs whose plugin source is no longer in the tree.

    Runs of plugins from a folder that is not in `registry` are left alone: nobody looked there.
    """
    origins = {"tree"} | {p.origin for found in registry.values() for p in found.values()}
    hashes = {
        kind: {p.name: p.hash for p in plugins.values()} for kind, plugins in registry.items()
    }
    columns = ["run_id", "plugin_origin"]
    columns += [name for kind in hashes for name in (kind, f"{kind}_source")]
    found = []
    for record in read(results, "runs", None, columns)[0].to_pylist():
        if None in record.values():  # not written by us, so not ours to delete
            continue
        if not set(record["plugin_origin"].split(", ")) <= origins:
            continue
        for kind in ("cell", "regularizer"):
            names = [part.split(":")[0] for part in record[kind].split("+")]
            now = "+".join(hashes[kind].get(name, "gone") for name in sorted(names))
            if now != record[f"{kind}_source"]:
                why = "is gone" if "gone" in now.split("+") else "has changed"
                found.append((record["run_id"], f"{kind} {record[kind]} {why}"))
                break
    return found


def prune(results: Path, run_ids: Sequence[str]) -> int:
    """Deletes these runs and what writers that were killed left behind; returns the files gone.

    Rows of a compacted file go with it, and are no files: it is written anew without them.
    """
    gone = 0
    with alone(results):
        drop(results, run_ids)  # first: a part-file hides the row that it is a rerun of
        for run_id in run_ids:
            for table in ("runs", "epochs"):  # the record first: without it the run does not count
                gone += _delete(part_path(results, table, run_id))
                gone += _delete(aside_path(results, table, run_id))
            gone += _delete(results / "weights" / f"{run_id}.safetensors")
        for path in abandoned(results):
            gone += _delete(path)
    return gone


def _delete(path: Path) -> int:
    if not path.is_file():
        return 0
    path.unlink()
    return 1
