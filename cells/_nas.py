"""The recurrence of the NAS cell, with its backward pass written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import add_product, product

PRODUCT = 6  # the block whose input and recurrent parts are multiplied, not added


class Tree(torch.autograd.Function):
    """Runs T steps of the tree that `cells/nas.py` tells.

    x [T,B,8H]: the input's part of the pre-activations; c, m [B,H]; w [8H,H]; b [8H] or None: on
    the recurrent part. Returns m and c of all steps, each [T,B,H].

    Blocks 0, 2, 4, 6 reach the output through c alone and blocks 1, 3, 5, 7 past it, so that the
    gradient of all eight is one product of a factor known beforehand with the pair (dc, de), where
    e is what the last tanh sees.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, c: Tensor, m: Tensor, w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        steps, columns, units = x.shape[0], x.shape[1], c.shape[1]
        blocks = x.clone(memory_format=torch.contiguous_format).view(steps, columns, 8, units)
        blocks[:, :, PRODUCT] = 0
        if b is not None:
            blocks += b.view(8, units)
        second = x.new_empty(steps, columns, 4, units)
        third = x.new_empty(steps, columns, 2, units)
        factor = x[..., PRODUCT * units : (PRODUCT + 1) * units]
        recurrent = x.new_empty(steps, columns, units)  # the recurrent part of the product
        all_c, all_m = torch.empty_like(recurrent), torch.empty_like(recurrent)
        first, transposed = (c, m), w.t()
        # Views of all steps at once: in the loop each would cost like a small operation.
        firsts = _each_step(
            blocks.flatten(2),
            *(blocks[:, :, k] for k in (slice(4), slice(4, 8, 2), slice(5, 8, 2))),
        )
        products = _each_step(blocks[:, :, PRODUCT], factor, recurrent)
        pairs = _each_step(*(blocks[:, :, k : k + 2] for k in (0, 4, 2, 6)))
        seconds = _each_step(
            *(second[:, :, k] for k in (slice(2), slice(2, 4), slice(3), 0, 1, 2, 3))
        )
        thirds = _each_step(third, third[:, :, 0], third[:, :, 1])
        outputs = _each_step(all_c, all_m)
        for t in range(steps):
            sums, gates, rectified, tanhs = firsts[t]
            add_product(sums, m, transposed, out=sums)
            product_m, product_x, kept = products[t]
            kept.copy_(product_m)
            product_m.mul_(product_x)
            gates.sigmoid_()
            rectified.relu_()
            tanhs.tanh_()
            a01, a45, a23, a67 = pairs[t]
            d01, d23, d012, d0, d1, d2, d3 = seconds[t]
            torch.mul(a01, a45, out=d01)
            torch.add(a23, a67, out=d23)
            d012.tanh_()
            d3.sigmoid_()
            e, e0, e1 = thirds[t]
            torch.add(d0, c, out=e0)
            torch.add(d1, d3, out=e1)
            e.tanh_()
            c, m = outputs[t]
            torch.mul(e0, d2, out=c)
            torch.mul(c, e1, out=m).tanh_()
        ctx.save_for_backward(*first, blocks, second, third, factor, recurrent, all_c, all_m, w, b)
        ctx.set_materialize_grads(False)
        return all_m, all_c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_m: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if grad_m is None and grad_c is None:
            return None, None, None, None, None
        c, m, a, d, e, factor, recurrent, all_c, all_m, w, b = ctx.saved_tensors
        if grad_m is None:
            grad_m = torch.zeros_like(all_m)
        slope_d, slope_e, slope_m = 1 - d * d, 1 - e * e, 1 - all_m * all_m
        slope_d[:, :, 3] = d[:, :, 3] - d[:, :, 3].square()
        to_c = slope_e[:, :, 0] * d[:, :, 2]  # from c to what is inside the tanh around c_{t-1}
        to_e = slope_e[:, :, 1] * all_c
        to_second = torch.stack([to_c, to_e, e[:, :, 0], to_e], 2)
        to_second *= slope_d
        grads = torch.empty_like(a)  # first the factors, then the gradients of the pre-activations
        left, right = grads[:, :, :4], grads[:, :, 4:]
        left.copy_(a[:, :, :4]).mul_(1 - a[:, :, :4]).mul_(to_second)
        left[:, :, :2] *= a[:, :, 4:6]
        torch.mul(a[:, :, 5::2], a[:, :, 5::2], out=right[:, :, 1::2]).neg_().add_(1)
        right[:, :, ::2] = a[:, :, 4::2] > 0
        right *= to_second
        right[:, :, :2] *= a[:, :, :2]
        of_product = right[:, :, 2].clone()
        right[:, :, 2] *= factor
        pairs = grads.view(*grads.shape[:2], 4, 2, -1).unbind()
        running = torch.empty_like(e)  # dc and de of each step
        d_m, d_c = torch.zeros_like(m), torch.zeros_like(c)
        both = running.unsqueeze(2).unbind()
        dc_t, de_t = (part.unbind() for part in running.unbind(2))
        d_sums, slopes, to_cs = (part.unbind() for part in (grads.flatten(2), slope_m, to_c))
        tanh_t, grads_m = e[:, :, 1].unbind(), grad_m.unbind()
        grads_c = None if grad_c is None else grad_c.unbind()
        for t in range(len(both) - 1, -1, -1):
            torch.mul(d_m.add_(grads_m[t]), slopes[t], out=de_t[t])
            torch.addcmul(d_c, de_t[t], tanh_t[t], out=dc_t[t])
            if grads_c is not None:
                dc_t[t].add_(grads_c[t])
            pairs[t].mul_(both[t])
            torch.mul(dc_t[t], to_cs[t], out=d_c)
            d_m = product(d_sums[t], w)
        d_a = grads.flatten(2)
        before = torch.cat([m[None], all_m[:-1]])
        d_w = product(d_a.flatten(0, 1).t(), before.flatten(0, 1))
        d_b = None if b is None else d_a.sum((0, 1))
        of_product.mul_(running[:, :, 0]).mul_(recurrent)
        d_x = grads.clone()
        d_x[:, :, PRODUCT] = of_product
        return d_x.flatten(2), d_c, d_m, d_w, d_b


def _each_step(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.unbind() for tensor in tensors), strict=True))
