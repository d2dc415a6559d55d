"""Products of matrices at the precision of the trial, by the fastest kernel torch has for them.

A cell that multiplies inside a function of its own calls these, and works at every precision:

fp32, fp64: true products of that type. On a CPU large float32 ones go to oneDNN, as those of
    torch's fused LSTM do: torch leaves them to its BLAS library, often MKL, which is half as fast
    on a CPU that is not Intel's.
tf32: on a GPU, as torch's own switches say.
bf16, fp16: both factors are rounded, the sums are kept in float32 inside the kernel. On a GPU the
    result is float32; a CPU's kernels round it once more. What goes in and comes out is float32.

Autocast alone would not do: it sees neither a product into a buffer nor one in a backward pass that
is written out.
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

ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}

_linear: Any = None
_packed: Any = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    _packed = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_rounded: torch.dtype | None = None


def set_precision(name: str) -> None:
    """Sets the precision of all products from here on, as torch's own switches are set."""
    global _rounded
    _rounded = ROUNDED.get(name)


def rounds(x: Tensor) -> bool:
    """Returns whether the factors of products with `x` are rounded."""
    return _rounded is not None and x.dtype in (torch.float32, _rounded)


def precision_of(x: Tensor) -> torch.dtype:
    """Returns the type that the factors of products with `x` have."""
    return _rounded if _rounded is not None and rounds(x) else x.dtype


def rounded(x: Tensor) -> Tensor:
    """Returns x as a factor of several products: rounded once, if factors are; or as it is."""
    return x.to(_rounded) if _rounded is not None and rounds(x) else x


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, widen: bool = True) -> Tensor:
    """a [M,K], b [K,N], bias [N] -> a b + bias [M,N]. Not for autograd: call it in a Function.

    `widen` False leaves a rounded product in the type of its factors.
    """
    if b.is_mkldnn or rounds(a):
        return _rounded_product(a, b, bias, widen)
    if _by_onednn(a, b):
        return _linear(a, b.t(), bias, "none", [], "")  # type: ignore[no-any-return]
    return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


def add_product(base: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """base, a [M,K], b [K,N] -> base + a b [M,N], in `out` if given. Not for autograd either."""
    if b.is_mkldnn or rounds(a) or _by_onednn(a, b):
        return torch.add(base, product(a, b), out=out)
    return torch.addmm(base, a, b, out=out)


def shared(b: Tensor, rows: int) -> Tensor:
    """Returns b [K,N] as the right factor of many products with `rows` rows each.

    Rounded and laid out once instead of in each of them; for `product` and `add_product` alone.
    """
    if _rounded is None or b.dtype != torch.float32:
        return b.contiguous()
    if _rounded == torch.bfloat16 and b.device.type == "cpu" and _packed is not None:
        return _packed(b.t().to(_rounded), rows)  # type: ignore[no-any-return]
    return b.to(_rounded)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [T,B,I], weight [N,I], bias [N] -> [T,B,N]: F.linear, all steps at once, for autograd."""
    small = x.device.type != "cpu" or x.numel() * weight.shape[0] < 4 * LARGE
    if small and not rounds(x):
        return F.linear(x, weight, bias)
    return Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat, weight = rounded(x.flatten(0, 1)), rounded(weight)
        ctx.save_for_backward(flat, weight)
        return product(flat, weight.t(), bias).view(*x.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight = ctx.saved_tensors
        steps = len(grad)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad = grad.flatten(0, 1)
        d_bias = grad.sum(0) if wants_bias else None
        grad = rounded(grad)
        d_x = product(grad, weight).view(steps, -1, weight.shape[1]) if wants_x else None
        d_weight = product(grad.t(), flat) if wants_weight else None
        return d_x, d_weight, d_bias


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        _linear is not None
        and len(a) * b.numel() >= LARGE
        and a.dtype == torch.float32
        and a.device.type == "cpu"
        and (b.is_contiguous() or b.t().is_contiguous())  # oneDNN crawls through other layouts
    )


def _rounded_product(a: Tensor, b: Tensor, bias: Tensor | None, widen: bool) -> Tensor:
    a = rounded(a)
    if b.is_mkldnn:
        out: Tensor = _linear(a, b, None, "none", [], "")
    elif widen and a.is_cuda:
        out = torch.mm(a, rounded(b), out_dtype=torch.float32)
    else:
        out = torch.mm(a, rounded(b))
    if widen:
        out = out.float()
    return out if bias is None else out.add_(bias)
