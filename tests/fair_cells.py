"""Cells that hold to every rule; test_bent_cells.py and test_rogue_cells.py differ from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State
from bench.contract import CHECKS


def broken_rules(kind: str, make: Callable[..., Any]) -> dict[str, str]:
    """The rules that a plugin breaks, with what the suite says."""
    broken = {}
    for check in CHECKS[kind]:
        try:
            check(make)
        except Exception as error:
            broken[check.__name__] = f"{type(error).__name__}: {error}"
    return broken


class Fair(nn.Module):
    """A tanh RNN in plain operations; the rogues below differ from it in one thing each."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.w_ih = nn.Parameter(torch.empty(hidden_size, input_size).uniform_(-0.3, 0.3))
        self.w_hh = nn.Parameter(torch.empty(hidden_size, hidden_size).uniform_(-0.3, 0.3))

    def initial_state(self, batch_size: int) -> State:
        return (self.w_hh.new_zeros(batch_size, self.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        return self.steps(x, state)

    def steps(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        (h,) = state
        raw = []
        for step in F.linear(x, self.w_ih):
            h = torch.tanh(step + h @ self.w_hh.T)
            raw.append(h)
        return torch.stack(raw), (h,)


class FairWithEverything(Fair):
    """Noise, memory and a plain twin, all as the contract wants them."""

    memory = True

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        if noise is not None:
            raw = raw * noise.mask("raw", tuple(raw.shape[1:]), 0.25)
        return raw, state, raw.square()

    def plain(self) -> nn.Module:
        return self


class FairBatchNorm(Fair):
    """Columns see each other in training, and the class says so."""

    mixes_batch = True

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.norm = nn.BatchNorm1d(hidden_size)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        raw, state = self.steps(x, state)
        return self.norm(raw.flatten(0, 1)).view_as(raw) if raw[..., 0].numel() > 1 else raw, state
