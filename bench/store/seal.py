"""A seal: SHA-256 over all bytes of a file, kept in its own footer, so that no flipped bit passes.

Parquet notices damage to its structure. A bit that flips among the values is another number, and
its own checksums, of pages, leave out the footer, whose statistics say where a run is looked for.
A seal is an entry of the file's metadata, which other tools read over. It is hashed as zeros and
written into their place; files from before there were seals have none and are read as they are.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import BinaryIO

from bench.store.files import open_file

DAMAGED = "does not match its checksum: it was damaged after it was written"
_KEY = "bench.sha256"
_ZEROS = b"0" * 64
_BEFORE = b"\x18\x0c" + _KEY.encode() + b"\x18\x40"
"""What stands before the digest: Thrift's compact protocol marks and measures both strings."""
_TAIL = 1 << 16
"""The seal is among the last bytes: only the schema, which does not grow with rows, follows it."""
_BLOCK = 1 << 20
_SETTLED_SECONDS = 2.0
"""The coarsest clock of a file system; two writes within its tick look like one."""
_whole: set[tuple[int, ...]] = set()

EMPTY = {_KEY: _ZEROS.decode()}
"""Metadata that makes room for a seal in a file that is being written."""


def sealed(content: bytes) -> bytes:
    """Returns a file's bytes, written with `EMPTY` metadata, with their seal."""
    place = _place(content)
    if place is None:
        raise ValueError("no room for a seal")
    digest = _digest(content, place)
    return content[:place] + digest + content[place + len(digest) :]


def seal(file: BinaryIO) -> str:
    """Seals an open file that was written with `EMPTY` metadata; returns the digest. OSError."""
    found = _of_file(file)
    if found is None:
        raise ValueError("no room for a seal")
    place, digest = found
    file.seek(place)
    file.write(digest)
    file.flush()
    return digest.decode()


def is_whole(content: bytes) -> bool:
    """Whether a file's bytes match their seal, or have none."""
    place = _place(content)
    return place is None or content[place : place + len(_ZEROS)] == _digest(content, place)


def is_whole_file(path: Path) -> bool:
    """Whether a file matches its seal, or has none. OSError.

    It is read in blocks, and remembered for as long as the process lives and the file is the same.
    """
    with open_file(path) as file:
        now = os.fstat(file.fileno())
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if key in _whole:
            return True
        found = _of_file(file)
        if found is not None:
            place, digest = found
            file.seek(place)
            if file.read(len(digest)) != digest:
                return False
    if abs(time.time() - now.st_ctime) > _SETTLED_SECONDS:
        _whole.add(key)
    return True


def _place(content: bytes) -> int | None:
    """Returns where the digest stands, None where there is no seal."""
    before = content.rfind(_BEFORE, max(0, len(content) - _TAIL))
    place = before + len(_BEFORE)
    return None if before < 0 or place + len(_ZEROS) > len(content) else place


def _digest(content: bytes, place: int) -> bytes:
    view = memoryview(content)
    found = hashlib.sha256(view[:place])
    found.update(_ZEROS)
    found.update(view[place + len(_ZEROS) :])
    return found.hexdigest().encode()


def _of_file(file: BinaryIO) -> tuple[int, bytes] | None:
    """Returns where the seal is in an open file and what it should be; None if there is none."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL)
    file.seek(start)
    within = _place(file.read(_TAIL))
    if within is None:
        return None
    place, found = start + within, hashlib.sha256()
    file.seek(0)
    for end, zeros in ((place, _ZEROS), (size, b"")):
        while (left := end - file.tell()) > 0:
            block = file.read(min(left, _BLOCK))
            if not block:
                raise OSError("became shorter while it was read")
            found.update(block)
        file.seek(len(zeros), os.SEEK_CUR)
        found.update(zeros)
    return place, found.hexdigest().encode()
