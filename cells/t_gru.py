"""Strongly-typed GRU: the gates read the last two inputs, never the state.

z_t = V_z x_{t-1} + W_z x_t + b_z;        f_t = sigmoid(V_f x_{t-1} + W_f x_t + b_f);
o_t = tanh(V_o x_{t-1} + W_o x_t + b_o);  h_t = f_t * h_{t-1} + z_t * o_t.

Gate order: z, f, o. Shapes: weight [3H,2I], the columns of W (x_t) before those of V (x_{t-1}),
bias [3H]; state (h, last_x), [B,H] and [B,I]. All uniform in +-1/sqrt(H).

Paper: Balduzzi & Ghifary 2016, arXiv 1602.02218.

Not checked against the paper's own text: that the function of o, there written tau, is tanh, and
how the weights start. The input before the first is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._scan import scan
from ._scan_window import windows


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight = nn.Parameter(torch.empty(3 * hidden_size, 2 * input_size))
        self.bias = nn.Parameter(torch.empty(3 * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.bias.new_zeros
        return zeros(batch_size, self.hidden_size), zeros(batch_size, self.input_size)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        pair, last_x = windows(x, state[1], 2)
        z, f, o = linear(pair, self.weight, self.bias).chunk(3, dim=-1)
        h = scan(torch.sigmoid(f), z * torch.tanh(o), state[0])
        return h, (h[-1], last_x)
