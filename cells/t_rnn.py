"""Strongly-typed RNN: a gated running average of a linear image of the input.

z_t = W x_t;  f_t = sigmoid(V x_t + b);  h_t = f_t * h_{t-1} + (1 - f_t) * z_t.

Gate order: z (W), f (V). Shapes: weight [2H,I], bias [H] (f alone); state (h,), [B,H]. All uniform
in +-1/sqrt(H).

Paper: Balduzzi & Ghifary 2016, arXiv 1602.02218.

Differs from the paper: nothing known; its initial weights are not given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._scan import average


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> State:
        return (self.bias.new_zeros(batch_size, self.bias.shape[0]),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        z, f = linear(x, self.weight).chunk(2, dim=-1)
        h = average(torch.sigmoid(f + self.bias), z, state[0])
        return h, (h[-1],)
