"""What the unitary cells share: complex units kept as real numbers, modReLU and the recurrence.

H real numbers are n = H/2 complex units, first the n real parts, then the n imaginary ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.products import add_product, product

EPSILON = 1e-10
"""Added to |z|^2, so that modReLU has a finite gradient where z is 0 (1e-5 for |z|)."""


def units(hidden_size: int) -> int:
    """Returns the number of complex units; raises ValueError when H is odd."""
    if hidden_size % 2:
        raise ValueError(
            "hidden_size must be even (a real and an imaginary part for each complex unit), "
            f"but is {hidden_size}"
        )
    return hidden_size // 2


def real(w: Tensor) -> Tensor:
    """Returns the real [2n,2n] matrix that does to (re, im) what the complex w [n,n] does to z."""
    return torch.cat([torch.cat([w.real, -w.imag], 1), torch.cat([w.imag, w.real], 1)])


def phases(angles: Tensor) -> Tensor:
    """Returns exp(i * angle)."""
    return torch.complex(angles.cos(), angles.sin())


class Evolution(torch.autograd.Function):
    """Runs z_t = modReLU(x_t + W z_{t-1}), where modReLU(z) = z * relu(|z| + b) / |z|.

    x [T,B,2n]: the input's part; z [B,2n]: the state before the first step; w [2n,2n]: `real` of
    W; b [n]. |z| is sqrt(re^2 + im^2 + EPSILON) throughout. Returns the states [T,B,2n].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, w: Tensor, b: Tensor) -> Tensor:
        n = b.shape[0]
        sums, raw = x.new_empty(x.shape), x.new_empty(x.shape)
        size = x.new_full((*x.shape[:2], n), EPSILON)
        scale = torch.empty_like(size)
        first, transposed, one = z, w.t(), torch.ones_like(b)
        # Views of all steps at once: in the loop each would cost like a small operation.
        sums_t, raw_t, sizes, scales = (
            part.unbind() for part in (sums, raw, size, scale.unsqueeze(2))
        )
        re, im = (part.unbind() for part in sums.chunk(2, -1))
        before, after = (part.view(*x.shape[:2], 2, n).unbind() for part in (sums, raw))
        for t, from_input in enumerate(x.unbind()):
            add_product(from_input, z, transposed, out=sums_t[t])
            r = sizes[t].addcmul_(re[t], re[t]).addcmul_(im[t], im[t]).sqrt_()
            torch.addcdiv(one, b, r, out=scales[t].squeeze(1)).clamp_min_(0)
            torch.mul(before[t], scales[t], out=after[t])
            z = raw_t[t]
        ctx.save_for_backward(first, sums, size, scale, raw, w, b)
        ctx.set_materialize_grads(False)
        return raw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        first, sums, size, scale, raw, w, b = ctx.saved_tensors
        n, pairs = b.shape[0], (*sums.shape[:2], 2, b.shape[0])
        # z * (1 + b / |z|) where that is not 0; what the length adds to the derivative is along z.
        along = (scale > 0) / size
        pull = sums * (along * b / size.square()).repeat(1, 1, 2)
        d_sums, dots = torch.empty_like(sums), torch.empty_like(size)
        both = torch.empty_like(first)
        left, right = both[:, :n], both[:, n:]
        running = torch.zeros_like(first)
        grads, sums_t, d_sums_t = grad.unbind(), sums.unbind(), d_sums.unbind()
        scales, dots_t = scale.unsqueeze(2).unbind(), dots.unsqueeze(2).unbind()
        d_pairs, pulls = d_sums.view(pairs).unbind(), pull.view(pairs).unbind()
        for t in range(len(grads) - 1, -1, -1):
            running += grads[t]
            torch.mul(running, sums_t[t], out=both)
            torch.add(left, right, out=dots_t[t].squeeze(1))
            d = torch.mul(running.view(-1, 2, n), scales[t], out=d_pairs[t])
            d.addcmul_(pulls[t], dots_t[t], value=-1)
            running = product(d_sums_t[t], w)
        before = torch.cat([first[None], raw[:-1]])
        d_w = product(d_sums.flatten(0, 1).t(), before.flatten(0, 1))
        return d_sums, running, d_w, (dots * along).sum((0, 1))
