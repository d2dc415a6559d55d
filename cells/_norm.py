"""Normalising over the units of a column (layer norm) or over the columns of a batch (batch norm).

y = gain * (x - mean) / sqrt(variance + 1e-5) + bias, with the biased variance, on torch's kernels.
A `Norm` is a pair of functions for one time step, for loops that autograd does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EPSILON = 1e-5


@dataclass(frozen=True)
class Norm:
    """One way to normalise x [B,G], where G is H or a multiple of it.

    forward(x, gain [G], bias [G] or None) -> y [B,G], mean, rstd = 1/sqrt(variance + EPSILON).
    backward(dy [B,G], x, gain, mean, rstd, wanted) -> the gradients of x, gain and bias; wanted
    says which of them.
    mean and rstd are [B,1] over units, [G] over the batch.
    """

    forward: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, list[bool]], tuple[Tensor, Tensor, Tensor]
    ]


def _over_units(x: Tensor, gain: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x, gain.shape, gain, bias, EPSILON)


def _over_units_backward(
    dy: Tensor, x: Tensor, gain: Tensor, mean: Tensor, rstd: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    bias = gain  # its values do not matter
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        dy, x, gain.shape, mean, rstd, gain, bias, wanted
    )
    return grads


def _over_batch(x: Tensor, gain: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    # No running averages here: the kernel would divide by B - 1, and they are kept per window.
    return torch.native_batch_norm(x, gain, bias, None, None, True, 0.0, EPSILON)


def _over_batch_backward(
    dy: Tensor, x: Tensor, gain: Tensor, mean: Tensor, rstd: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        dy, x, gain, None, None, mean, rstd, True, EPSILON, wanted
    )
    return grads


OVER_UNITS = Norm(_over_units, _over_units_backward)
OVER_BATCH = Norm(_over_batch, _over_batch_backward)


class BatchNormSteps(Function):
    """Batch norm of a whole window, each step by its own statistics over the batch.

    x [T,B,G], gain [G], bias [G] -> y [T,B,G], mean [T,G], rstd [T,G]; the last two carry no
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.empty_like(x)
        mean, rstd = x.new_empty(2, x.shape[0], x.shape[2]).unbind()
        for step, *out in zip(x.unbind(), y.unbind(), mean.unbind(), rstd.unbind(), strict=True):
            torch.ops.aten.native_batch_norm.out(
                step, gain, bias, None, None, True, 0.0, EPSILON,
                out=out[0], save_mean=out[1], save_invstd=out[2],
            )  # fmt: skip
        ctx.save_for_backward(x, gain, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        return y, mean, rstd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *unused: None) -> tuple[Tensor, Tensor, Tensor]:
        x, gain, mean, rstd = ctx.saved_tensors
        steps = zip(dy.unbind(), x.unbind(), mean.unbind(), rstd.unbind(), strict=True)
        grads = [OVER_BATCH.backward(d, s, gain, m, r, [True] * 3) for d, s, m, r in steps]
        dx, dgain, dbias = (torch.stack(each) for each in zip(*grads, strict=True))
        return dx, dgain.sum(0), dbias.sum(0)
