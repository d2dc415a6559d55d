"""The decoder with its nll as one function, and the embedding that may share its weight."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import product, rounded, rounds

ROWS = 56
"""Logits at a time: of 10,000 words they stay in a core's cache for all passes over them."""


class Tie:
    """Where a tied weight's two gradients meet, on a CPU.

    The decoder's is dense, the embedding's a few hundred rows. Left alone, autograd makes the rows
    a dense [V,E], mostly zeros, and adds the two. Here the rows are added to the decoder's gradient
    in place: backward the decoder always comes first, for the rows depend on what it returns.
    """

    def __init__(self) -> None:
        self.gradient: Tensor | None = None

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """tokens [T,B], weight [V,E] -> [T,B,E]."""
        if tokens.is_cuda:
            return F.embedding(tokens, weight)
        self.gradient = None
        return _Embed.apply(tokens, weight, self)  # type: ignore[no-untyped-call, no-any-return]


def decode_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, tie: Tie | None = None
) -> Tensor:
    """hidden [T,B,E], weight [V,E], bias [V], targets [T,B] -> nll [T,B] in nats.

    0 where the target is -1. The same as cross entropy of a linear layer, in less time and memory:
    the logits become the softmax in place, and that, less one at the target, is their gradient but
    for each token's factor, which goes to the small side of the products that follow.
    """
    nll: Tensor = _DecodeNLL.apply(hidden.flatten(0, 1), weight, bias, targets.flatten(), tie)  # type: ignore[no-untyped-call]
    return nll.view_as(targets)


class _DecodeNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, tie: Tie | None
    ) -> Tensor:
        ctx.tie = tie
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
        wants_hidden, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad = grad * wanted
        column = grad.unsqueeze(1)
        d_bias = product(grad.unsqueeze(0), slope).squeeze(0) if wants_bias else None
        d_hidden = product(slope, weight).mul_(column) if wants_hidden else None
        d_weight = product(slope.t(), hidden * column) if wants_weight else None
        if ctx.tie is not None:
            ctx.tie.gradient = d_weight
        return d_hidden, d_weight, d_bias, None, None


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, tie: Tie) -> Tensor:
        ctx.tie, ctx.words = tie, len(weight)
        ctx.save_for_backward(tokens)
        return F.embedding(tokens, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (tokens,) = ctx.saved_tensors
        dense, ctx.tie.gradient = ctx.tie.gradient, None
        fresh = dense is None  # the decoder had no part in this loss
        if dense is None:
            dense = grad.new_zeros(ctx.words, grad.shape[-1])
        dense.index_add_(0, tokens.flatten(), grad.flatten(0, 1))
        return None, dense if fresh else None, None


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
