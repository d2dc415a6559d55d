"""The recurrence of simple RNNs, h_t = act(x_t + W_hh (mask * h_{t-1})), its gradient written out.

Each activation's derivative can be read from its value, so h is all that has to be kept: two calls
a step forward (modReLU: six), two backward, and one product for the gradient of W_hh.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import add_product, product, shared

Act = Literal["tanh", "relu", "modrelu"]


def rnn(
    inputs: Tensor,
    h: Tensor,
    w_hh: Tensor,
    act: Act,
    *,
    mask: Tensor | None = None,
    threshold: Tensor | None = None,
) -> Tensor:
    """Returns raw [T,B,H].

    inputs: [T,B,H], W_ih x plus the biases. h: [B,H]. w_hh: [H,H].
    mask: [B,H], multiplies h_{t-1} in the recurrent product.
    threshold: [H], the b of modReLU(a) = sign(a) * relu(|a| + b), and only modReLU's. At a = 0
        both the value and the derivative are 0.
    """
    return _RNN.apply(inputs, h, w_hh, act, mask, threshold)  # type: ignore[no-untyped-call,no-any-return]


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        h: Tensor,
        w_hh: Tensor,
        act: Act,
        mask: Tensor | None,
        threshold: Tensor | None,
    ) -> Tensor:
        states = h.new_empty(inputs.shape[0] + 1, *h.shape)
        states[0] = h
        entering = states[:-1] if mask is None else torch.empty_like(states[:-1])
        transposed = shared(w_hh.t(), len(h))
        h_at, into = states.unbind(), entering.unbind()
        for t, x in enumerate(inputs.unbind()):
            if mask is not None:
                torch.mul(h_at[t], mask, out=into[t])
            after = add_product(x, into[t], transposed, out=h_at[t + 1])
            if act == "tanh":
                after.tanh_()
            elif act == "relu":
                after.clamp_min_(0)
            else:
                assert threshold is not None
                sign = after.sign()
                after.abs_().add_(threshold).clamp_min_(0).mul_(sign)
        ctx.act = act
        ctx.save_for_backward(states, entering, w_hh, mask)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor) -> tuple[Tensor | None, ...]:
        states, entering, w_hh, mask = ctx.saved_tensors
        raw = states[1:]
        if ctx.act == "tanh":
            slope = 1 - raw * raw
        else:  # the others' value is 0 where they are off, and only there
            slope = (raw != 0).to(raw.dtype)

        # From the gradients of h, step by step backward, to those of the pre-activations.
        grad = grad_raw.clone()
        grad_at, slope_at = grad.unbind(), slope.unbind()
        w = shared(w_hh, grad_raw.shape[1])
        first: Tensor | None = None
        for t in reversed(range(len(grad_at))):
            grad_at[t].mul_(slope_at[t])
            if t:
                before = grad_at[t - 1]
            elif ctx.needs_input_grad[1]:
                before = first = torch.zeros_like(grad_at[0])
            else:
                break
            if mask is None:
                add_product(before, grad_at[t], w, out=before)
            else:
                before.addcmul_(product(grad_at[t], w), mask)
        grad_w = product(grad.flatten(0, 1).t(), entering.flatten(0, 1))
        grad_threshold = (grad * raw.sign()).sum((0, 1)) if ctx.act == "modrelu" else None
        return grad, first, grad_w, None, None, grad_threshold
