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


@pytest.mark.parametrize(("columns", "inputs", "size"), [(20, 100, 130), (8, 128, 128), (3, 5, 7)])
def test_padding_to_a_kernels_shape_is_exact(columns: int, inputs: int, size: int) -> None:
    """In float64, values and gradients: zeros add nothing."""
    fused, padded = part("_fused", "lstm"), part("_padded", "lstm")
    torch.manual_seed(1)
    rnn = torch.nn.LSTM(inputs, size).double()
    weights = tuple(rnn.parameters())
    x, h, c = (
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in ((6, columns, inputs), (columns, size), (columns, size))
    )
    found = []
    for grow in (False, True):
        given = padded.pad(weights, x, (h, c)) if grow else (weights, x, (h, c))
        raw, state = fused._lstm_kernel(*given, True)
        if grow:
            assert (raw.shape[1] % 8, raw.shape[2] % 128, given[1].shape[2] % 128) == (0, 0, 0)
            assert not raw[:, columns:].requires_grad or raw[:, :, size:].eq(0).all()
            raw, state = padded.cut(raw, state, columns, size)
        loss = (raw * raw).sum() + sum(s.sum() for s in state)
        found.append((raw, *state, *torch.autograd.grad(loss, [*weights, x, h, c])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
