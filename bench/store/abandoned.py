"""What writers that were killed left in a results folder, and nobody needs any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from bench.checkpoint import kept
from bench.errors import BadInput
from bench.storage import open_storage
from bench.storage.atomic import is_held
from bench.store.files import compacted_names, own_files, part_path
from bench.store.folded import read_compacted
from bench.store.grids import grid_names, load_grid
from bench.store.read import statuses
from bench.store.schema import FINAL

ABANDONED_SECONDS = 3600


def abandoned(results: Path) -> Iterator[Path]:
    """Yields the files that may be deleted: for an hour nobody has touched them."""
    paths = unpaired(results) + _without_record(results)
    for folder in ("runs", "epochs", "weights", "grids", "reports"):
        paths += (results / folder).glob(".*.tmp")
    for run_id in _no_more_resumed(results):
        paths += (results / "checkpoints" / run_id).iterdir()
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


def _no_more_resumed(results: Path) -> list[str]:
    """Returns the trials with checkpoints that have a record, or that no grid wants any more."""
    there = kept(open_storage(str(results)))
    recorded = statuses(results, there)
    try:
        wanted = {
            entry["run_id"]
            for name in grid_names(results)
            for entry in load_grid(results, name)["wanted"]
        }
    except BadInput:  # a grid that cannot be read may want any
        wanted = there
    return sorted(r for r in there if r not in wanted or recorded.get(r) in FINAL)


def _is_old(path: Path) -> bool:
    """Whether nobody writes a file any more. FileNotFoundError.

    A clock that jumps ahead makes every file old, so a writer also holds the file that it writes.
    """
    there = path.stat()
    changed = max(there.st_mtime, there.st_ctime)  # a copy may have the first of its original
    return time.time() - changed > ABANDONED_SECONDS and not is_held(path)
