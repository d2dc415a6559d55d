"""The scan of the elementwise cells: its two ways, its gradients, its extremes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.elementwise_cells import inputs
from tests.parts import part

_scan = part("_scan", "mingru")
WAYS = pytest.mark.parametrize("pairs", [False, True], ids=["steps", "pairs"])
LENGTHS = (1, 2, 3, 4, 5, 8, 33)
Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain_scan(f: Tensor, u: Tensor, h: Tensor) -> Tensor:
    out = []
    for f_t, u_t in zip(f, u, strict=True):
        h = f_t * h + u_t
        out.append(h)
    return torch.stack(out)


def plain_average(f: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return plain_scan(f, (1 - f) * z, h)


BOTH = pytest.mark.parametrize(
    ("ours", "plain"),
    [(_scan.scan, plain_scan), (_scan.average, plain_average)],
    ids=["scan", "average"],
)


def choose(monkeypatch: pytest.MonkeyPatch, pairs: bool) -> None:
    monkeypatch.setattr(_scan, "by_pairs", lambda like: pairs)


def arguments(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    f, u, h = torch.sigmoid(inputs(steps, 3, 4)), inputs(steps, 3, 4, seed=5), inputs(3, 4)
    return f.requires_grad_(), u.requires_grad_(), h.requires_grad_()


@WAYS
@BOTH
@pytest.mark.parametrize("steps", LENGTHS)
def test_equals_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch, pairs: bool, ours: Recurrence, plain: Recurrence, steps: int
) -> None:
    choose(monkeypatch, pairs)
    weight = inputs(steps, 3, 4, seed=9)
    for one, other in zip(
        *(
            (out, *torch.autograd.grad((out * weight).sum(), given))
            for given in [arguments(steps)]
            for out in (ours(*given), plain(*given))
        ),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@WAYS
@BOTH
@pytest.mark.parametrize("steps", [1, 5])
def test_gradcheck(
    monkeypatch: pytest.MonkeyPatch, pairs: bool, ours: Recurrence, plain: Recurrence, steps: int
) -> None:
    choose(monkeypatch, pairs)
    assert torch.autograd.gradcheck(ours, arguments(steps))


@BOTH
def test_both_ways_agree_in_float32(
    monkeypatch: pytest.MonkeyPatch, ours: Recurrence, plain: Recurrence
) -> None:
    results = []
    for pairs in (False, True):
        choose(monkeypatch, pairs)
        given = [a.detach().float().requires_grad_() for a in arguments(70)]
        out = ours(*given)
        results.append((out, *torch.autograd.grad(out.square().sum(), given)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@WAYS
def test_gates_shut_open_and_nearly_so(monkeypatch: pytest.MonkeyPatch, pairs: bool) -> None:
    """The product of 1,000 gates of 1e-30 is 0 in float32: dividing by it would give nan."""
    choose(monkeypatch, pairs)
    u, h = torch.randn(1000, 2, 3), torch.randn(2, 3)
    shut, opened = torch.zeros_like(u), torch.ones_like(u)
    assert torch.equal(_scan.scan(shut, u, h), u)
    assert torch.equal(_scan.average(shut, u, h), u)
    assert torch.equal(_scan.average(opened, u, h), h.expand_as(u))
    torch.testing.assert_close(
        _scan.scan(opened, u, h).double(), h + u.double().cumsum(0), rtol=1e-4, atol=1e-3
    )
    mixed = torch.tensor([0.0, 1.0, 1e-30]).expand_as(u)
    for recurrence in (_scan.scan, _scan.average):
        given = [t.clone().requires_grad_() for t in (mixed, u, h)]
        out = recurrence(*given)
        for tensor in (out, *torch.autograd.grad(out.sum(), given)):
            assert torch.isfinite(tensor).all()


@WAYS
@BOTH
def test_arguments_may_be_views_and_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, pairs: bool, ours: Recurrence, plain: Recurrence
) -> None:
    choose(monkeypatch, pairs)
    f, u, h = (a.detach() for a in arguments(6))
    one_gate = f[..., :1].clone().requires_grad_()
    wide = torch.cat([u, u], dim=-1).requires_grad_()
    given = (one_gate.expand_as(u), wide[..., 4:], h)
    copies = [g.detach().clone() for g in given]
    out = ours(*given)
    torch.testing.assert_close(out, plain(*copies), rtol=0, atol=1e-12)
    # The gradient of a sum is an expanded number, which nothing may be written into.
    ones = torch.autograd.grad(out.sum(), (one_gate, wide), retain_graph=True)
    other = torch.autograd.grad(plain(*given).sum(), (one_gate, wide))
    for mine, theirs in zip(ones, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_the_rule() -> None:
    for device, pairs in (("cpu", False), ("cuda", True), ("mps", False)):
        like: Any = SimpleNamespace(device=torch.device(device))
        assert _scan.by_pairs(like) == pairs
