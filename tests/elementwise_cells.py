"""Builders that the tests of the elementwise cells share: small cells, inputs, states, noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class

CELLS = find()["cell"]
T, B, I, H = 7, 3, 5, 4  # noqa: E741


def build(name: str, size_in: int = I, size_out: int = H, **hparams: Any) -> Any:
    torch.manual_seed(1)
    return load_class(CELLS[name])(size_in, size_out, **hparams).double()


def inputs(*shape: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def state_of(cell: Any, columns: int = B) -> tuple[Tensor, ...]:
    return tuple(inputs(*s.shape, seed=3 + k) for k, s in enumerate(cell.initial_state(columns)))


def noise(seed: int = 7) -> SiteNoise:
    return WindowNoise(seed, "train", 0, torch.device("cpu"), torch.float64).at("layer0")


def memory(cell: Any, x: Tensor, state: tuple[Tensor, ...], given: Any = None) -> Tensor:
    out = cell(x, state, given)
    return out[2] if len(out) == 3 else out[0]
