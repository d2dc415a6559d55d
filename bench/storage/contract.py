"""What every storage does, and what all of them share: names that stay inside, errors in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from bench.errors import one_line


class Found(NamedTuple):
    """What a listing says of a file: its size in bytes, and when it came (seconds since 1970)."""

    size: int
    modified: float | None


class Storage(Protocol):
    """Whole files by flat names with `/` inside, such as `checkpoints/0123456789ab/12.json`.

    Names are relative; no part of one is empty or begins with a dot (ValueError). All methods raise
    OSError, with one line that names the location, when it cannot be reached, read or written; of
    a bucket that is mute, reading says so within 15 seconds and writing within 40. Threads may
    share a storage.
    """

    location: str

    def put(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all, in the place of the one that has the name."""

    def get(self, name: str) -> bytes | None:
        """Returns what is in a file, None when there is none."""

    def listing(self, prefix: str = "") -> dict[str, Found]:
        """Returns all files in the folder `prefix` and below, sorted by name."""

    def names(self, prefix: str = "") -> list[str]:
        """Returns the names of `listing`."""

    def delete(self, name: str) -> None:
        """Deletes a file if it is there."""

    def clear(self, prefix: str) -> None:
        """Deletes a folder with all in it, also what writers that were killed left there."""


def checked(name: str) -> str:
    """Returns a name that stays inside its storage; ValueError for others."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(not p or p.startswith(".") for p in parts):
        raise ValueError(f"no name of a stored file: {name!r}")
    return name


def folder_of(prefix: str) -> str:
    """Returns a prefix without its last slash; ValueError as of `checked`."""
    return checked(prefix.removesuffix("/")) if prefix else ""


def hidden(name: str) -> bool:
    """Says whether a file is none of ours, such as one that is being written."""
    return any(part.startswith(".") for part in name.split("/"))


@contextlib.contextmanager
def told(location: str) -> Iterator[None]:
    """Turns whatever a driver raises into an OSError of one line that names the location."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.strerror:
            raise OSError(error.errno, f"{location}: {one_line(error.strerror, 200)}") from None
        raise OSError(f"{location}: {_cause(error)}") from None
    except ValueError:
        raise
    except Exception as error:  # each driver of fsspec has its own kinds
        raise OSError(f"{location}: {type(error).__name__}: {_cause(error)}") from None


def _cause(error: Exception) -> str:
    """Returns what went wrong, without what only a developer of the driver can use."""
    text = one_line(error, 2000)
    text = re.sub(r" ?\(Request ID: [^)]*\)| error_info=\{.*", "", text)
    aws = re.search(r"AWS Error .*", text)
    return one_line(aws[0] if aws else text, 300)
