"""The recurrence of the recurrent highway network, with its backward pass written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import add_product, product


class Highway(torch.autograd.Function):
    """Runs T steps of `depth` micro-layers each.

    pre [T,B,2H]: what the input and the first bias add to the first micro-layer; s [B,H]: the state
    before the first step; w [depth,2H,H]; b [depth-1,2H]: the biases of the other micro-layers;
    mask [B,H] or None: multiplies the state before every product. Returns the states [T,B,H].
    """

    @staticmethod
    def forward(
        ctx: Any, pre: Tensor, s: Tensor, w: Tensor, b: Tensor, mask: Tensor | None
    ) -> Tensor:
        depth, (steps, columns, width), units = w.shape[0], pre.shape, s.shape[1]
        # One block a micro-layer, so that each weight's gradient is one product over all steps.
        gates = pre.new_empty(depth, steps, columns, width)
        inner = pre.new_empty(depth - 1, steps, columns, units)
        raw = pre.new_empty(steps, columns, units)
        first, dropped = s, torch.empty_like(s)
        # Views of all steps at once: in the loop each would cost like a small operation.
        weights, biases, from_input = w.transpose(1, 2).unbind(), b.unbind(), pre.unbind()
        sums = [block.unbind() for block in gates]
        h_all, t_all = ([block.unbind() for block in part] for part in gates.chunk(2, -1))
        after = [block.unbind() for block in (*inner, raw)]
        for step in range(steps):
            for layer in range(depth):
                into = torch.mul(s, mask, out=dropped) if mask is not None else s
                base = biases[layer - 1] if layer else from_input[step]
                add_product(base, into, weights[layer], out=sums[layer][step])
                h, t = h_all[layer][step].tanh_(), t_all[layer][step].sigmoid_()
                s = torch.lerp(s, h, t, out=after[layer][step])
        ctx.save_for_backward(first, gates, inner, raw, w, mask)
        ctx.set_materialize_grads(False)
        return raw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        first, gates, inner, raw, w, mask = ctx.saved_tensors
        depth, steps, units = gates.shape[0], gates.shape[1], raw.shape[2]
        before = torch.cat([first[None], raw[:-1]])[None]  # the state before each micro-layer
        before = torch.cat([before, inner]) if depth > 1 else before
        h, t = gates[..., :units], gates[..., units:]
        keep = 1 - t
        # What one unit of the new state's gradient gives to the pre-activations of h and of t.
        d_gates = torch.empty_like(gates)
        torch.mul(t, 1 - h * h, out=d_gates[..., :units])
        torch.mul((h - before).mul_(t), keep, out=d_gates[..., units:])
        pairs = [block.unbind() for block in d_gates.view(depth, steps, -1, 2, units)]
        d_sums = [block.unbind() for block in d_gates]
        keeps, weights, grads = [block.unbind() for block in keep], w.unbind(), grad.unbind()
        running = torch.zeros_like(first)
        for step in range(steps - 1, -1, -1):
            running += grads[step]
            for layer in range(depth - 1, -1, -1):
                pairs[layer][step].mul_(running.unsqueeze(1))
                running *= keeps[layer][step]
                if mask is None:
                    add_product(running, d_sums[layer][step], weights[layer], out=running)
                else:
                    running.addcmul_(product(d_sums[layer][step], weights[layer]), mask)
        if mask is not None:
            before = before * mask
        d_w = [
            product(d.flatten(0, 1).t(), s.flatten(0, 1))
            for d, s in zip(d_gates, before, strict=True)
        ]
        return d_gates[0], running, torch.stack(d_w), d_gates[1:].sum((1, 2)), None
