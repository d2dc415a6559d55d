"""The decoder's nll in one function is the cross entropy of a linear layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.decoder import ROWS, Tie, decode_nll

T, B, E, V = 5, 3, 8, 20


Given = tuple[tuple[Tensor, Tensor, Tensor], Tensor]


def given(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Given:
    generator = torch.Generator().manual_seed(1)
    shapes = ((T, B, E), (V, E), (V,))
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    drawn[0] *= scale
    targets = torch.randint(0, V, (T, B), generator=generator)
    targets[1, 2] = targets[4, 0] = -1
    hidden, weight, bias = (x.requires_grad_() for x in drawn)
    return (hidden, weight, bias), targets


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, weight, bias).flatten(0, 1)
    nll = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=-1)
    return nll.view_as(targets)


@pytest.mark.parametrize("uniform", [True, False])
def test_value_and_gradients_are_those_of_cross_entropy(uniform: bool) -> None:
    leaves, targets = given()
    weights = torch.ones(T, B).double() if uniform else torch.rand(T, B).double()
    found = []
    for function in (decode_nll, plain):
        nll = function(*leaves, targets)
        found.append((nll, *torch.autograd.grad((nll * weights).sum(), leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_many_rows_are_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves, targets = given()
    found = []
    for rows in (ROWS, 4):
        monkeypatch.setattr("bench.decoder.ROWS", rows)
        nll = decode_nll(*leaves, targets)
        found.append((nll, *torch.autograd.grad(nll.sum(), leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_a_tied_weight_gets_both_gradients() -> None:
    """Of the decoder and of the rows it was looked up at, repeated ones too."""
    (_, weight, bias), targets = given()
    tokens = targets.clamp_min(0)
    found = []
    for tie in (Tie(), None):
        look_up = tie.embed if tie else F.embedding
        embedded = look_up(tokens, weight)
        nll = decode_nll(embedded.tanh(), weight, bias, targets, tie)
        both = torch.autograd.grad(nll.sum() + embedded.square().sum(), weight)
        alone = torch.autograd.grad(look_up(tokens, weight).square().sum(), weight)
        found.append((*both, *alone))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_places_without_a_target_count_nothing() -> None:
    leaves, targets = given()
    nll = decode_nll(*leaves, targets)
    assert nll[1, 2] == nll[4, 0] == 0
    (grad,) = torch.autograd.grad(nll.sum(), leaves[:1])
    assert not grad[1, 2].any()
    assert grad[1, 1].any()


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_in_single_precision_however_unlikely_the_target(scale: float) -> None:
    """At 1000 most probabilities are below the smallest float; the nll is not infinite."""
    leaves, targets = given(torch.float32, scale)
    nll = decode_nll(*leaves, targets)
    hidden, weight, bias = (x.double() for x in leaves)
    exact = plain(hidden, weight, bias, targets)
    torch.testing.assert_close(nll.double(), exact, rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_stays_so() -> None:
    (hidden, weight, bias), targets = given()
    with torch.no_grad():
        bias[3] = float("nan")
    assert decode_nll(hidden, weight, bias, targets)[0, 0].isnan()


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    (hidden, weight, bias), targets = given()
    nll = decode_nll(hidden.detach(), weight, bias.detach(), targets)
    nll.sum().backward()
    assert hidden.grad is None
    assert bias.grad is None
    with torch.no_grad():
        free = decode_nll(hidden, weight, bias, targets)
    assert torch.equal(free, nll)
