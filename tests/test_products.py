"""The products of the written-out loops: torch's own, whichever library computes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import products as _product

product, add_product = _product.product, _product.add_product


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_large_products_in_float32_equal_torch() -> None:
    a, b, base = normal(40, 300).float(), normal(300, 200).float(), normal(40, 200).float()
    for left in (a, a.t().contiguous().t(), torch.cat([a, a], 1)[:, :300]):
        for right in (b, b.t().contiguous().t(), torch.cat([b, b], 1)[:, :200]):
            torch.testing.assert_close(product(left, right), a @ b, atol=1e-4, rtol=1e-4)
            biased = product(left, right, base[0])
            torch.testing.assert_close(biased, a @ b + base[0], atol=1e-4, rtol=1e-4)
            out = torch.empty_like(base)
            assert add_product(base, left, right, out=out) is out
            torch.testing.assert_close(out, base + a @ b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_torchs(
    monkeypatch: pytest.MonkeyPatch, biased: bool, dtype: torch.dtype
) -> None:
    """Large enough for oneDNN where it is float32; the rule itself is set aside for float64."""
    monkeypatch.setattr(_product, "LARGE", 1)
    shapes = ((20, 6, 130), (150, 130), *(((150,),) if biased else ()))
    given = [normal(*s).to(dtype).requires_grad_() for s in shapes]
    weight = normal(20, 6, 150).to(dtype)
    results = []
    for function in (_product.linear, F.linear):
        out = function(*given)
        results.append((out, *torch.autograd.grad((out * weight).sum(), given)))
    assert "Linear" in type(_product.linear(*given).grad_fn).__name__
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-4, atol=1e-3 if dtype.itemsize < 8 else 1e-10
        )


def test_linear_of_an_input_without_gradient() -> None:
    x, w = normal(40, 20, 100).float(), normal(60, 100).float().requires_grad_()
    (grad,) = torch.autograd.grad(_product.linear(x, w).sum(), (w,))
    torch.testing.assert_close(grad, x.sum((0, 1)).expand_as(w), rtol=1e-4, atol=1e-3)


def test_gradients_of_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_product, "LARGE", 1)
    inputs = [normal(*shape).requires_grad_() for shape in ((3, 2, 4), (5, 4), (5,))]
    assert torch.autograd.gradcheck(_product.linear, inputs)
