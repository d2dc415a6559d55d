"""Sends what a driver writes to the bucket, beside the training, and tries again for as long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from bench.storage import Storage
from bench.store.index import Entry, Index, digest, local_state
from bench.store.rows import parse_part
from bench.store.schema import FINAL
from bench.store.seal import is_whole
from bench.store.threads import leave, start

log = logging.getLogger(__name__)

_LONGEST = 60.0
"""Seconds between attempts, at most; the first are a second apart."""
_PATIENCE = (2.0, 1.0)
"""Seconds after a Ctrl-C for all that waits to be sent, and then for the file under way."""
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Mirror:
    """A local folder, the bucket that it mirrors, and which weights that holds."""

    storage: Storage
    folder: Path
    index: Index
    weights: set[str]


def of_run(record: str) -> tuple[str, str]:
    """Returns the names of the weights and epochs that belong to a record's name."""
    stem = record.removeprefix("runs/").removesuffix(".parquet")
    return f"weights/{stem}.safetensors", f"epochs/{stem}.parquet"


def is_good(name: str, content: bytes) -> bool:
    """Whether bytes can be what a writer wrote under this name: a table's are whole, and sealed."""
    if not name.startswith(("runs/", "epochs/")):
        return True
    return content[:4] == content[-4:] == _PARQUET and is_whole(content)


def status_of(record: str, content: bytes) -> str | None:
    """Returns the status in a record's bytes; None if it has none that can be read."""
    part, _ = parse_part(content, Path(record), "runs", ("status",))
    return None if part is None else part["status"][0].as_py()


def send(mirror: Mirror, name: str) -> None:
    """Sends a file as it is now unless it is known to be there; OSError.

    With a record go its weights and epochs, before it, so that it counts when all is there. A
    record that is not final is not sent over a final one, and nothing of its run is. Weights in the
    bucket are deleted where the record that is known to be there is replaced by one without.
    """
    if not name.startswith("runs/"):
        _put(mirror, name)
        return
    found = _read(mirror, name)
    known = mirror.index.get(name)
    if found is None or (known is not None and known.local == found[0]):
        return
    content = found[1]
    weights, epochs = of_run(name)
    status = status_of(name, content)
    if status is not None and status not in FINAL:
        there = mirror.storage.get(name)
        if there is not None and status_of(name, there) in FINAL:
            for part in (weights, epochs, name):  # noted as not known there: it will be fetched
                if own := _read(mirror, part):
                    mirror.index.note(part, Entry(None, own[0], digest(own[1])))
            return
    replaces = known is not None and known.digest != digest(content)
    if local_state(mirror.folder / weights) is not None:
        _put(mirror, weights)
    elif weights in mirror.weights and replaces:
        mirror.storage.delete(weights)
        mirror.weights.discard(weights)
    _put(mirror, epochs)
    _put(mirror, name, found)


def _put(mirror: Mirror, name: str, found: tuple[tuple[int, int], bytes] | None = None) -> None:
    known = mirror.index.get(name)
    if found is None:
        if known is not None and known.local == local_state(mirror.folder / name):
            return
        found = _read(mirror, name)
    if found is None or not is_good(name, found[1]):
        return
    state, content = found
    mirror.storage.put(name, content)
    if name.startswith("weights/"):
        mirror.weights.add(name)
    mirror.index.note(name, Entry(None, state, digest(content)))


def _read(mirror: Mirror, name: str) -> tuple[tuple[int, int], bytes] | None:
    state = local_state(mirror.folder / name)  # first: what is written meanwhile must look unsent
    if state is None:
        return None
    try:
        return state, (mirror.folder / name).read_bytes()
    except FileNotFoundError:
        return None


class Uploads:
    """A thread that sends files in the order in which they were added.

    A bucket out of reach costs no trial: the thread tries until it is there again, and what it has
    not sent by the end is in the folder. `trouble` says what the last failed attempt met, and is
    empty after one that went well; `left` are the names that were given up.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._queue: SimpleQueue[list[str] | None] = SimpleQueue()
        self._ending = threading.Event()
        self._dropped = False
        self._thread: threading.Thread | None = None
        self.trouble = ""
        self.left: list[str] = []

    def add(self, names: Iterable[str]) -> None:
        """Hands over names of files; returns at once."""
        if self._thread is None:
            self._thread = start(self._work, "uploads")
        self._queue.put(list(names))

    def close(self) -> None:
        """Waits until all is sent; where the last attempt failed, for one more attempt at most."""
        if self._thread is not None:
            self._ending.set()
            self._queue.put(None)
            self._thread.join()

    def drop(self) -> None:
        """After a Ctrl-C: waits three seconds at most; what is not sent then is in the folder."""
        leave()
        if self._thread is not None:
            self._ending.set()
            self._queue.put(None)
            self._thread.join(_PATIENCE[0])
            self._dropped = True
            self._thread.join(_PATIENCE[1])

    def _work(self) -> None:
        while (names := self._queue.get()) is not None:
            pause = 1.0
            while not self._sent(names):
                if self._ending.wait(pause):
                    self.left += names
                    break
                pause = min(2 * pause, _LONGEST)

    def _sent(self, names: list[str]) -> bool:
        if self._dropped or (self._ending.is_set() and self.trouble):
            return False
        try:
            for name in names:
                send(self._mirror, name)
        except OSError as error:
            said = error.strerror or str(error)
            if not self.trouble:
                log.warning("%s; what is not sent waits in %s", said, self._mirror.folder)
            self.trouble = said
            return False
        self.trouble = ""
        return True
