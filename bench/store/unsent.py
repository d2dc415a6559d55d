"""What was written here and is not known to be in the bucket: sent, noted as equal, or too late.

Two files of one name are told apart by their bytes and by the bucket's own clock, never by that of
this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.storage import Found
from bench.store.index import Entry, Index, digest
from bench.store.threads import each
from bench.store.upload import Mirror, is_good, of_run, send, status_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TICK = 2.0
"""Seconds, more than the coarsest clock of a bucket: S3 tells whole ones."""
_RANKS = {"ok": 2, "diverged": 2, "stopped": 2, "lost": 0, None: -1}
States = dict[str, tuple[int, int]]


def states(folder: Path, parts: Iterable[str]) -> States:
    """Returns how the files of these parts are now, by name."""
    found = {}
    for part in parts:
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / part) as entries:
            for entry in entries:
                if NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        seen = entry.stat()
                        found[f"{part}/{entry.name}"] = seen.st_size, seen.st_mtime_ns
    return found


def unsent(index: Index, before: States) -> list[str]:
    """Returns the files that are not as they were last fetched or sent."""
    return [n for n, state in before.items() if n not in index or index[n].local != state]


def send_unsent(mirror: Mirror, before: States, there: Mapping[str, Found]) -> set[str]:
    """Sends what was written here and not sent; returns those names. OSError.

    Epochs and weights go with their record, and wait where it is not written.
    """
    index = mirror.index
    names = unsent(index, before)
    newest = newest_of(there)
    sent: set[str] = set()

    def decide(name: str) -> None:
        if not _is_to_be_sent(mirror, name, before[name], there.get(name), newest):
            return
        if name.startswith("runs/"):
            for part in of_run(name):  # another's may have come meanwhile, or not all of ours
                index.pop(part, None)
                sent.add(part)
        send(mirror, name)
        sent.add(name)

    each(decide, [n for n in names if n.startswith(("runs/", "grids/", "reports/"))])
    for name in names:
        record = f"runs/{Path(name).stem}.parquet"
        if name.startswith("weights/") and record not in sent and record in index:
            index.note(name, Entry(None, before[name], ""))  # of a record that is there, or older
    return sent


def _is_to_be_sent(
    mirror: Mirror, name: str, state: tuple[int, int], found: Found | None, newest: float
) -> bool:
    """Whether a file that looks unsent is newer than the bucket's; notes it if it is equal."""
    try:
        content = (mirror.folder / name).read_bytes()
    except FileNotFoundError:
        return False
    index, known = mirror.index, mirror.index.get(name)
    if not is_good(name, content):
        return False
    there = mirror.storage.get(name) if found is not None else None
    if found is None or there is None:
        return True
    if there == content:
        index.note(name, Entry(settled(found, newest), state, digest(content)))
        return False
    if known is not None and digest(there) == known.digest:
        return True  # the bucket's is the one that this one replaces
    if known is not None and digest(content) == known.digest:
        return False
    # Both are new. Of two records the better counts, of equals the one that others have read.
    return name.startswith("runs/") and _rank(name, content) > _rank(name, there)


def _rank(record: str, content: bytes) -> int:
    return _RANKS.get(status_of(record, content), 1)


def newest_of(there: Mapping[str, Found]) -> float:
    """Returns the latest time in a listing; the bucket's clock has thus reached it."""
    return max((found.modified or 0.0 for found in there.values()), default=0.0)


def settled(found: Found, newest: float) -> Found | None:
    """Returns a file's size and time if one that comes later will differ in them, else None."""
    if found.modified is None or found.modified > newest - _TICK:
        return None
    return found
