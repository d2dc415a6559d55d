"""Precisions: what is rounded, what is refused, and that perplexity hardly moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import products
from bench.config import make_trial
from bench.loop import prepare_thread
from bench.noise import WindowNoise
from bench.plugins import find, load_class
from bench.precision import refusal
from tests.trainers import make_trainer

CPU = torch.device("cpu")
CELLS = find()["cell"]
needs_bf16 = pytest.mark.skipif(
    refusal("bf16", "cpu") is not None, reason="this CPU has neither AVX512-BF16 nor AMX"
)


@pytest.fixture(autouse=True)
def after() -> Iterator[None]:
    yield
    products.set_precision("fp32")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@needs_bf16
@pytest.mark.parametrize("rows", [3, 200])
def test_factors_are_rounded_and_sums_are_not(rows: int) -> None:
    products.set_precision("bf16")
    a, b, base = normal(rows, 300), normal(300, 70), normal(rows, 70)
    exact = a.bfloat16().double() @ b.bfloat16().double()
    # A sum kept in bf16 would be off by far more than the one rounding of the result.
    for factor in (b, b.t().contiguous().t(), products.shared(b, rows)):
        found = products.product(a, factor)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-3)
        added = products.add_product(base, a, factor)
        torch.testing.assert_close(added.double(), exact + base, rtol=2**-8, atol=5e-2)
    assert not torch.allclose(exact.float(), a @ b, rtol=2**-10, atol=1e-3), "nothing was rounded"


@needs_bf16
def test_the_gradients_of_linear_are_rounded_products_too() -> None:
    products.set_precision("bf16")
    x, w, b = (normal(*s).requires_grad_() for s in ((6, 4, 50), (30, 50), (30,)))
    grad = normal(6, 4, 30)
    out = products.linear(x, w, b)
    found = torch.autograd.grad(out, (x, w, b), grad)
    g, flat = grad.flatten(0, 1).bfloat16().float(), x.detach().flatten(0, 1).bfloat16().float()
    expected = (g @ w.detach().bfloat16().float(), g.t() @ flat, grad.flatten(0, 1).sum(0))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.view_as(other), other, rtol=2**-7, atol=1e-2)


def test_double_precision_is_never_rounded() -> None:
    products.set_precision("bf16")
    a, b = normal(4, 30).double(), normal(30, 5).double()
    assert torch.equal(products.product(a, b), a @ b)
    assert torch.equal(products.product(a, products.shared(b, 4)), a @ b)


@needs_bf16
@pytest.mark.parametrize("name", sorted(CELLS))
def test_every_cell_runs_rounded_and_near_its_true_self(name: str) -> None:
    torch.manual_seed(1)
    cell = load_class(CELLS[name])(24, 32)
    x, weight = normal(6, 4, 24), normal(6, 4, 32)
    noise = WindowNoise(1, "train", 0, CPU, torch.float32).at("layer0")
    found = []
    for precision in ("fp32", "bf16"):
        products.set_precision(precision)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            raw = cell(x, cell.initial_state(4), noise)[0].float()
        grads = torch.autograd.grad((raw * weight).sum(), list(cell.parameters()))
        found.append(torch.cat([raw.flatten(), *(g.flatten() for g in grads)]).detach())
    true, rounded = found
    assert not torch.equal(true, rounded), "no product was rounded"
    alike = float(torch.dot(true, rounded) / (true.norm() * rounded.norm()))
    assert alike > 0.99, "a cosine of 0.99 is what gradients that nearly cancel still reach"


@needs_bf16
def test_perplexity_in_bf16_is_within_one_percent_over_three_seeds() -> None:
    """At a rate low enough that a rounding does not grow into another course of the training."""
    base: dict[str, Any] = {
        "corpus": "synthetic:train=10000:valid=3000:test=500",
        "nlayers": 1,
        "nhid": 32,
        "batch_size": 5,
        "bptt": 20,
        "epochs": 5,
        "lr": 2.0,
        "dropout": 0.1,
        "dropouti": 0.1,
    }
    for rep in range(3):
        valid = {}
        for precision in ("fp32", "bf16"):
            values = base | {"rep": rep, "precision": precision}
            one = make_trainer(make_trial(values, find(), "test"), CPU)
            first, *_ = list(one.epochs())
            best = one.at.best_valid
            assert best is not None and best < first["valid_nll"] - 0.5, "it learns"
            valid[precision] = best
        assert 0 < abs(valid["fp32"] - valid["bf16"]) < math.log(1.01)


def test_what_a_cpu_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("fp32", "cpu") is None
    assert "needs a GPU" in str(refusal("tf32", "cpu"))
    assert "needs a GPU" in str(refusal("fp16", "cpu"))
    refusal.cache_clear()
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    try:
        assert "neither AVX512-BF16 nor AMX" in str(refusal("bf16", "cpu"))
    finally:
        refusal.cache_clear()


def test_the_thread_is_set_back_to_true_products() -> None:
    prepare_thread(CPU, precision="bf16")
    assert products.rounds(normal(1))
    prepare_thread(CPU)
    assert not products.rounds(normal(1))
