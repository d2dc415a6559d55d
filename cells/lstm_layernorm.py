"""LSTM whose two gate products and cell output are normalised over the layer's units.

i, f, g, o = split(LN(W_hh h_{t-1}; gain_hh) + LN(W_ih x_t; gain_ih) + b); sigmoid on i, f, o, tanh
on g;  c_t = f * c_{t-1} + i * g;  h_t = o * tanh(LN(c_t; gain_c, b_c));
LN(a; gain) = gain * (a - mean(a)) / sqrt(var(a) + 1e-5), the mean and the biased variance of one
column at one step, over all 4H pre-activations together (over the H units of c).

Gate order: i, f, g, o. Shapes: W_ih [4H,I], W_hh [4H,H], gain_ih, gain_hh and b [4H], gain_c and
b_c [H]; state (h, c), each [B,H], and memory [T,B,H], the c that is not normalised. Weights uniform
in +-1/sqrt(H), gains 1, biases 0 but `forget_bias` for f.

Paper: Ba, Kiros & Hinton 2016, arXiv 1607.06450.

Formula, groups and 1e-5 are those of the paper and its authors' code. They give both products a
bias besides b; only the sum of the three matters, so here it is one. They draw the weights
otherwise (orthogonal W_hh); but for the 1e-5 their scale does not matter to the output. Over very
long windows gradients grow: the largest, of mean(h^2) at 64 units and 20 columns, is about
0.1 at T = 150 and above 5 at T = 300; at bptt 35 to 70 that is harmless.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import finite
from ._norm import EPSILON, OVER_UNITS
from ._norm_lstm import NormLSTM


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 0.0) -> None:
        super().__init__()
        finite(forget_bias=forget_bias)
        bound = hidden_size**-0.5
        self.w_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.gain_ih = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_hh = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_c = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.bias_c = nn.Parameter(torch.zeros(hidden_size))
        nn.init.constant_(self.bias[hidden_size : 2 * hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> State:
        zeros = self.w_hh.new_zeros(batch_size, self.w_hh.shape[1])
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        h, c = state
        product = linear(x, self.w_ih)
        term = F.layer_norm(product, self.gain_ih.shape, self.gain_ih, self.bias, EPSILON)
        raw, memory, *_ = NormLSTM.apply(  # type: ignore[no-untyped-call]
            term, h, c, self.w_hh, self.gain_hh, self.gain_c, self.bias_c, OVER_UNITS
        )
        return raw, (raw[-1], memory[-1]), memory
