"""From what a user writes, a folder or a URL, to its storage."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from bench.errors import BadInput, one_line
from bench.storage.bucket import open_bucket
from bench.storage.by_fsspec import open_url
from bench.storage.contract import Storage
from bench.storage.folder import Folder

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


def is_remote(location: str) -> bool:
    """Says whether a location is a URL, and no folder that this machine can open."""
    return "://" in location and not location.lower().startswith("file://")


def local_path(location: str) -> Path:
    """Returns the folder that a location which is no URL of a remote one's names."""
    if location.lower().startswith("file://"):
        rest = location[len("file://") :].removeprefix("localhost")
        return Path("/", urllib.parse.unquote(rest))
    try:
        return Path(location).expanduser()
    except RuntimeError:  # an unknown ~user
        raise BadInput(f"{location}: no such user has a home here; write a path") from None


def open_storage(location: str) -> Storage:
    """Returns the storage at a folder or URL; BadInput for what is neither.

    It is not looked at yet, but a driver may: OSError when that fails.
    """
    if not location or not location.isprintable():
        raise BadInput(f"{one_line(location, 80)!r}: neither a folder nor a URL")
    if found := re.match(r"(s3a?|gs|gcs|file):(?!//)", location):
        raise BadInput(f"{location}: a URL begins with {found[1]}://")
    if re.search(r"://[^/?]*:[^/?]*@", location):
        raise BadInput("SCHEME://…:…@…: a password in a URL would be recorded; use variables")
    if not is_remote(location):
        return Folder(location, local_path(location).absolute())
    found = _URL.fullmatch(location)
    if not found:
        raise BadInput(f"{location}: not a URL; write SCHEME://…")
    scheme, rest = found[1].lower(), found[2]
    if scheme in _BUCKETS:
        return open_bucket(location, _BUCKETS[scheme], rest)
    return open_url(location, scheme)
