"""The GRU's recurrence with a mask on h_{t-1} or zoneout, and its gradient written out.

r, z = sigmoid(x_r,z + W_r,z h' + b_r,z);  n = tanh(x_n + r * (W_n h' + b_n));
c = (1 - z) * n + z * h_{t-1};  h_t = h_{t-1} + new_t * (c - h_{t-1}),

where x is the input's part of the pre-activations and h' = mask * h_{t-1}. Autograd would record
some ten kernels a step. Written out, a step forward is six calls and a step backward three: every
gate's gradient is d h_t times a factor that is known beforehand for all steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import add_product, product, shared


def gru(
    gates_x: Tensor,
    h: Tensor,
    w_hh: Tensor,
    b_hh: Tensor,
    *,
    mask: Tensor | None = None,
    new: Tensor | None = None,
) -> Tensor:
    """Returns raw [T,B,H].

    gates_x: [T,B,3H], W_ih x + b_ih. h: [B,H]. w_hh: [3H,H]. b_hh: [3H]. Gate order r, z, n.
    mask: multiplies h_{t-1} where it enters the recurrent products, not where z carries it over;
        [B,H] for all gates or [3,B,H] with one for each.
    new: [T,B,H], how much of the step is taken: 0, h stays as it was, to 1; None: all of it.
    """
    return _GRU.apply(gates_x, h, w_hh, b_hh, mask, new)  # type: ignore[no-untyped-call,no-any-return]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates_x: Tensor,
        h: Tensor,
        w_hh: Tensor,
        b_hh: Tensor,
        mask: Tensor | None,
        new: Tensor | None,
    ) -> Tensor:
        steps, columns, size = gates_x.shape[0], h.shape[0], h.shape[1]
        states = h.new_empty(steps + 1, columns, size)
        states[0] = h
        gates = torch.empty_like(gates_x)  # r, z and W_n h' + b_n
        n = torch.empty_like(states[1:])
        entering = states[:-1]
        if mask is not None:
            entering = h.new_empty(steps, *mask.shape)
        x_rz, x_n = gates_x[..., : 2 * size].unbind(), gates_x[..., 2 * size :].unbind()
        rz, r, z, w_n_h = (
            gates[..., cut].unbind()
            for cut in (
                slice(2 * size),
                slice(size),
                slice(size, 2 * size),
                slice(2 * size, 3 * size),
            )
        )
        whole = mask is None or mask.dim() == 2
        w_parts = [shared(w.t(), columns) for w in ([w_hh] if whole else w_hh.chunk(3))]
        h_at, n_at, into = states.unbind(), n.unbind(), entering.unbind()
        new_at = None if new is None else new.unbind()
        for t, gate in enumerate(gates.unbind()):
            if mask is not None:
                torch.mul(h_at[t], mask, out=into[t])
            if whole:
                add_product(b_hh, into[t], w_parts[0], out=gate)
            else:
                for to, bias, h_in, w in zip(
                    gate.chunk(3, 1),
                    b_hh.chunk(3),
                    into[t],
                    w_parts,
                    strict=True,
                ):
                    add_product(bias, h_in, w, out=to)
            rz[t].add_(x_rz[t]).sigmoid_()
            torch.addcmul(x_n[t], r[t], w_n_h[t], out=n_at[t]).tanh_()
            torch.lerp(n_at[t], h_at[t], z[t], out=h_at[t + 1])
            if new_at is not None:
                torch.lerp(h_at[t], h_at[t + 1], new_at[t], out=h_at[t + 1])
        ctx.save_for_backward(states, gates, n, entering, w_hh, mask, new)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor) -> tuple[Tensor | None, ...]:
        states, gates, n, entering, w_hh, mask, new = ctx.saved_tensors
        steps, columns, size = n.shape
        r, z, w_n_h = gates.chunk(3, -1)

        # d h_t times these is the gradient of: n's pre-activation, the three products, h_{t-1}.
        taken = 1 - z if new is None else (1 - z) * new
        stays = 1 - taken
        to_n = taken * (1 - n * n)
        factors = torch.empty_like(gates)
        to_r, to_z, to_product = factors.chunk(3, -1)
        torch.mul(to_n, r, out=to_product)
        torch.mul(to_product * w_n_h, 1 - r, out=to_r)
        torch.mul(taken * z, states[:-1] - n, out=to_z)

        grad_h = grad_raw.clone()
        grad_gates = torch.empty_like(gates)
        split = (steps, columns, 3, size)
        grad_h_at, grad_at = grad_h.unbind(), grad_gates.unbind()
        stays_at, factors_at = stays.unbind(), factors.view(split).unbind()
        grad_split_at = grad_gates.view(split).unbind()
        whole = mask is None or mask.dim() == 2
        w_parts = [shared(w, columns) for w in ([w_hh] if whole else w_hh.chunk(3))]
        first: Tensor | None = None
        for t in reversed(range(steps)):
            torch.mul(grad_h_at[t].unsqueeze(1), factors_at[t], out=grad_split_at[t])
            if t:
                before = grad_h_at[t - 1]
            elif ctx.needs_input_grad[1]:
                before = first = torch.zeros_like(grad_h_at[0])
            else:
                break
            before.addcmul_(grad_h_at[t], stays_at[t])
            if mask is None:
                add_product(before, grad_at[t], w_parts[0], out=before)
            elif whole:
                before.addcmul_(product(grad_at[t], w_parts[0]), mask)
            else:
                for grad, w, kept in zip(
                    grad_at[t].chunk(3, 1), w_parts, mask.unbind(), strict=True
                ):
                    before.addcmul_(product(grad, w), kept)

        flat = grad_gates.flatten(0, 1)
        if whole:
            grad_w = product(flat.t(), entering.flatten(0, 1))
        else:
            grad_w = torch.cat(
                [
                    product(grad.t(), h_in.flatten(0, 1))
                    for grad, h_in in zip(flat.chunk(3, 1), entering.unbind(1), strict=True)
                ]
            )
        grad_b = flat.sum(0)
        # x_n stands outside the product with r; the rest of the input's part has equal gradients.
        grad_x = grad_gates
        torch.mul(grad_h, to_n, out=grad_x[..., 2 * size :])
        return grad_x, first, grad_w, grad_b, None, None
