"""NAS cell: the recurrent cell that a search by reinforcement learning found on PTB.

With x_k and m_k block k of W_ih x_t and of W_hh m_{t-1} (+ b with `bias=True`), and S for sigmoid:
d0 = tanh(S(x0 + m0) * relu(x4 + m4));  d1 = tanh(S(x1 + m1) * tanh(x5 + m5));
d2 = tanh(S(x2 + m2) + relu(x6 * m6));  d3 = S(S(x3 + m3) + tanh(x7 + m7));
c_t = tanh(d0 + c_{t-1}) * d2;  m_t = tanh(c_t * tanh(d1 + d3)).

Block order: as above; with the numbers of the open implementation (TensorFlow's NASCell, by the
paper's first author) 0, 5, 2, 7, 1, 4, 3, 6. Block 6 multiplies where the others add. Shapes:
W_ih [8H,I], W_hh [8H,H], b [8H]; state (c, m), each [B,H]; the output is m, the memory c. All
uniform in +-1/sqrt(H), but block 4 of W_ih 19.2 times as large.

Paper: Zoph & Le 2017, arXiv 1611.01578.

Differs: the paper draws the tree and leaves biases open; as in the open implementation there are
none by default, and with them they are on the recurrent part. No projection. The paper does not
tell how the cell's weights begin. Where all sums are near 0, the input reaches the output through
block 4 alone, m = S(0) * relu(x4) * tanh(S(0) + 0) * tanh(S(S(0))), a 13th of relu(x4), and two
layers of that lose it. So that m has the mean square of a small input at first, whatever H and the
layer are, block 4 of W_ih is larger by 1 / (S(0) tanh(S(0)) tanh(S(S(0)))), by sqrt(2) for what
relu cuts off and by sqrt(3) for the uniform's variance.

Published: word PTB 64.0 test (25M parameters, tied), 62.4 (54M, tied), 67.9 (32M, untied).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._nas import Tree

INPUT = 4  # the block through which the input reaches the output while all sums are small


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = False) -> None:
        super().__init__()
        self.w_ih = nn.Parameter(torch.empty(8 * hidden_size, input_size))
        self.w_hh = nn.Parameter(torch.empty(8 * hidden_size, hidden_size))
        self.b = nn.Parameter(torch.empty(8 * hidden_size)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        with torch.no_grad():
            self.w_ih[INPUT * hidden_size : (INPUT + 1) * hidden_size] *= math.sqrt(6) / passed()

    def initial_state(self, batch_size: int) -> State:
        zeros = self.w_hh.new_zeros(batch_size, self.w_hh.shape[1])
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        c, m = state
        from_input = linear(x, self.w_ih)
        raw, memory = Tree.apply(from_input, c, m, self.w_hh, self.b)  # type: ignore[no-untyped-call]
        return raw, (memory[-1], raw[-1]), memory


def passed() -> float:
    """Returns the share of relu(x4) that reaches m at once, while all sums are near 0."""
    half = 0.5
    return half * math.tanh(half) * math.tanh(1 / (1 + math.exp(-half)))
