"""Simple recurrent unit: an LSTM without recurrent matrices, and a highway past each layer.

f_t = sigmoid(W_f x_t + v_f * c_{t-1} + b_f);   c_t = f_t * c_{t-1} + (1 - f_t) * (W x_t);
r_t = sigmoid(W_r x_t + v_r * c_{t-1} + b_r);   h_t = r_t * c_t + (1 - r_t) * scale * x_t,
scale = sqrt(1 + 2 exp(highway_bias)). With v = false there are no v_f, v_r (the paper's first
version): the gates read x alone. If I is not H, W_x x_t stands in the place of scale * x_t, with
scale in W_x's initial weights.

Gate order: W, W_f, W_r, W_x. Shapes: weight [3H,I], or [4H,I] if I is not H; bias [2H] (f, r),
v [2H] (f, r); state (c,), [B,H]. Memory: c. Initial weights as in the paper and the authors' code:
uniform with variance 1/I, the gates' with half of it if they have a v; v with variance 1/2; b_f
zero, b_r `highway_bias`.

Paper: Lei et al. 2018, arXiv 1709.02755.

Differs from the paper: no dropout of its own (the paper's is variational); it leaves g, an optional
tanh on c_t, away, as the authors do in their last version. They train language models with
highway_bias = -3; the default, 0, is their layer's.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.api import Noise, State
from bench.products import linear

from ._checks import between
from ._scan import average, backward_states


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(
        self, input_size: int, hidden_size: int, *, v: bool = True, highway_bias: float = 0.0
    ) -> None:
        super().__init__()
        between(-80, 80, highway_bias=highway_bias)  # exp(80) is finite in float32
        self.hidden_size = hidden_size
        self.scale = math.sqrt(1 + 2 * math.exp(highway_bias))
        self.projects = input_size != hidden_size
        self.weight = nn.Parameter(torch.empty((3 + self.projects) * hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        self.v = nn.Parameter(torch.empty(2 * hidden_size)) if v else None
        reach = math.sqrt(3 / input_size)  # uniform in +-reach has variance 1/I
        gates = slice(hidden_size, 3 * hidden_size)
        with torch.no_grad():
            self.weight.uniform_(-reach, reach)
            self.weight[3 * hidden_size :] *= self.scale
            self.bias[hidden_size:] = highway_bias
            if self.v is not None:
                self.weight[gates] *= math.sqrt(0.5)
                self.v.uniform_(-math.sqrt(1.5), math.sqrt(1.5))

    def initial_state(self, batch_size: int) -> State:
        return (self.bias.new_zeros(batch_size, self.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        (c0,) = state
        z, f, r, *skip = linear(x, self.weight).chunk(3 + self.projects, dim=-1)
        b_f, b_r = self.bias.chunk(2)
        r = r + b_r
        if self.v is None:
            c = average(torch.sigmoid(f + b_f), z, c0)
        else:
            v_f, v_r = self.v.chunk(2)
            c = _Peephole.apply(z, f + b_f, v_f, c0)  # type: ignore[no-untyped-call]
            r = torch.addcmul(r, v_r, torch.cat([c0.unsqueeze(0), c[:-1]]))
        highway = skip[0] if skip else x * self.scale
        return torch.lerp(highway, c, torch.sigmoid(r)), (c[-1],), c


class _Peephole(torch.autograd.Function):
    """c_t = f_t * c_{t-1} + (1 - f_t) * z_t, f_t = sigmoid(a_t + v * c_{t-1}); z, a [T,B,H], v [H].

    The gate reads c, so forward must go step by step. Backward is a linear recurrence once more:
    dc_t/dc_{t-1} = f + (c_{t-1} - z) * f * (1 - f) * v, known for all t at once.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, a: Tensor, v: Tensor, c0: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        states = z.new_empty(z.shape[0] + 1, *z.shape[1:])
        states[0] = c0
        f = z.new_empty(z.shape)
        cs = states.unbind()
        for z_t, a_t, f_t, before, after in zip(
            z.unbind(), a.unbind(), f.unbind(), cs[:-1], cs[1:], strict=True
        ):
            torch.addcmul(a_t, v, before, out=f_t)
            f_t.sigmoid_()
            torch.lerp(z_t, before, f_t, out=after)
        ctx.save_for_backward(z, v, f, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        z, v, f, states = ctx.saved_tensors
        before = states[:-1]
        to_a = (before - z).mul_(f).mul_(1 - f)  # dc_t/da_t
        to_c = torch.addcmul(f, to_a, v)  # dc_t/dc_{t-1}
        dc = backward_states(to_c, grad)
        da = to_a.mul_(dc)
        dv = (da * before).sum((0, 1))
        return dc * (1 - f), da, dv, dc[0] * to_c[0]
