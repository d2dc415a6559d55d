"""The time loop of an LSTM with a normalised recurrent product and a normalised cell output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bench.products import product

from ._norm import Norm


class NormLSTM(Function):
    """gates_t = term_t + N(W_hh h_{t-1}; gain_hh);  c_t = f * c_{t-1} + i * g;
    h_t = o * tanh(N(c_t; gain_c, bias_c)).

    term [T,B,4H] in the order i, f, g, o, h and c [B,H], w_hh [4H,H], gain_hh [4H], gain_c and
    bias_c [H], norm -> the h_t and the c_t (not normalised), each [T,B,H], and what each step was
    normalised with: mean and rstd of W_hh h, mean and rstd of c, stacked over time, without a
    gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        term: Tensor,
        h: Tensor,
        c: Tensor,
        w_hh: Tensor,
        gain_hh: Tensor,
        gain_c: Tensor,
        bias_c: Tensor,
        norm: Norm,
    ) -> tuple[Tensor, ...]:
        size = h.shape[1]
        gates = torch.empty_like(term)
        memory, squashed, raw = (term.new_empty(*term.shape[:2], size) for _ in range(3))
        h_0, c_0, w = h, c, w_hh.t().contiguous()
        products, stats = [], []
        for t, gate in enumerate(gates.unbind()):
            products.append(product(h, w))
            normed, mean_hh, rstd_hh = norm.forward(products[t], gain_hh, None)
            torch.add(term[t], normed, out=gate)
            i, f, g, o = gate.chunk(4, 1)
            gate[:, : 2 * size].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            c = torch.mul(f, c, out=memory[t]).addcmul_(i, g)
            normed, mean_c, rstd_c = norm.forward(c, gain_c, bias_c)
            h = torch.mul(o, torch.tanh(normed, out=squashed[t]), out=raw[t])
            stats.append((mean_hh, rstd_hh, mean_c, rstd_c))
        per_step = tuple(torch.stack(each) for each in zip(*stats, strict=True))
        ctx.norm = norm
        ctx.save_for_backward(
            h_0, c_0, w_hh, gain_hh, gain_c, gates, memory, squashed, raw, *per_step, *products
        )
        ctx.mark_non_differentiable(*per_step)
        ctx.set_materialize_grads(False)
        return raw, memory, *per_step

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, draw: Tensor | None, dmemory: Tensor | None, *unused: None
    ) -> tuple[Tensor | None, ...]:
        h_0, c_0, w_hh, gain_hh, gain_c, gates, memory, squashed, raw, *rest = ctx.saved_tensors
        (mean_hh, rstd_hh, mean_c, rstd_c), products = rest[:4], rest[4:]
        norm: Norm = ctx.norm
        steps, columns, size = raw.shape
        if draw is None:
            draw = torch.zeros_like(raw)
        # Each first holds what dc_t (for i, f, g) or dh_t (for o and tanh) has to be multiplied by.
        dgates = _factors(gates, torch.cat([c_0.unsqueeze(0), memory[:-1]]), squashed)
        dnormeds = torch.ops.aten.tanh_backward(gates[..., 3 * size :], squashed)
        dgates_of_c = dgates.view(steps, columns, 4, size)[:, :, :3].unbind()
        dgates_of_h, forgets = dgates[..., 3 * size :].unbind(), gates.chunk(4, 2)[1].unbind()
        dproducts, dgains_hh, dgains_c, dbiases_c = [], [], [], []
        dh, dc = draw[-1], torch.zeros_like(c_0)
        for t in reversed(range(steps)):
            dnormed = dnormeds[t].mul_(dh)
            dc_t, dgain, dbias = norm.backward(
                dnormed, memory[t], gain_c, mean_c[t], rstd_c[t], [True, True, True]
            )
            dgains_c.append(dgain)
            dbiases_c.append(dbias)
            dc += dc_t
            if dmemory is not None:
                dc += dmemory[t]
            dgates_of_c[t].mul_(dc.unsqueeze(1))
            dgates_of_h[t].mul_(dh)
            dproduct, dgain, _ = norm.backward(
                dgates[t], products[t], gain_hh, mean_hh[t], rstd_hh[t], [True, True, False]
            )
            dproducts.append(dproduct)
            dgains_hh.append(dgain)
            dh = product(dproduct, w_hh)
            if t:
                dh += draw[t - 1]
            dc *= forgets[t]
        h_before = torch.cat([h_0.unsqueeze(0), raw[:-1]]).flatten(0, 1)
        dw_hh = product(torch.cat(dproducts[::-1]).t(), h_before)
        dgain_hh, dgain_c, dbias_c = (
            torch.stack(each).sum(0) for each in (dgains_hh, dgains_c, dbiases_c)
        )
        return dgates, dh, dc, dw_hh, dgain_hh, dgain_c, dbias_c, None


def _factors(gates: Tensor, c_before: Tensor, squashed: Tensor) -> Tensor:
    """The derivatives of c_t by the pre-activations of i, f, g, and of h_t by that of o."""
    factors = torch.empty_like(gates)
    i, f, g, o = gates.chunk(4, 2)
    of_i, of_f, of_g, of_o = factors.chunk(4, 2)
    aten = torch.ops.aten
    aten.sigmoid_backward.grad_input(g, i, grad_input=of_i)
    aten.sigmoid_backward.grad_input(c_before, f, grad_input=of_f)
    aten.tanh_backward.grad_input(i, g, grad_input=of_g)
    aten.sigmoid_backward.grad_input(squashed, o, grad_input=of_o)
    return factors
