"""Where records lie in a results folder: in files of their own, and in the compacted ones."""

from __future__ import annotations

import os
from pathlib import Path

COMPACTED = "compacted.parquet"
"""The file of all runs that were folded, one per table; it looks like no run_id."""
_ASIDE = ".parquet.aside"


def part_path(results: Path, table: str, run_id: str) -> Path:
    """Returns where a run's part-file is."""
    return results / table / f"{run_id}.parquet"


def aside_path(results: Path, table: str, run_id: str) -> Path:
    """Returns where `compact` lays a part-file aside until it has seen that it is in its file.

    While it lies there, it is read as the part-file would be.
    """
    return results / table / f".{run_id}{_ASIDE}"


def own_files(results: Path, table: str) -> list[str]:
    """Returns the run_ids that have a file of their own, sorted; temporary files are none."""
    try:
        names = os.listdir(results / table)  # noqa: PTH208 - 100,000 names, and no Path for each
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = set()
    for name in names:
        if name.startswith("."):
            if name.endswith(_ASIDE):
                found.add(name[1 : -len(_ASIDE)])
        elif name.endswith(".parquet") and name != COMPACTED:
            found.add(name.removesuffix(".parquet"))
    return sorted(found)
