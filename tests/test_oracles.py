"""Every cell equals its written-out loop, forward and backward, in float64 to 1e-10."""

from __future__ import annotations

import pytest
import torch

from bench.plugins import find, load_class
from tests.oracles import ORACLES

T, B, I, H = 9, 4, 5, 7  # noqa: E741


def test_every_cell_has_an_oracle() -> None:
    assert sorted(find()["cell"]) == sorted(ORACLES)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_cell_equals_its_loop(name: str) -> None:
    torch.manual_seed(1)
    cell = load_class(find()["cell"][name])(I, H).double()
    start = tuple(torch.randn_like(s) for s in cell.initial_state(B))

    def outcome(loop: bool) -> list[torch.Tensor]:
        x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x.requires_grad_()
        state = tuple(s.clone().requires_grad_() for s in start)
        if loop:
            raw, *after = ORACLES[name](cell, x, state)
        else:
            raw, after = cell(x, state, None)
        # Unlike weights for every element, so that no error cancels in a sum.
        weight = torch.linspace(-1, 1, raw.numel(), dtype=torch.float64).view_as(raw)
        loss = (raw * weight).sum() + sum((s * s).sum() for s in after)
        inputs = [x, *state, *cell.parameters()]
        return [raw, *after, *torch.autograd.grad(loss, inputs)]

    for ours, theirs in zip(outcome(False), outcome(True), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
