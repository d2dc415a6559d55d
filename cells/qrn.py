"""Query-reduction network: a query turned, step by step, into one that the input has answered.

z_t = sigmoid(W_z (x_t * q) + b_z);  r_t = sigmoid(W_r (x_t * q) + b_r), 1 without reset;
n_t = tanh(W_n x_t + b_n);           h_t = z_t * r_t * n_t + (1 - z_t) * h_{t-1}.

z and r are one number for each unit (gate = vector, the paper's variant "v"), or one each for all
units (gate = scalar), whose gradient is the sum of theirs: that asks for a lower learning rate.
Rows of W: n, z, r (G rows for each gate, G = 1 or H). Shapes: weight_n [H,I], weight_gates [G,I]
or [2G,I], bias_n [H], bias_gates [G] or [2G], query [I]; state (h,), [B,H]. All uniform in
+-1/sqrt(H), but b_z is -forget_bias, b_r is 0, and q is 1.

Paper: Seo et al. 2017, arXiv 1606.04582.

Differs from the paper: it answers questions, and there q is the question in the first layer and the
layer below's h_t in the others, beside an x that all layers share. A language model asks one
question forever, "which word comes next?", and a layer here is given one input: so q is learned,
one vector a layer, and x is the layer below's output. Its n_t is tanh(W_n [x_t; q] + b_n): as q is
the same at every step, its part of W_n adds a constant, which b_n is already; as a weight of its
own it would only multiply the learning rate of b_n by 1 + |q|^2, that is by about I. Its
forget_bias is 2.5: a story's sentence seldom matters to the question. The word just read always
matters to the next one, and so a step is half new here. The backward direction and the tying of
layers are left out; its Xavier weights are the bench's uniform ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._scan import scan


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gate: Literal["scalar", "vector"] = "vector",
        reset: bool = False,
        forget_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden_size, self.reset = hidden_size, reset
        gate_size = hidden_size if gate == "vector" else 1
        rows = gate_size * (1 + reset)
        self.weight_n = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_gates = nn.Parameter(torch.empty(rows, input_size))
        self.bias_n = nn.Parameter(torch.empty(hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        self.bias_gates = nn.Parameter(torch.zeros(rows))
        nn.init.constant_(self.bias_gates[:gate_size], -forget_bias)
        self.query = nn.Parameter(torch.ones(input_size))

    def initial_state(self, batch_size: int) -> State:
        return (self.bias_n.new_zeros(batch_size, self.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        # q is the same at every step, so it goes into the weights: one product for everything.
        weight = torch.cat([self.weight_n, self.weight_gates * self.query])
        bias = torch.cat([self.bias_n, self.bias_gates])
        product = linear(x, weight, bias)
        n = product[..., : self.hidden_size]
        z, *r = product[..., self.hidden_size :].chunk(1 + self.reset, dim=-1)
        taken = torch.sigmoid(z)
        if r:
            taken = taken * torch.sigmoid(r[0])
        keep = torch.sigmoid(-z).expand_as(n)
        h = scan(keep, taken * torch.tanh(n), state[0])
        return h, (h[-1],)
