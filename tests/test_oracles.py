"""Every cell equals its written-out loop, forward and backward, in float64 to 1e-10."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.contract import variants
from bench.noise import WindowNoise
from bench.plugins import find, load_class
from tests.oracles import ORACLES

T, B, I, H = 9, 4, 6, 8  # noqa: E741
CELLS = find()["cell"]


def test_every_cell_has_an_oracle() -> None:
    assert sorted(CELLS) == sorted(ORACLES)


def cases() -> list[Any]:
    """Each cell with its defaults and with each other choice, with and without noise."""
    return [
        pytest.param(name, hparams, noisy, id=f"{name}:{label}-{'noise' if noisy else 'none'}")
        for name in sorted(CELLS)
        for label, hparams in variants(CELLS[name]).items()
        for noisy in (True, False)
    ]


@pytest.mark.parametrize(("name", "hparams", "noisy"), cases())
def test_cell_equals_its_loop(name: str, hparams: dict[str, Any], noisy: bool) -> None:
    torch.manual_seed(1)
    cell = load_class(CELLS[name])(I, H, **hparams).double().train(noisy)
    start = tuple(torch.randn_like(s) for s in cell.initial_state(B))
    noise = None
    if noisy:
        noise = WindowNoise(7, "train", 3, torch.device("cpu"), torch.float64).at("layer0")

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
