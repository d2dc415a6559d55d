"""Any other URL, by fsspec and the driver of its scheme."""

from __future__ import annotations

import contextlib
import datetime
import posixpath
import uuid
from typing import Any

from bench.errors import BadInput, one_line
from bench.storage.contract import Found, checked, folder_of, hidden, told


def open_url(location: str, scheme: str) -> ByFsspec:
    """Returns the folder that a URL names; BadInput for a scheme without a driver. OSError."""
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise BadInput(f"{location}: only fsspec reads this; pip install fsspec") from None
    if scheme not in fsspec.available_protocols():
        raise BadInput(f"{location}: no scheme of s3://, gs:// or of fsspec's drivers")
    try:
        with told(location):
            system, base = url_to_fs(location)
    except ValueError as error:
        raise BadInput(f"{location}: {one_line(error, 200)}") from None
    except OSError as error:
        if isinstance(error.__context__, ImportError):  # it says which package to install
            raise BadInput(str(error)) from None
        raise
    return ByFsspec(location, system, base)


class ByFsspec:
    """A Storage of one of fsspec's drivers: a put is as whole as the driver's own move."""

    def __init__(self, location: str, system: Any, base: str) -> None:
        self.location = location
        self._system = system
        self._base = base.rstrip("/") + "/"

    def put(self, name: str, content: bytes) -> None:
        path = self._base + checked(name)
        folder, last = posixpath.split(path)
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"
        with told(self.location):
            self._system.makedirs(folder, exist_ok=True)
            try:
                self._system.pipe_file(temporary, content)
                self._system.mv(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._system.rm_file(temporary)
                raise

    def get(self, name: str) -> bytes | None:
        path = self._base + checked(name)
        with told(self.location):
            try:
                return bytes(self._system.cat_file(path))
            except FileNotFoundError:
                return None

    def listing(self, prefix: str = "") -> dict[str, Found]:
        folder = self._base + folder_of(prefix)
        with told(self.location):
            self._system.invalidate_cache()
            try:
                entries = self._system.find(folder, detail=True)
            except FileNotFoundError:
                entries = {}
        found = {}
        for path, entry in entries.items():
            name = self._system._strip_protocol(path).removeprefix(self._base)
            if not hidden(name):
                found[name] = Found(int(entry.get("size") or 0), _modified(entry))
        return dict(sorted(found.items()))

    def names(self, prefix: str = "") -> list[str]:
        return list(self.listing(prefix))

    def delete(self, name: str) -> None:
        path = self._base + checked(name)
        with told(self.location), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(path)

    def clear(self, prefix: str) -> None:
        for name in self.names(prefix):
            self.delete(name)


def _modified(entry: dict[str, Any]) -> float | None:
    # Each driver has its own word for it.
    for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        when = entry.get(key)
        if isinstance(when, datetime.datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None
