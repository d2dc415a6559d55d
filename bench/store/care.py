"""Looking after a results folder: check, merge, orphans, prune."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

from bench.errors import BadInput
from bench.plugins import Registry
from bench.store.parts import part_files, prepare, read_part, write_atomically
from bench.store.schema import FINAL, RESULT_COLUMNS

ABANDONED_SECONDS = 3600


def check(results: Path) -> list[str]:
    """Returns a line for each thing that is wrong in a results folder."""
    problems = []
    for table in ("runs", "epochs"):
        for path in part_files(results, table):
            _, problem = read_part(path, table)
            if problem:
                problems.append(problem)
    runs = {p.stem for p in part_files(results, "runs")}
    for path in part_files(results, "epochs"):
        if path.stem not in runs:
            problems.append(f"{path}: epochs of a run that has no record")
    return problems


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns a run's record, None when its file cannot be read."""
    part, _ = read_part(path, "runs")
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
    for each run whose two final records differ, or whose file cannot be read.
    """
    for source in sources:
        if not (source / "runs").is_dir():
            raise BadInput(f"{source}: no results folder; it has no runs/")
        if source.resolve() == results.resolve():
            raise BadInput(f"{source}: cannot be merged into itself")
    prepare(results)
    count, remarks = 0, []
    for source in sources:
        for path in part_files(source, "runs"):
            theirs = read_record(path)
            if theirs is None:
                remarks.append(read_part(path, "runs")[1] or f"{path}: unreadable")
                continue
            ours = read_record(results / "runs" / path.name)
            if ours is not None and ours["status"] in FINAL:
                names = differing(ours, theirs) if theirs["status"] in FINAL else []
                if names:
                    remarks.append(f"{path}: differs from the record kept in {', '.join(names)}")
                continue
            if ours is not None and theirs["status"] not in FINAL:
                continue
            for table in ("weights", "epochs", "runs"):  # the record last: it makes the run count
                name = f"{path.stem}.{'safetensors' if table == 'weights' else 'parquet'}"
                if (source / table / name).is_file():
                    (results / table).mkdir(exist_ok=True)
                    write_atomically(results / table / name, (source / table / name).read_bytes())
            count += 1
        for path in sorted((source / "grids").glob("*.json")):
            if not (results / "grids" / path.name).exists():
                shutil.copyfile(path, results / "grids" / path.name)
    return count, remarks


def orphans(results: Path, registry: Registry) -> list[tuple[str, str]]:
    """Returns (run_id, why) of the runs whose plugin source is no longer in the tree.

    Runs of plugins from a folder that is not in `registry` are left alone: nobody looked there.
    """
    origins = {"tree"} | {p.origin for found in registry.values() for p in found.values()}
    hashes = {
        kind: {p.name: p.hash for p in plugins.values()} for kind, plugins in registry.items()
    }
    found = []
    for path in part_files(results, "runs"):
        record = read_record(path)
        if record is None or not set(record["plugin_origin"].split(", ")) <= origins:
            continue
        for kind in ("cell", "regularizer"):
            names = [part.split(":")[0] for part in record[kind].split("+")]
            now = "+".join(hashes[kind].get(name, "gone") for name in sorted(names))
            if now != record[f"{kind}_source"]:
                why = "is gone" if "gone" in now.split("+") else "has changed"
                found.append((record["run_id"], f"{kind} {record[kind]} {why}"))
                break
    return found


def prune(results: Path, run_ids: list[str]) -> int:
    """Deletes these runs and what writers that were killed left behind; returns the files gone."""
    gone = 0
    for run_id in run_ids:
        for table in ("runs", "epochs"):  # the record first: without it the run does not count
            gone += _delete(results / table / f"{run_id}.parquet")
        gone += _delete(results / "weights" / f"{run_id}.safetensors")
    for folder in ("runs", "epochs", "weights", "grids", "reports"):
        for path in (results / folder).glob(".*.tmp"):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:  # else its writer may live
                gone += _delete(path)
    return gone


def _delete(path: Path) -> int:
    if not path.is_file():
        return 0
    path.unlink()
    return 1
