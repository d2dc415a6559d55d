"""The rules of the regularizers' suite can fail: for each there is one that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.api import Activations
from bench.contract import CHECKS
from tests.fair_cells import broken_rules


def last(acts: Activations) -> Tensor:
    return acts.dropped[-1]


def column_weights(h: Tensor) -> Tensor:
    return torch.arange(h.shape[1], dtype=h.dtype).view(1, -1, 1)


def changes_them(acts: Activations) -> Tensor:
    last(acts).data.mul_(2)
    return last(acts).square().mean()


FAIR: dict[str, Callable[[Activations], Tensor]] = {
    "mean of squares": lambda acts: last(acts).square().mean(),
    "a constant": lambda acts: torch.tensor(1.0),
    "an inner layer's memory": lambda acts: acts.memory[0].abs().mean(),  # type: ignore[union-attr]
}
ROGUES: dict[str, tuple[str, str, Callable[[Activations], object]]] = {
    "a vector": ("scalar", "the penalty has shape [7], not []", lambda a: last(a).mean((0, 1))),
    "one element": ("scalar", "the penalty has shape [1], not []", lambda a: last(a).mean()[None]),
    "a plain number": ("scalar", "the penalty is a float, not", lambda a: float(last(a).mean())),
    "negative": ("scalar", ", below 0", lambda a: -last(a).square().mean()),
    "one step alone": (
        "scalar",
        "the penalty is nan at T = 1",
        lambda a: (last(a)[1:] - last(a)[:-1]).square().mean(),
    ),
    "infinite": ("scalar", "the penalty is inf", lambda a: 1 / (0 * last(a)).abs().sum()),
    "columns weighted by place": (
        "batch_order",
        "the penalty depends on the order of the columns",
        lambda a: (last(a).square() * column_weights(last(a))).mean(),
    ),
    "neighbouring columns": (
        "batch_order",
        "the penalty depends on the order of the columns",
        lambda a: (last(a)[:, :1] - last(a)[:, -1:]).square().mean(),
    ),
    "random": (
        "repeatable",
        "the penalty depends on torch's global generator",
        lambda a: last(a).square().mean() * torch.rand(()),
    ),
    "a norm at zero": (
        "gradients",
        "the gradient is not finite at activations of size 0.0",
        lambda a: last(a).square().sum(-1).sqrt().mean(),
    ),
    "changes them": ("gradients", "the activations are changed in place", changes_them),
    "changes a leaf": ("gradients", "RuntimeError", lambda a: last(a).mul_(2).square().mean()),
}


@pytest.mark.parametrize("name", FAIR)
def test_a_fair_regularizer_breaks_no_rule(name: str) -> None:
    assert broken_rules("regularizer", lambda: FAIR[name]) == {}


@pytest.mark.parametrize("name", ROGUES)
def test_a_rogue_regularizer_breaks_its_rule(name: str) -> None:
    rule, says, rogue = ROGUES[name]
    broken = broken_rules("regularizer", lambda: rogue)
    assert rule in broken, broken
    assert says in broken[rule]


def test_every_rule_of_regularizers_is_broken_by_some_rogue() -> None:
    broken = {rule for rule, _, _ in ROGUES.values()}
    assert broken == {c.__name__ for c in CHECKS["regularizer"]}
