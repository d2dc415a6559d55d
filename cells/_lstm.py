"""The LSTM as one autograd function, with places for masks inside the recurrence.

i, f, g, o = split(W_ih x_t + b_ih + b_hh + W_hh h~_{t-1});  h~ = h_mask * h, per gate if wanted;
new c = f * c_{t-1} + i * (g_mask * g);  c_t = c_{t-1} + new_c_t * (new c - c_{t-1});
new h = o * tanh(new c);                 h_t = h_{t-1} + new_h_t * (new h - h_{t-1}).

The fused kernels have no place for such masks, and a loop of autograd operations spends its time
on bookkeeping. Here the input product is one product over all steps; the forward loop writes into
buffers; the backward pass is written out, so that its loop is five small operations a step and the
gradient of W_hh one large product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.api import State
from bench.products import add_product, linear, product, rounds, shared


def run(
    weights: Sequence[Tensor],
    x: Tensor,
    state: State,
    *,
    h_mask: Tensor | None = None,
    g_mask: Tensor | None = None,
    new_c: Tensor | None = None,
    new_h: Tensor | None = None,
) -> tuple[Tensor, State, Tensor]:
    """x [T,B,I], state (h, c), each [B,H] -> raw [T,B,H], state, memory (each step's c) [T,B,H].

    weights: w_ih [4H,I], w_hh [4H,H], b_ih and b_hh [4H], as a one-layer nn.LSTM holds them.
    h_mask: on h_{t-1} in the recurrent product, [B,H], or [4,B,H] for gates i, f, g, o each.
    g_mask: on the candidate, [T,B,H], or [1,B,H] for all steps.
    new_c, new_h: [T,B,H], how much of the new c and h is taken, 1 all and 0 none. The new h reads
        the whole new c.
    None leaves its place out. Gradients reach x, the state and the weights, not the masks.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    # One product over all steps; the biases never part, so their sum serves.
    gates_x = linear(x, w_ih, b_ih + b_hh)
    masks = (h_mask, g_mask, new_c, new_h)
    raw, memory = Recurrence.apply(gates_x, *state, w_hh, *masks)  # type: ignore[no-untyped-call]
    return raw, (raw[-1], memory[-1]), memory


class Recurrence(torch.autograd.Function):
    """gates_x [T,B,4H], h, c [B,H], w_hh [4H,H], `run`'s masks -> raw, memory, each [T,B,H]."""

    @staticmethod
    def forward(
        ctx: Any,
        gates_x: Tensor,
        h: Tensor,
        c: Tensor,
        w_hh: Tensor,
        h_mask: Tensor | None,
        g_mask: Tensor | None,
        new_c: Tensor | None,
        new_h: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        steps, columns, size = len(gates_x), *h.shape
        gates = gates_x.new_empty(steps, columns, 4, size)
        # The states before each step and, from the second on, after it.
        all_h, all_c = (gates_x.new_empty(steps + 1, columns, size) for _ in range(2))
        all_h[0], all_c[0] = h, c
        raw, memory, squashed = all_h[1:], all_c[1:], torch.empty_like(all_h[1:])
        ctx.save_for_backward(gates, all_h, all_c, squashed, w_hh, h_mask, g_mask, new_c, new_h)
        ctx.set_materialize_grads(False)
        # Views of all steps are made at once: in the loop each would cost like a small operation.
        i_all, f_all, g_all, o_all = (gates[:, :, k].unbind() for k in range(4))
        if_all = gates[:, :, :2].unbind()
        raws, memories, squasheds = raw.unbind(), memory.unbind(), squashed.unbind()
        g_masks = _each_step(g_mask, raw)
        new_cs, new_hs = _each_step(new_c, raw), _each_step(new_h, raw)
        h_masks = _parts_of_mask(h_mask)
        x_parts, pre_parts = _parts(gates_x, len(h_masks)), _parts(gates, len(h_masks))
        w_parts = [shared(w.t(), columns) for w in w_hh.chunk(len(h_masks))]
        h_scratch, c_scratch = torch.empty_like(raw[0]), torch.empty_like(raw[0])
        tanh = _tanh_by_sigmoid if rounds(h) else _tanh
        for t in range(steps):
            for mask, xs, w, pres in zip(h_masks, x_parts, w_parts, pre_parts, strict=True):
                h_in = h if mask is None else torch.mul(h, mask, out=h_scratch)
                add_product(xs[t], h_in, w, out=pres[t])
            if_all[t].sigmoid_()
            g = tanh(g_all[t], g_all[t])
            o = o_all[t].sigmoid_()
            if g_masks is not None:
                g = torch.mul(g, g_masks[t], out=h_scratch)
            whole_c = memories[t] if new_cs is None else c_scratch
            torch.mul(f_all[t], c, out=whole_c).addcmul_(i_all[t], g)
            tanh(whole_c, squasheds[t])
            if new_cs is not None:
                torch.lerp(c, whole_c, new_cs[t], out=memories[t])
            if new_hs is None:
                torch.mul(o, squasheds[t], out=raws[t])
            else:
                torch.mul(o, squasheds[t], out=h_scratch)
                torch.lerp(h, h_scratch, new_hs[t], out=raws[t])
            h, c = raws[t], memories[t]
        return raw, memory

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_raw: Tensor | None, grad_memory: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        gates, all_h, all_c, squashed, w_hh, h_mask, g_mask, new_c, new_h = ctx.saved_tensors
        raw = all_h[1:]
        if grad_raw is None:
            grad_raw = torch.zeros_like(raw)
        d_gates, by_h = _slopes(gates, squashed, all_c[:-1], g_mask, new_h)
        new_cs = _each_step(new_c, raw)
        old_cs = _each_step(None if new_c is None else 1 - new_c, raw)
        old_hs = _each_step(None if new_h is None else 1 - new_h, raw)
        h_masks = _parts_of_mask(h_mask)
        w_parts = [shared(w, raw.shape[1]) for w in w_hh.chunk(len(h_masks))]
        back_parts = _parts(d_gates, len(h_masks))
        ifg_all, o_all = d_gates[:, :, :3].unbind(), d_gates[:, :, 3].unbind()
        forgets, by_hs, raw_grads = gates[:, :, 1].unbind(), by_h.unbind(), grad_raw.unbind()
        memory_grads = None if grad_memory is None else grad_memory.unbind()
        # In the loop: dh and dc are the gradients of h_t and c_t over all paths; d_new is that of
        # the new c before zoneout, and the same buffer as dc where there is none.
        dh = raw_grads[-1].clone()
        dc = torch.zeros_like(dh) if memory_grads is None else memory_grads[-1].clone()
        d_new = dc if new_cs is None else torch.empty_like(dc)
        d_new_by_gate = d_new.unsqueeze(1)
        for t in range(len(raw) - 1, -1, -1):
            if new_cs is not None:
                torch.mul(dc, new_cs[t], out=d_new)
            d_new.addcmul_(dh, by_hs[t])
            ifg_all[t].mul_(d_new_by_gate)  # the slopes become gradients in place
            o_all[t].mul_(dh)
            if old_cs is None:
                dc.mul_(forgets[t])
            else:
                dc.mul_(old_cs[t]).addcmul_(d_new, forgets[t])
            if t > 0 and memory_grads is not None:
                dc.add_(memory_grads[t - 1])
            if t == 0 and not ctx.needs_input_grad[1]:
                break  # the usual case, a state cut off from the window before: a product saved
            if old_hs is None:
                base = raw_grads[t - 1] if t > 0 else dh.zero_()
            else:
                dh.mul_(old_hs[t])
                base = dh.add_(raw_grads[t - 1]) if t > 0 else dh
            for mask, backs, w in zip(h_masks, back_parts, w_parts, strict=True):
                if mask is None:
                    add_product(base, backs[t], w, out=dh)
                else:
                    torch.addcmul(base, product(backs[t], w), mask, out=dh)
                    base = dh
        d_w = None
        if ctx.needs_input_grad[3]:
            h_before, d_parts = all_h[:-1], []
            for mask, part in zip(h_masks, d_gates.flatten(2).chunk(len(h_masks), 2), strict=True):
                masked = h_before if mask is None else h_before * mask
                d_parts.append(product(part.flatten(0, 1).t(), masked.flatten(0, 1)))
            d_w = torch.cat(d_parts)
        return d_gates.flatten(2), dh, dc, d_w, None, None, None, None


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    return torch.tanh(x, out=out)


def _tanh_by_sigmoid(x: Tensor, out: Tensor) -> Tensor:
    """2 sigmoid(2 x) - 1: off by 2e-7 at most, which rounded products drown, in a third of the time
    of torch's tanh on a CPU."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _slopes(
    gates: Tensor, squashed: Tensor, c_before: Tensor, g_mask: Tensor | None, new_h: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns, for all steps at once, what the loop back multiplies its gradients with.

    [T,B,4,H]: of the new c by the inputs of i, f and g, and of h_t by the input of o;
    [T,B,H]: of h_t by the new c.
    """
    i, _, g, o = gates.unbind(2)
    slopes = torch.empty_like(gates)
    to_i, to_f, to_g, to_o = slopes.unbind(2)
    i_and_f = gates[:, :, :2]
    torch.addcmul(i_and_f, i_and_f, i_and_f, value=-1, out=slopes[:, :, :2])  # sigmoid' = s - s^2
    torch.addcmul(o, o, o, value=-1, out=to_o)
    to_i.mul_(g)
    to_f.mul_(c_before)
    torch.mul(i, g, out=to_g)
    torch.addcmul(i, to_g, g, value=-1, out=to_g)  # i (1 - g^2)
    if g_mask is not None:
        to_i.mul_(g_mask)
        to_g.mul_(g_mask)
    to_o.mul_(squashed)
    by_h = o * squashed
    torch.addcmul(o, by_h, squashed, value=-1, out=by_h)  # o (1 - tanh^2)
    if new_h is not None:
        to_o.mul_(new_h)
        by_h.mul_(new_h)
    return slopes, by_h


def _each_step(mask: Tensor | None, like: Tensor) -> tuple[Tensor, ...] | None:
    return None if mask is None else mask.expand_as(like).unbind()


def _parts_of_mask(h_mask: Tensor | None) -> tuple[Tensor | None, ...]:
    """One part for the gates together, or four where each has its own mask on h."""
    if h_mask is None or h_mask.dim() == 2:
        return (h_mask,)
    return h_mask.unbind()


def _parts(gates: Tensor, count: int) -> list[tuple[Tensor, ...]]:
    """Returns for each of `count` parts of [T,B,4H] or [T,B,4,H] its steps."""
    return [part.unbind() for part in gates.flatten(2).chunk(count, 2)]
