"""The decoder and its nll as one function: logits once in memory, two passes over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import product, rounded, rounds

ROWS = 56
"""Logits at a time: of 10,000 words they stay in a core's cache for all passes over them."""


def decode_nll(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """hidden [T,B,E], weight [V,E], bias [V], targets [T,B] -> nll [T,B] in nats.

    0 where the target is -1. The same as cross entropy of a linear layer, in less time and memory:
    the logits become the softmax in place, and that, less one at the target, is their gradient but
    for each token's factor, which goes to the small side of the products that follow.
    """
    nll: Tensor = _DecodeNLL.apply(hidden.flatten(0, 1), weight, bias, targets.flatten())  # type: ignore[no-untyped-call]
    return nll.view_as(targets)


class _DecodeNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        narrow = rounded(weight)
        # Rounded logits stay narrow in memory: they are widened, and biased, a few at a time.
        widened = bias if rounds(hidden) else None
        slope = product(hidden, narrow.t(), None if rounds(hidden) else bias, widen=False)
        wanted = targets >= 0
        index = targets.clamp_min(0).unsqueeze(1)
        rows = len(slope) if slope.is_cuda else ROWS
        nll = [
            _softmax_less_one(*part, widened)
            for part in zip(torch.split(slope, rows), torch.split(index, rows), strict=True)
        ]
        ctx.save_for_backward(hidden, narrow, slope, wanted)
        return torch.cat(nll).masked_fill_(~wanted, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, slope, wanted = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grad = grad * wanted
        column = grad.unsqueeze(1)
        d_bias = product(grad.unsqueeze(0), slope).squeeze(0) if wants_bias else None
        d_hidden = product(slope, weight).mul_(column) if wants_hidden else None
        d_weight = product(slope.t(), hidden * column) if wants_weight else None
        return d_hidden, d_weight, d_bias, None


def _softmax_less_one(logits: Tensor, index: Tensor, bias: Tensor | None) -> Tensor:
    """logits [N,V], index [N,1], bias [V] -> nll [N]; logits become softmax, less 1 at index."""
    exact = logits if bias is None else logits + bias
    of_target, largest = exact.gather(1, index), exact.amax(1, keepdim=True)
    p = torch.softmax(exact, 1, out=exact)
    # log(sum exp) by way of the most likely word, whose probability no float rounds to 0.
    nll = largest - p.amax(1, keepdim=True).log() - of_target
    p.scatter_(1, index, p.gather(1, index) - 1)  # scatter_add_ has no deterministic kernel on CUDA
    if p is not logits:
        logits.copy_(p)
    return nll.squeeze(1)
