"""A folder, of this machine or of all nodes: a file appears whole, by a rename."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from bench.storage.atomic import write_atomically
from bench.storage.contract import Found, checked, folder_of, hidden, told


class Folder:
    """A Storage in a folder, which is made with the first file."""

    def __init__(self, location: str, folder: Path) -> None:
        self.location = location
        self._folder = folder

    def put(self, name: str, content: bytes) -> None:
        path = self._folder / checked(name)
        with told(self.location):
            for attempt in (1, 2):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    return write_atomically(path, content)
                except FileNotFoundError:  # a delete took the folder away, which was empty
                    if attempt == 2:
                        raise

    def get(self, name: str) -> bytes | None:
        path = self._folder / checked(name)
        with told(self.location):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def listing(self, prefix: str = "") -> dict[str, Found]:
        found = {}
        with told(self.location):
            for path in (self._folder / folder_of(prefix)).rglob("*"):
                name = path.relative_to(self._folder).as_posix()
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    if not hidden(name) and path.is_file():
                        seen = path.stat()
                        found[name] = Found(seen.st_size, seen.st_mtime)
        return dict(sorted(found.items()))

    def names(self, prefix: str = "") -> list[str]:
        return list(self.listing(prefix))

    def delete(self, name: str) -> None:
        path = self._folder / checked(name)
        with told(self.location):
            path.unlink(missing_ok=True)
        if path.parent != self._folder:
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()

    def clear(self, prefix: str) -> None:
        with told(self.location), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder / folder_of(prefix))
