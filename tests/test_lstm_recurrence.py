"""The LSTM's autograd function: its written-out backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parts import part

Recurrence = part("_lstm", "lstm_zoneout").Recurrence


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


MODES = ["plain", "tied", "untied", "g by step", "g by sequence", "zoneout", "zoneout of c"]
MODES += ["zoneout of h", "expectation", "all"]


def some_masks(mode: str) -> list[Tensor | None]:
    """h_mask, g_mask, new_c, new_h for T=3, B=2, H=2."""
    bits = (normal(4, 3, 2, 2) > -0.5).double()
    modes: dict[str, list[Tensor | None]] = {
        "plain": [None, None, None, None],
        "tied": [bits[0, 0] * 1.5, None, None, None],
        "untied": [bits[:, 0] * 1.5, None, None, None],
        "g by step": [None, bits[1] * 1.5, None, None],
        "g by sequence": [None, bits[1, :1] * 1.5, None, None],
        "zoneout": [None, None, bits[2], bits[3]],
        "zoneout of c": [None, None, bits[2], None],
        "zoneout of h": [None, None, None, bits[3]],
        "expectation": [
            None,
            None,
            *(torch.tensor(r).double().expand(3, 2, 2) for r in (0.7, 0.9)),
        ],
        "all": [bits[:, 0] * 1.5, bits[1] * 1.5, bits[2], bits[3]],
    }
    return modes[mode]


@pytest.mark.parametrize("outputs", ["both", "raw", "memory"])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_the_recurrence(mode: str, outputs: str) -> None:
    masks = some_masks(mode)

    def outcome(*inputs: Tensor) -> Any:
        raw, memory = Recurrence.apply(*inputs, *masks)
        return {"both": (raw, memory), "raw": raw, "memory": memory}[outputs]

    inputs = [normal(*shape) for shape in ((3, 2, 8), (2, 2), (2, 2), (8, 2))]
    for state_needs_it in (True, False):
        for k, tensor in enumerate(inputs):
            tensor.requires_grad_(k in (0, 3) or state_needs_it)
        assert torch.autograd.gradcheck(outcome, inputs)
