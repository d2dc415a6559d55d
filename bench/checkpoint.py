"""Checkpoints: where a trial stands, in files that are whole or not there. Tensors and JSON alone.

A file holds tensors (safetensors) with the numbers as JSON in its header, and its name a hash of
all its bytes: one that is torn, or damaged since, is not believed, and the one before it serves.
The last two are kept, until the trial's record is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BadInput, one_line
from bench.storage import Storage

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2
SHARE = 0.05
"""Of a trial's time that writing checkpoints may take, however often they are asked for."""
NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.safetensors")
"""Of a checkpoint's file: its number, and a hash of its bytes."""
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def parse_every(text: str) -> tuple[float | None, int | None]:
    """Returns seconds and epochs between checkpoints: `90s`, `2e`, `off`. Raises BadInput."""
    if text == "off":
        return None, None
    number, unit = text[:-1], text[-1:]
    if unit == "s" and re.fullmatch(r"\d{1,9}(\.\d{1,3})?", number):
        return float(number), None
    if unit == "e" and re.fullmatch(r"[1-9]\d{0,5}", number):
        return None, int(number)
    said = one_line(text, 40)
    raise BadInput(f"--checkpoint-every {said}: write seconds as 60s, epochs as 2e, or off")


class Rhythm:
    """Says when a checkpoint is due: every so many seconds or epochs, within SHARE of the time."""

    def __init__(self, every: str) -> None:
        self.seconds, self.epochs = parse_every(every)
        self._next = time.monotonic() + (self.seconds or 0.0)

    def due(self, epochs_done: int | None) -> bool:
        """Whether one is due after a window or, where a number is given, after that epoch."""
        if self.epochs is not None and (epochs_done is None or epochs_done % self.epochs):
            return False
        wanted = self.epochs is not None or self.seconds is not None
        return wanted and time.monotonic() >= self._next

    def written(self, took: float) -> None:
        """Notes that one was written, in so many seconds."""
        self._next = time.monotonic() + max(self.seconds or 0.0, took / SHARE)


class Keeper:
    """Writes and finds the checkpoints of one trial.

    `about` says what moves numbers beside the trial itself: device, versions, threads. What was
    written under another is not gone on with, for no record would be true of such a run.
    """

    def __init__(self, storage: Storage, run_id: str, about: dict[str, Any]) -> None:
        self.storage, self.run_id = storage, run_id
        self.about: dict[str, Any] = json.loads(json.dumps(about))

    def save(
        self, tensors: dict[str, Tensor], numbers: dict[str, Any], epochs: Sequence[dict[str, Any]]
    ) -> None:
        """Writes a checkpoint and deletes all but the last two. Raises OSError."""
        from safetensors.torch import save

        said = {"format": FORMAT, "run_id": self.run_id, "about": self.about}
        text = json.dumps(said | {"numbers": numbers, "epochs": list(epochs)})
        content = save(tensors, {"bench": text})
        there = self._names()
        number = 1 + max([number for number, _, _ in there], default=0)
        digest = hashlib.sha256(content).hexdigest()[:16]
        self.storage.put(f"{_folder(self.run_id)}/{number:06}-{digest}.safetensors", content)
        for _, _, name in there[: 1 - KEPT]:
            self.storage.delete(name)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any], list[dict[str, Any]]] | None:
        """Returns tensors, numbers and epochs of the last whole one; None: begin anew. OSError."""
        for _, digest, name in reversed(self._names()):
            content = self.storage.get(name)
            if content is None:
                continue
            if hashlib.sha256(content).hexdigest()[:16] != digest:
                log.warning("%s: damaged; the one before it serves", name)
                with contextlib.suppress(OSError):  # or it would count among the last two
                    self.storage.delete(name)
                continue
            try:
                return self._read(content)
            except _DAMAGED as error:
                log.warning("%s: not gone on with: %s", name, one_line(error, 200))
        return None

    def _read(self, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any], list[Any]]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        end = 8 + int.from_bytes(content[:8], "little")
        said = json.loads(json.loads(content[8:end])["__metadata__"]["bench"])
        wanted = {"format": FORMAT, "run_id": self.run_id, "about": self.about}
        for key, value in wanted.items():
            if said[key] != value:
                raise ValueError(f"{key} is {said[key]} there and {value} here")
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        return tensors, dict(said["numbers"]), [dict(epoch) for epoch in said["epochs"]]

    def _names(self) -> list[tuple[int, str, str]]:
        """Returns number, digest and name of each checkpoint, the oldest first."""
        found = []
        for name in self.storage.names(_folder(self.run_id)):
            if match := NAME.fullmatch(name.rpartition("/")[2]):
                found.append((int(match[1]), match[2], name))
        return sorted(found)


def kept(storage: Storage) -> set[str]:
    """Returns the run_ids that have checkpoints. Raises OSError."""
    return {name.split("/")[1] for name in storage.names("checkpoints") if name.count("/") == 2}


def drop(storage: Storage, run_id: str) -> None:
    """Deletes a trial's checkpoints: its record is written. Raises OSError."""
    storage.clear(_folder(run_id))


def _folder(run_id: str) -> str:
    return f"checkpoints/{run_id}"
