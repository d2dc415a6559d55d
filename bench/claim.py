"""Who runs what in a results folder: two drivers never run one trial at the same time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.store import StoreError, write_atomically

_LOOK = 0.5
"""Seconds between looks at whether the other driver has ended."""
_BRIEFLY, _PATIENCE = 0.05, 5.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def claim(
    results: Path,
    run_ids: list[str],
    tell: Callable[[str], None],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Waits until no other driver of the folder runs one of these trials, and then claims them.

    Yields whether it waited: then some of them may have records now. A claim is a lock that the
    system lets go when its process is gone, however it went; trials of a killed driver may run for
    some seconds more, but nobody takes their records. Where the file system knows no locks,
    `tell` is told, once, and the claim is only a hope. Raises StoreError when the folder cannot be
    written, and KeyboardInterrupt once `stopping` says so while it waits.
    """
    folder = results / "claims"
    wanted, waited = set(run_ids), False
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = _lock(folder / f"{name}.lock")
        while True:
            with _looking(folder / "claims.lock", tell, stopping):
                holder = _holder(folder, wanted, name)
                if holder is None:
                    own.acquire()
                    content = {"run_ids": run_ids, "host": socket.gethostname(), "pid": os.getpid()}
                    write_atomically(folder / f"{name}.json", json.dumps(content).encode())
                    break
            if not waited:
                waited = True
                tell(
                    f"{results}: trials of this grid are run by process {holder['pid']} on "
                    f"{holder['host']} now; waiting for its end"
                )
            if stopping():
                raise KeyboardInterrupt
            time.sleep(_LOOK)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            tell(f"{results}: no locks there; see to it that no other driver runs these trials")
            yield waited
            return
        raise StoreError(
            f"--results {results}: cannot be written: {error.strerror or error}; "
            "choose another folder or make room"
        ) from None
    try:
        yield waited
    finally:
        with contextlib.suppress(OSError):
            (folder / f"{name}.json").unlink(missing_ok=True)
            own.release()
            (folder / f"{name}.lock").unlink(missing_ok=True)


def _lock(path: Path) -> FileLock:
    # Where there are no locks, a file that is itself one would stay behind whoever is killed.
    return FileLock(path, timeout=0, fallback_to_soft=False)


@contextlib.contextmanager
def _looking(
    path: Path, tell: Callable[[str], None], stopping: Callable[[], bool]
) -> Iterator[None]:
    """Holds the lock under which claims are looked at and written, which takes milliseconds."""
    lock, since, told = _lock(path), time.monotonic(), False
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            pass
        if stopping():
            raise KeyboardInterrupt
        if not told and time.monotonic() - since > _PATIENCE:
            told = True
            tell(f"{path}: held by another process for {_PATIENCE:g} s now; waiting for it")
        time.sleep(_BRIEFLY)
    try:
        yield
    finally:
        lock.release()


def _holder(folder: Path, wanted: set[str], own: str) -> dict[str, Any] | None:
    """Returns the claim of a living driver on one of these trials; removes those of dead ones."""
    for path in sorted(folder.glob("*.json")):
        if path.stem == own:
            continue
        lock = path.with_suffix(".lock")
        try:
            with _lock(lock):
                path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            continue  # nobody held it
        except Timeout:
            pass
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            claimed: dict[str, Any] = json.loads(path.read_bytes())
            if not wanted.isdisjoint(claimed["run_ids"]):
                return claimed | {"pid": claimed["pid"], "host": claimed["host"]}
    return None
