"""What every regularizer must hold to; one function a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.api import Activations

MakeRegularizer = Callable[[], Any]
T, B, E, H = 6, 4, 5, 7


def scalar(make: MakeRegularizer) -> None:
    """The penalty is one finite number, not below 0, also for a window of one step."""
    for steps, columns in ((T, B), (1, B), (T, 1), (1, 1)):
        value = make()(activations(steps, columns))
        assert isinstance(value, Tensor), f"the penalty is a {type(value).__name__}, not a tensor"
        assert value.shape == (), f"the penalty has shape {list(value.shape)}, not []"
        assert torch.isfinite(value), f"the penalty is {float(value)} at T = {steps}"
        assert float(value) >= 0, f"the penalty is {float(value)}, below 0"


def batch_order(make: MakeRegularizer) -> None:
    """Permuting the batch columns changes nothing."""
    acts = activations()
    order = torch.tensor([2, 0, 3, 1])
    one = make()(acts)
    two = make()(each(acts, lambda t: t[:, order]))
    assert abs(float(one - two)) <= 1e-9, "the penalty depends on the order of the columns"


def repeatable(make: MakeRegularizer) -> None:
    """Equal activations give an equal penalty, whatever torch's global generator is at."""
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(float(make()(activations())))
    assert values[0] == values[1], "the penalty depends on torch's global generator"


def gradients(make: MakeRegularizer) -> None:
    """The gradient is finite, also where the activations are all zero; nothing is changed."""
    for scale in (1.0, 0.0):
        acts = each(activations(), lambda t: (scale * t).detach().requires_grad_())  # noqa: B023
        copies = [t.detach().clone() for t in leaves(acts)]
        value = make()(acts)
        if value.requires_grad:
            value.backward()
        for leaf, copy in zip(leaves(acts), copies, strict=True):
            assert torch.equal(leaf.detach(), copy), "the activations are changed in place"
            if leaf.grad is not None:
                assert torch.isfinite(leaf.grad).all(), (
                    f"the gradient is not finite at activations of size {scale}"
                )


CHECKS: tuple[Callable[[MakeRegularizer], None], ...] = (
    scalar,
    batch_order,
    repeatable,
    gradients,
)


def activations(steps: int = T, columns: int = B, seed: int = 3) -> Activations:
    """Returns random activations of two layers in float64, with memory."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int) -> Tensor:
        return torch.randn(steps, columns, size, generator=generator, dtype=torch.float64)

    raw = (draw(H), draw(H))
    return Activations(draw(E), raw, tuple(2 * r for r in raw), (draw(H), draw(H)))


def each(acts: Activations, change: Callable[[Tensor], Tensor]) -> Activations:
    """Returns the activations with `change` applied to every tensor."""
    return Activations(
        change(acts.embedded),
        tuple(change(t) for t in acts.raw),
        tuple(change(t) for t in acts.dropped),
        tuple(None if t is None else change(t) for t in acts.memory),
    )


def leaves(acts: Activations) -> list[Tensor]:
    """Returns every tensor of the activations."""
    memory = [t for t in acts.memory if t is not None]
    return [acts.embedded, *acts.raw, *acts.dropped, *memory]
