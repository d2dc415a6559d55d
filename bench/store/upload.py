"""Sends what a driver writes to the bucket, beside the training, and tries again for as long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue

from bench.storage import Found, Storage
from bench.store.index import Entry, Index, local_state

log = logging.getLogger(__name__)

_LONGEST = 60.0
"""Seconds between attempts, at most; the first are a second apart."""


def with_runs(names: Iterable[str]) -> list[str]:
    """Returns names with those of the epochs and weights before each record's."""
    found: dict[str, None] = {}
    for name in names:
        part, _, rest = name.partition("/")
        if part == "runs":
            found[f"weights/{rest.removesuffix('.parquet')}.safetensors"] = None
            found[f"epochs/{rest}"] = None
        found[name] = None
    return list(found)


def send(storage: Storage, folder: Path, index: Index, weights: set[str], name: str) -> None:
    """Sends a file as it is now; OSError. Weights that a rerun did not keep are deleted there.

    `weights`: those that the bucket holds.
    """
    state = local_state(folder / name)  # first: what is written meanwhile must look unsent
    if state is None:
        if name in weights:
            storage.delete(name)
            weights.discard(name)
        return
    if name in index and index[name].local == state:
        return
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        return
    storage.put(name, content)
    now = time.time()
    if name.startswith("weights/"):
        weights.add(name)
    index.note(name, Entry(Found(len(content), now), state, sent=True))


class Uploads:
    """A thread that sends files in the order in which they were added.

    A bucket out of reach costs no trial: the thread tries until it is there again, and what it has
    not sent by the end is in the folder. `trouble` says what the last failed attempt met, and is
    empty after one that went well; `left` are the names that were given up.
    """

    def __init__(self, storage: Storage, folder: Path, index: Index, weights: set[str]) -> None:
        self._to = (storage, folder, index, weights)
        self._queue: SimpleQueue[list[str] | None] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="uploads")
        self._started = False
        self.trouble = ""
        self.left: list[str] = []

    def add(self, names: Iterable[str]) -> None:
        """Hands over names of files; returns at once."""
        if not self._started:
            self._thread.start()
            self._started = True
        self._queue.put(list(names))

    def close(self) -> None:
        """Waits until all is sent; where the last attempt failed, for one more attempt at most."""
        if self._started:
            self._ending.set()
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (names := self._queue.get()) is not None:
            pause = 1.0
            while not self._sent(names):
                if self._ending.wait(pause):
                    self.left += names
                    break
                pause = min(2 * pause, _LONGEST)

    def _sent(self, names: list[str]) -> bool:
        if self._ending.is_set() and self.trouble:
            return False
        try:
            for name in names:
                send(*self._to, name)
        except OSError as error:
            said = error.strerror or str(error)
            if not self.trouble:
                log.warning("%s; what is not sent waits in %s", said, self._to[1])
            self.trouble = said
            return False
        self.trouble = ""
        return True
