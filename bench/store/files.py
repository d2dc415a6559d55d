"""Where records lie in a results folder: in files of their own, and in compacted ones."""

from __future__ import annotations

import os
from pathlib import Path

COMPACTED = "compacted"
"""How a file of many runs begins, `compacted-<hash of its content>.parquet`; no run_id does.

Its runs and their epochs are a pair of one name, which is part of no other folder's files: folders
merge by copying files. The pair is there when its runs are.
"""
_SUFFIX = ".parquet"
_ASIDE = ".parquet.aside"


def part_path(results: Path, table: str, name: str) -> Path:
    """Returns where the part-file of a run is, or a compacted file by its name."""
    return results / table / f"{name}{_SUFFIX}"


def aside_path(results: Path, table: str, run_id: str) -> Path:
    """Returns where `compact` lays a part-file aside until it has seen that it is in its file.

    While it lies there, it is read as the part-file would be.
    """
    return results / table / f".{run_id}{_ASIDE}"


def own_files(results: Path, table: str) -> list[str]:
    """Returns the run_ids that have a file of their own, sorted; temporary files are none."""
    found = set()
    for name in _names(results / table):
        if name.startswith("."):
            if name.endswith(_ASIDE):
                found.add(name[1 : -len(_ASIDE)])
        elif name.endswith(_SUFFIX) and not name.startswith(COMPACTED):
            found.add(name.removesuffix(_SUFFIX))
    return sorted(found)


def compacted_names(results: Path, table: str = "runs") -> list[str]:
    """Returns the names of the compacted files, sorted."""
    names = _names(results / table)
    return sorted(
        name.removesuffix(_SUFFIX)
        for name in names
        if name.startswith(COMPACTED) and name.endswith(_SUFFIX)
    )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - 100,000 names, and no Path for each
    except (FileNotFoundError, NotADirectoryError):
        return []
