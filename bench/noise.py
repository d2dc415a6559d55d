"""Masks as a pure function of (seed, purpose, step, site, name), the same on every device.

So a trial's numbers do not depend on what ran before it or runs beside it, resuming needs no
generator state, and trials of one repetition share every draw whose site, name and shape agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""SplitMix64's increment and its two multipliers."""


def stream(seed: int, *key: object) -> int:
    """Returns 63 bits for one consumer of randomness, such as stream(seed, "init", "layer0")."""
    text = "|".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def mask(key: int | Tensor, shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """Returns a tensor of `shape`, on the device and in the dtype of `like`: 0 or 1/(1-p).

    `key`: 63 bits, or as many in a 0-d int64 tensor. Unit n draws 32 bits, half of the word
    that SplitMix64 (Steele, Lea and Flood 2014) seeded with `key` gives at n/2: integer arithmetic
    that wraps, equal on all devices and in all types. A low cut keeps p to 2^-32.
    """
    count = 1
    for size in shape:
        count *= size
    word = torch.add(_counted((count + 1) // 2, like.device), key)
    _fold(word, 30).mul_(_signed(FIRST))
    _fold(word, 27).mul_(_signed(SECOND))
    bits = _fold(word, 31).view(torch.int32)[:count].view(shape)
    kept = bits >= min(round(p * 2**32), 2**32 - 1) - 2**31
    return kept.to(like.dtype).mul_(1 / (1 - p))


class Draws(Protocol):
    """The randomness of one window, as the model asks for it; see `WindowNoise`."""

    def at(self, site: str) -> SiteNoise:
        """Returns the noise of one site (input, layer0, …, output)."""
        ...

    def draw(self, site: str, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns one mask."""
        ...


@dataclass(frozen=True)
class SiteNoise:
    """What a cell is given as `noise` (see `bench.api.Noise`)."""

    window: Draws
    site: str

    def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns a tensor of `shape`: 0 with probability p, else 1/(1-p)."""
        if not 0 <= p < 1:
            raise ValueError(f"mask {name!r}: p must be at least 0 and below 1, but is {p}")
        return self.window.draw(self.site, name, shape, p)


@dataclass(frozen=True)
class WindowNoise:
    """The randomness of one window; `at` gives each site (input, layer0, …, output) its own."""

    seed: int
    purpose: str
    step: int
    device: torch.device
    dtype: torch.dtype

    def at(self, site: str) -> SiteNoise:
        """Returns the noise of one site."""
        return SiteNoise(self, site)

    def draw(self, site: str, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns one mask."""
        key = stream(self.seed, self.purpose, self.step, site, name)
        return mask(key, shape, p, torch.empty((), device=self.device, dtype=self.dtype))


class StepNoise:
    """The randomness of training, whose steps may be replayed: `feed` renews what they draw from.

    Until `replayed` is set, masks are drawn as `WindowNoise` draws them, and their names are noted.
    From then on each mask's key stands in a tensor, which `feed` fills for the step to come.
    """

    def __init__(self, seed: int, purpose: str, device: torch.device, dtype: torch.dtype) -> None:
        self.seed, self.purpose, self.device, self.dtype = seed, purpose, device, dtype
        self.step = 0
        self.replayed = False
        self._slots: dict[tuple[str, str], int] = {}
        self._keys = torch.empty(0, dtype=torch.int64)

    def at(self, site: str) -> SiteNoise:
        """Returns the noise of one site."""
        return SiteNoise(self, site)

    def draw(self, site: str, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns one mask."""
        like = torch.empty((), device=self.device, dtype=self.dtype)
        slot = self._slots.get((site, name))
        if self.replayed and slot is not None and slot < len(self._keys):
            return mask(self._keys[slot], shape, p, like)
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise ValueError(f"mask {name!r} was not drawn in the steps before")
        self._slots.setdefault((site, name), len(self._slots))
        return mask(self._key(site, name), shape, p, like)

    def begin_replay(self) -> None:
        """From here on masks, of the names noted so far, are drawn from keys in a tensor."""
        if self.replayed:  # by an earlier recording, which reads the keys where they are
            return
        self.replayed = True
        self._keys = torch.zeros(len(self._slots), dtype=torch.int64, device=self.device)
        self.feed(self.step)

    def end_replay(self) -> None:
        """Back to plain draws: the step could not be recorded."""
        self.replayed = False

    def feed(self, step: int) -> None:
        """Sets the step whose masks are drawn next."""
        self.step = step
        if self.replayed:
            slots = list(self._slots)[: len(self._keys)]
            keys = torch.tensor([self._key(*slot) for slot in slots], dtype=torch.int64)
            self._keys.copy_(keys, non_blocking=True)

    def _key(self, site: str, name: str) -> int:
        return stream(self.seed, self.purpose, self.step, site, name)


def _fold(word: Tensor, shift: int) -> Tensor:
    """word ^= word >> shift, in place; torch's own shift drags the sign along."""
    return word.bitwise_xor_((word >> shift).bitwise_and_((1 << (64 - shift)) - 1))


_states: dict[torch.device, list[Tensor]] = {}
"""Of each device, ever longer. None is given up: recorded steps read where they found them."""


def _counted(words: int, device: torch.device) -> Tensor:
    """Returns SplitMix64's states from key 0: n * GOLDEN, n from 1."""
    states = _states.setdefault(device, [])
    if not states or len(states[-1]) < words:
        longer = torch.arange(1, words + 1, dtype=torch.int64, device=device).mul_(_signed(GOLDEN))
        if device.type == "cuda":  # trials beside this one read it on streams of their own
            torch.cuda.synchronize(device)
        states.append(longer)
    return states[-1][:words]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
