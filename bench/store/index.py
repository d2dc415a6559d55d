"""What a mirror knows of each file: how it was in the bucket, and how it was here, when last equal.

A line is added for each file that comes or goes, so a process may be killed at any moment: a line
that is missing, torn or damaged makes a file look as if it had not been sent, and it is compared
with the bucket's.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench.storage import Found, write_atomically


class Entry(NamedTuple):
    """A file as it was when it was equal here and in the bucket.

    `remote`: size and time by the bucket's own listing; None where no listing has told yet, or one
    that was too close to the file's own time to tell it from one that came a moment later.
    """

    remote: Found | None
    local: tuple[int, int]
    digest: str


def digest(content: bytes) -> str:
    """Returns what stands for a file's content in an entry."""
    return hashlib.sha256(content).hexdigest()[:32]


def local_state(path: Path) -> tuple[int, int] | None:
    """Returns a file's size and time of change (ns), None when it is not there."""
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen.st_size, seen.st_mtime_ns


class Index(dict[str, Entry]):
    """Entries by name, in a file of JSON lines that drivers of one machine share."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()

    def load(self) -> None:
        """Reads the file; lines that are none are left out. OSError."""
        with self._lock:
            self._load()

    def note(self, name: str, entry: Entry) -> None:
        """Adds a file that is now equal here and there. OSError."""
        with self._lock:
            self[name] = entry
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(name, entry))

    def save(self, names: Iterable[str]) -> None:
        """Writes the file anew with the entries of these names, others' lines too. OSError."""
        with self._lock:
            self._load()
            for name in self.keys() - set(names):
                del self[name]
            write_atomically(self._path, "".join(_line(*item) for item in self.items()).encode())

    def _load(self) -> None:
        self.clear()
        lines = self._path.read_text("utf-8", "replace").splitlines() if self._path.exists() else []
        for line in lines:
            if found := _entry(line):
                self[found[0]] = found[1]


def _line(name: str, entry: Entry) -> str:
    return json.dumps([name, *entry]) + "\n"


def _entry(line: str) -> tuple[str, Entry] | None:
    """Returns what a line says, None if it is none of ours."""
    try:
        name, remote, local, found = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(name, str) and isinstance(found, str) and _are(local, int, int)):
        return None
    if remote is not None and not _are(remote, int, float | int | None):
        return None
    return name, Entry(None if remote is None else Found(*remote), (local[0], local[1]), found)


def _are(values: Any, *kinds: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(kinds)
        and all(isinstance(v, kind) for v, kind in zip(values, kinds, strict=True))
    )
