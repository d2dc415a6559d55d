"""Every cell equals its written-out loop, forward and backward, in float64 to 1e-10."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.contract import variants
from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class
from bench.products import LARGE
from tests.oracles import ORACLES

T, B, I, H = 9, 4, 6, 8  # noqa: E741
CELLS = find()["cell"]


def test_every_cell_has_an_oracle() -> None:
    assert sorted(CELLS) == sorted(ORACLES)


def every_variant() -> list[Any]:
    """Each cell with its defaults and with each other choice."""
    return [
        pytest.param(name, hparams, id=f"{name}:{label}")
        for name in sorted(CELLS)
        for label, hparams in variants(CELLS[name]).items()
    ]


def draws(dtype: torch.dtype) -> SiteNoise:
    return WindowNoise(7, "train", 3, torch.device("cpu"), dtype).at("layer0")


@pytest.mark.parametrize("noisy", [True, False], ids=["noise", "none"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "hparams"), every_variant())
def test_cell_equals_its_loop(
    name: str, hparams: dict[str, Any], training: bool, noisy: bool
) -> None:
    """Evaluation has noise where `eval_mc` averages stochastic passes."""
    torch.manual_seed(1)
    cell = load_class(CELLS[name])(I, H, **hparams).double().train(training)
    start = tuple(torch.randn_like(s) for s in cell.initial_state(B))
    noise = draws(torch.float64) if noisy else None

    def outcome(loop: bool) -> list[torch.Tensor]:
        x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x.requires_grad_()
        state = tuple(s.clone().requires_grad_() for s in start)
        # In training a cell may move its statistics; both start from the same ones.
        before = {name: b.clone() for name, b in cell.named_buffers()}
        if loop:
            raw, *after = ORACLES[name](cell, x, state, noise)
        else:
            raw, after, *memory = cell(x, state, noise)
            after = [*after, *memory]
        for buffer_name, buffer in cell.named_buffers():
            buffer.copy_(before[buffer_name])
        # Unlike weights for every element, so that no error cancels in a sum.
        weight = torch.linspace(-1, 1, raw.numel(), dtype=torch.float64).view_as(raw)
        loss = (raw * weight).sum() + sum((s * s).sum() for s in after)
        inputs = [x, *state, *cell.parameters()]
        return [raw, *after, *torch.autograd.grad(loss, inputs)]

    for ours, theirs in zip(outcome(False), outcome(True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "hparams"), every_variant())
def test_float32_of_a_large_layer_is_float64(name: str, hparams: dict[str, Any]) -> None:
    """Large products of float32 go another way than those of float64 and of small layers."""
    steps, columns, size = 4, 20, 256
    assert columns * size**2 >= LARGE and steps * columns * size**2 >= 4 * LARGE  # product, linear
    x = torch.randn(steps, columns, size, generator=torch.Generator().manual_seed(2))
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(1)
        cell = load_class(CELLS[name])(size, size, **hparams).to(dtype).train()
        start = (torch.randn(s.shape).to(dtype) for s in cell.initial_state(columns))
        inputs = [x.to(dtype), *start]
        for tensor in inputs:
            tensor.requires_grad_()
        raw, after, *memory = cell(inputs[0], tuple(inputs[1:]), draws(dtype))
        loss = (raw * torch.linspace(-1, 1, size, dtype=dtype)).sum()
        loss = loss + sum((s * s).sum() for s in (*after, *memory))
        found.append([raw, *after, *memory])
        found[-1] += torch.autograd.grad(loss, [*inputs, *cell.parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
