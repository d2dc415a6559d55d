"""Masks as a pure function of (seed, purpose, step, site, name).

So a trial's numbers do not depend on what ran before it or runs beside it, resuming needs no
generator state, and trials of one repetition share every draw whose site, name and shape agree.
A CPU and a GPU have different generators: they give one trial different masks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def stream(seed: int, *key: object) -> int:
    """Returns 63 bits for one consumer of randomness, such as stream(seed, "init", "layer0")."""
    text = "|".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


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


@dataclass(frozen=True)
class SiteNoise:
    """What a cell is given as `noise` (see `bench.api.Noise`)."""

    window: WindowNoise
    site: str

    def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns a tensor of `shape`: 0 with probability p, else 1/(1-p)."""
        if not 0 <= p < 1:
            raise ValueError(f"mask {name!r}: p must be at least 0 and below 1, but is {p}")
        w = self.window
        count = 1
        for size in shape:
            count *= size
        generator = torch.Generator(device=w.device)
        generator.manual_seed(stream(w.seed, w.purpose, w.step, self.site, name))
        # Two 32-bit draws from each 64-bit word: several times faster than torch.rand on a CPU,
        # and the same draws in every floating-point type. A low cut keeps p to 2^-32.
        words = torch.empty((count + 1) // 2, dtype=torch.int64, device=w.device)
        words.random_(-(2**63), None, generator=generator)
        bits = words.view(torch.int32)[:count].view(shape)
        kept = bits >= min(round(p * 2**32), 2**32 - 1) - 2**31
        return kept.to(w.dtype).mul_(1 / (1 - p))
