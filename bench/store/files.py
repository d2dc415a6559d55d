"""Where records lie in a results folder: in files of their own, and in compacted ones."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from bench.errors import BadInput

COMPACTED = "compacted"
"""How a file of many runs begins, `compacted-<hash of its content>.parquet`; no run_id does.

Its runs and their epochs are a pair of one name, which is part of no other folder's files: folders
merge by copying files. The pair is there when its runs are.
"""
_SUFFIX = ".parquet"
_ASIDE = ".parquet.aside"
_SUBFOLDERS = ("runs", "epochs", "weights", "grids", "reports", "checkpoints", "claims")
_LARGEST_PART = 1 << 30
"""Bytes; a run of a million epochs has a tenth of it."""


def part_path(results: Path, table: str, name: str) -> Path:
    """Returns where the part-file of a run is, or a compacted file by its name."""
    return results / table / f"{name}{_SUFFIX}"


def aside_path(results: Path, table: str, run_id: str) -> Path:
    """Returns where `compact` lays a part-file aside until it has seen that it is in its file.

    While it lies there, it is read as the part-file would be.
    """
    return results / table / f".{run_id}{_ASIDE}"


def refuse_links(results: Path, names: Iterable[str] = _SUBFOLDERS) -> None:
    """Raises BadInput where a subfolder is a link: what is written there would land elsewhere.

    A folder of another's making may lead anywhere. The results folder itself is the user's word.
    """
    for name in names:
        path = results / name
        if path.is_symlink():
            raise BadInput(
                f"{shown(path)}: is a link, so this would write elsewhere; put a folder there, "
                "or make all of the results folder a link, which may be one"
            )


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
    except OSError as error:
        raise BadInput(f"{shown(folder)}: cannot be listed: {error.strerror or error}") from None


def open_file(path: Path) -> BinaryIO:
    """Opens a file to be read. OSError, also for what is no file: a pipe would wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.EINVAL, "is a link to nothing") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Is a directory" if folder else "is no file")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path) -> bytes:
    """Returns what is in a run's own file. OSError, also for what is no file, or far too large."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_PART:
            raise OSError(errno.EFBIG, "is too large for the record of one run")
        return file.read()


def shown(path: Path) -> str:
    """Returns a path as one printable line; whoever else writes to the folder names its files."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
