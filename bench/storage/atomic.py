"""Files that are whole or not there, and are known to be under way while they are written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, meets the old one or the new one. OSError."""
    with staged(path, content) as name_it:
        name_it()


@contextlib.contextmanager
def staged(path: Path, content: bytes) -> Iterator[Callable[[], None]]:
    """Writes a file beside its place, whole and to the disk; yields what names it. OSError.

    Without its name it is removed again.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("w+b") as file:
            hold(file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            for start in range(0, len(content), _BLOCK):
                if file.read(_BLOCK) != content[start : start + _BLOCK]:
                    raise OSError(f"{temporary} did not arrive whole")
            yield lambda: publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def hold(file: BinaryIO) -> None:
    """Marks a file as written by a process that lives, for `prune`, which trusts no clock alone."""
    with contextlib.suppress(OSError):  # a file system without locks has its times alone
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Whether a living process is writing this file, as far as its file system can tell."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def publish(temporary: Path, path: Path) -> None:
    """Gives a whole file its name, in the place of the file that has it. OSError."""
    os.replace(temporary, path)  # noqa: PTH105 - the atomic step, by its own name
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power cut
    finally:
        os.close(folder)
