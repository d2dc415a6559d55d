"""What writers that were killed left in a results folder, and nobody needs any more."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from bench.checkpoint import NAME
from bench.errors import BadInput
from bench.storage.atomic import is_held
from bench.store.files import aside_path, compacted_names, own_files, part_path
from bench.store.folded import read_compacted
from bench.store.grids import grid_names, load_grid
from bench.store.read import statuses
from bench.store.schema import FINAL

ABANDONED_SECONDS = 3600
_RUN_ID = re.compile(r"[0-9a-f]{12}")
_TEMPORARY = ".*.tmp"


def abandoned(results: Path) -> Iterator[Path]:
    """Yields the files that may be deleted: for an hour nobody has touched them."""
    paths = unpaired(results) + _without_record(results)
    for name in ("runs", "epochs", "weights", "grids", "reports"):
        folder = results / name
        paths += [] if folder.is_symlink() else folder.glob(_TEMPORARY)
    paths += _no_more_resumed(results)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its writer lives, and was quicker
            if _is_old(path):
                yield path


def unpaired(results: Path) -> list[Path]:
    """Returns the compacted epochs whose runs were never published."""
    names = compacted_names(results, "epochs")
    there = compacted_names(results)
    return [part_path(results, "epochs", name) for name in names if name not in there]


def _without_record(results: Path) -> list[Path]:
    """Returns the epochs of reruns that were killed before their record; the older one counts."""
    own = {*own_files(results, "epochs")} - {*own_files(results, "runs")}
    folded, _ = read_compacted(results, "runs", own, columns=("run_id",))
    paths = [part_path(results, "epochs", run_id) for run_id in folded["run_id"].to_pylist()]
    return [path for path in paths if path.exists()]


def _no_more_resumed(results: Path) -> list[Path]:
    """Returns the checkpoints of trials that have a record, or that no grid wants any more.

    One that is younger than its trial's record is of a rerun that was interrupted, and stays.
    """
    there = {folder.name: folder for folder in _folders(results / "checkpoints")}
    recorded = statuses(results, there)
    try:
        wanted = {
            entry["run_id"]
            for name in grid_names(results)
            for entry in load_grid(results, name)["wanted"]
        }
    except BadInput:  # a grid that cannot be read may want any
        wanted = {*there}
    found = []
    for run_id, folder in sorted(there.items()):
        if recorded.get(run_id) in FINAL:
            since = _recorded_at(results, run_id)
            found += [path for path in _checkpoints(folder) if _changed(path) <= since]
        elif run_id not in wanted:
            found += _checkpoints(folder)
    return found


def _folders(checkpoints: Path) -> list[Path]:
    """Returns the folders of trials. What a link leads to, or has another name, is not ours."""
    if checkpoints.is_symlink() or not checkpoints.is_dir():
        return []
    folders = (path for path in checkpoints.iterdir() if _RUN_ID.fullmatch(path.name))
    return [path for path in folders if path.is_dir() and not path.is_symlink()]


def _checkpoints(folder: Path) -> list[Path]:
    """Returns the files of a folder that are checkpoints by name, and those half written."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:  # its trial ended at this moment
        return []
    paths = [folder / name for name in names]
    return [path for path in paths if NAME.fullmatch(path.name) or path.match(_TEMPORARY)]


def _recorded_at(results: Path, run_id: str) -> float:
    """Returns when a run's record was written; of one that is compacted, no moment before it."""
    own = [path(results, "runs", run_id) for path in (part_path, aside_path)]
    files = [path for path in own if path.exists()]
    files = files or [part_path(results, "runs", name) for name in compacted_names(results)]
    return max(map(_changed, files), default=0.0)


def _changed(path: Path) -> float:
    """Returns when a file's content was written; 0 if it is not there any more."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_old(path: Path) -> bool:
    """Whether nobody writes a file any more. FileNotFoundError.

    A clock that jumps ahead makes every file old, so a writer also holds the file that it writes.
    """
    there = path.stat()
    changed = max(there.st_mtime, there.st_ctime)  # a copy may have the first of its original
    return time.time() - changed > ABANDONED_SECONDS and not is_held(path)
