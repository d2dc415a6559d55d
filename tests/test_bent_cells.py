"""The rules of the cells' suite can fail: cells whose outputs are bent in one way each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State
from tests.fair_cells import Fair, FairBatchNorm, FairWithEverything, broken_rules


@pytest.mark.parametrize("make", [Fair, FairWithEverything, FairBatchNorm])
def test_a_fair_cell_breaks_no_rule(make: type[nn.Module]) -> None:
    assert broken_rules("cell", make) == {}


def drop(cell: nn.Module, raw: Tensor) -> Tensor:
    return F.dropout(raw, 0.5, cell.training)


def centred(raw: Tensor) -> Tensor:
    return raw - raw.mean(1, keepdim=True)


# What a fair cell's raw output and state become: one thing is wrong with each.
BENT: dict[str, tuple[str, str, Callable[[Any, Tensor, State], Any]]] = {
    "forgets its state": (
        "two_calls_equal_one",
        "raw over 2T differs by",
        lambda cell, raw, state: (raw, (0 * state[0],)),
    ),
    "knows its place in the window": (
        "two_calls_equal_one",
        "raw over 2T differs by",
        lambda cell, raw, state: (raw * torch.arange(len(raw)).view(-1, 1, 1).to(raw), state),
    ),
    "mixes columns": (
        "no_column_leak",
        "raw of column 0, when column 1's input changed, differs by",
        lambda cell, raw, state: (centred(raw), state),
    ),
    "mixes columns in training alone": (
        "no_column_leak",
        "raw of column 0, when column 1's input changed, differs by",
        lambda cell, raw, state: (centred(raw) if cell.training else raw, state),
    ),
    "draws from the global generator": (
        "randomness_from_noise",
        "raw under two global seeds differs by",
        lambda cell, raw, state: (raw * torch.rand_like(raw), state),
    ),
    "drops out by itself": (
        "randomness_from_noise",
        "raw under two global seeds differs by",
        lambda cell, raw, state: (drop(cell, raw), state),
    ),
    "scales in training": (
        "silent_without_noise",
        "raw without noise, in training and evaluation, differs by",
        lambda cell, raw, state: (2 * raw if cell.training else raw, state),
    ),
    "is batch first": (
        "shapes",
        "raw is [3, 6, 12] instead of [6, 3, 12]",
        lambda cell, raw, state: (raw.transpose(0, 1), state),
    ),
    "returns twice the units": (
        "shapes",
        "raw is [6, 3, 24] instead of [6, 3, 12]",
        lambda cell, raw, state: (torch.cat([raw, raw], -1), state),
    ),
    "returns the last step alone": (
        "shapes",
        "raw is [1, 3, 12] instead of [6, 3, 12]",
        lambda cell, raw, state: (raw[-1:], state),
    ),
    "returns another precision": (
        "shapes",
        "raw is torch.float32 although x is torch.float64",
        lambda cell, raw, state: (raw.float(), state),
    ),
    "returns raw alone": (
        "shapes",
        "forward must return (raw, state)",
        lambda cell, raw, state: raw,
    ),
    "returns too much memory": (
        "shapes",
        "memory is [6, 3, 24] instead of [6, 3, 12]",
        lambda cell, raw, state: (raw, state, torch.cat([raw, raw], -1)),
    ),
    "returns memory unasked": (
        "memory_flag",
        "memory = False, but forward returns 3 values",
        lambda cell, raw, state: (raw, state, raw),
    ),
}


@pytest.mark.parametrize("name", BENT)
def test_a_bent_cell_breaks_its_rule(name: str) -> None:
    rule, says, bend = BENT[name]

    class Bent(Fair):
        def forward(self, x: Tensor, state: State, noise: Noise | None) -> Any:
            return bend(self, *self.steps(x, state))

    broken = broken_rules("cell", Bent)
    assert rule in broken, broken
    assert says in broken[rule]
