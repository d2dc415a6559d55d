"""Elementwise linear recurrences over time: h_t = f_t * h_{t-1} + u_t, each unit on its own.

A rule on the device chooses how they are computed. On a CPU a loop does one fused operation a step
into a buffer made beforehand: it touches every number once. On a GPU, where a launch costs more
than a step's arithmetic, neighboring steps are joined in pairs until one is left: about 3 log2(T)
launches in place of T. Neither divides by a product of forget gates, which underflows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def scan(f: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Returns h_t = f_t * h_{t-1} + u_t for all t, [T,B,H], from f and u [T,B,H] and h_{-1} [B,H].

    Differentiable in all three, once; so is `average`.
    """
    return _Scan.apply(f, u, h)  # type: ignore[no-untyped-call, no-any-return]


def average(f: Tensor, z: Tensor, h: Tensor) -> Tensor:
    """Returns h_t = f_t * h_{t-1} + (1 - f_t) * z_t for all t; shapes as in `scan`."""
    return _Average.apply(f, z, h)  # type: ignore[no-untyped-call, no-any-return]


def by_pairs(like: Tensor) -> bool:
    """The rule: in pairs on a GPU, step by step elsewhere."""
    return like.device.type == "cuda"


def stepwise(f: Sequence[Tensor], u: Sequence[Tensor], states: Sequence[Tensor]) -> None:
    """Fills states[t+1] = f[t] * states[t] + u[t], from states[0], one step after another."""
    _each(lambda f_t, u_t, h, out: torch.addcmul(u_t, f_t, h, out=out), f, u, states)


def pairwise(f: Tensor, u: Tensor, states: Tensor) -> None:
    """Does the same as `stepwise`, on f and u [T,B,H] and states [T+1,B,H], in O(log T) launches.

    Two steps in a row are one step with forget gate f' f and input u' + f' u. So the states after
    steps 1, 3, 5, ... obey a recurrence of half the length; those in between follow from them.
    """
    steps = f.shape[0]
    if steps > 1:
        second = f[1::2]
        first = slice(0, 2 * second.shape[0], 2)
        pairwise(second * f[first], torch.addcmul(u[1::2], second, u[first]), states[::2])
    torch.addcmul(u[::2], f[::2], states[:steps:2], out=states[1::2])


def backward_states(f: Tensor, grad: Tensor) -> Tensor:
    """Returns d_t = grad_t + f_{t+1} * d_{t+1} for all t, [T,B,H]: the gradient of each h_t."""
    d = torch.empty_like(grad, memory_format=torch.contiguous_format)
    if by_pairs(grad):
        d[0] = grad[-1]
        pairwise(f[1:].flip(0), grad[:-1].flip(0), d)
        return d.flip(0)
    d[-1] = grad[-1]
    stepwise(f.unbind()[:0:-1], grad.unbind()[-2::-1], d.unbind()[::-1])
    return d


def _each(
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    f: Sequence[Tensor],
    u: Sequence[Tensor],
    states: Sequence[Tensor],
) -> None:
    for f_t, u_t, before, after in zip(f, u, states[:-1], states[1:], strict=True):
        step(f_t, u_t, before, after)


def _start(like: Tensor, h: Tensor) -> Tensor:
    """Returns room for h_{-1}, h_0, ..., h_{T-1}, so that every step's start is there as well."""
    states = like.new_empty(like.shape[0] + 1, *like.shape[1:])
    states[0] = h
    return states


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, u: Tensor, h: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        states = _start(u, h)
        if by_pairs(u):
            pairwise(f, u, states)
        else:
            stepwise(f.unbind(), u.unbind(), states.unbind())
        ctx.save_for_backward(f, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        f, states = ctx.saved_tensors
        d = backward_states(f, grad)
        return d * states[:-1], d, d[0] * f[0]


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, z: Tensor, h: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        states = _start(z, h)
        if by_pairs(z):
            pairwise(f, torch.addcmul(z, f, z, value=-1), states)
        else:
            _each(
                lambda f_t, z_t, h, out: torch.lerp(z_t, h, f_t, out=out),
                f.unbind(),
                z.unbind(),
                states.unbind(),
            )
        ctx.save_for_backward(f, z, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        f, z, states = ctx.saved_tensors
        d = backward_states(f, grad)
        return (states[:-1] - z).mul_(d), torch.addcmul(d, d, f, value=-1), d[0] * f[0]
