"""What a mirror knows of each file: how it was in the bucket, and how it was here, when last equal.

A line is added for each file that comes or goes, so a process may be killed at any moment: a line
that is missing or torn makes a file look as if it had not been sent, and it is sent once more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.storage import Found, write_atomically

CLOCKS = 60.0
"""Seconds by which a server's clock may differ from ours."""


class Entry(NamedTuple):
    """`remote` is None where the bucket's file was too young to tell it from one a moment later.

    `sent`: the time in `remote` is ours, of when the file was sent, and not the bucket's.
    """

    remote: Found | None
    local: tuple[int, int] | None
    sent: bool = False

    def is_of(self, found: Found) -> bool:
        """Says whether the bucket's file is still the one that was fetched or sent."""
        if self.remote is None or self.remote.size != found.size:
            return False
        if self.remote.modified is None or found.modified is None:
            return False
        return abs(self.remote.modified - found.modified) <= (CLOCKS if self.sent else 0)


def local_state(path: Path) -> tuple[int, int] | None:
    """Returns a file's size and time of change (ns), None when it is not there."""
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen.st_size, seen.st_mtime_ns


class Index(dict[str, Entry]):
    """Entries by name, in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._lock = threading.Lock()

    def load(self) -> None:
        """Reads the file; lines that are none are left out."""
        self.clear()
        lines = self._path.read_text("utf-8", "replace").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                name, remote, local, sent = json.loads(line)
                entry = Entry(Found(*remote) if remote else None, (local[0], local[1]), bool(sent))
            except (ValueError, TypeError, IndexError):
                continue
            self[str(name)] = entry

    def note(self, name: str, entry: Entry) -> None:
        """Adds a file that is now equal here and there. OSError."""
        with self._lock:
            self[name] = entry
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(name, entry))

    def save(self, names: Iterable[str]) -> None:
        """Writes the file anew with the entries of these names. OSError."""
        with self._lock:
            for name in self.keys() - set(names):
                del self[name]
            write_atomically(self._path, "".join(_line(*item) for item in self.items()).encode())


def _line(name: str, entry: Entry) -> str:
    return json.dumps([name, *entry]) + "\n"
