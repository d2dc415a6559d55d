"""Products of large float32 matrices on a CPU by oneDNN, as torch's fused LSTM does them.

torch leaves such products to its BLAS library, often MKL, which is half as fast as oneDNN on a CPU
that is not Intel's. Where oneDNN does not serve (another device or type, a small product, a torch
without it) this is torch's own product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE = 2**20
"""Multiply-adds below which oneDNN's fixed cost per call exceeds its gain; four times as many for
`linear`, whose own bookkeeping comes on top."""

_linear: Any = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [M,K], b [K,N], bias [N] -> a b + bias [M,N]. Not for autograd: call it in a Function."""
    if _by_onednn(a, b):
        return _linear(a, b.t(), bias, "none", [], "")  # type: ignore[no-any-return]
    return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


def add_product(base: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """base, a [M,K], b [K,N] -> base + a b [M,N], in `out` if given. Not for autograd either."""
    if _by_onednn(a, b):
        return torch.add(base, product(a, b), out=out)
    return torch.addmm(base, a, b, out=out)


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        _linear is not None
        and len(a) * b.numel() >= LARGE
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and (b.is_contiguous() or b.t().is_contiguous())  # oneDNN crawls through other layouts
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [T,B,I], weight [N,I], bias [N] -> [T,B,N]: F.linear, all steps at once, for autograd."""
    if x.device.type != "cpu" or x.numel() * weight.shape[0] < 4 * LARGE:
        return F.linear(x, weight, bias)
    return Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, 1), weight.t(), bias).view(*x.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad = grad.flatten(0, 1)
        d_x = product(grad, weight).view_as(x) if wants_x else None
        d_weight = product(grad.t(), x.flatten(0, 1)) if wants_weight else None
        return d_x, d_weight, grad.sum(0) if wants_bias else None
