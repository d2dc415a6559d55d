"""minGRU: a GRU whose gate and candidate read the input alone, so that a scan computes it.

z_t = sigmoid(W_z x_t + b_z);  n_t = g(W_n x_t + b_n);  h_t = (1 - z_t) * h_{t-1} + z_t * n_t.
g(a) = a + 0.5 where a >= 0 and sigmoid(a) elsewhere, with candidate = positive; g(a) = a with
candidate = linear.

Gate order: z, n. Shapes: weight [2H,I], bias [2H]; state (h,), [B,H]. All uniform in +-1/sqrt(H).

Paper: Feng et al. 2024, arXiv 2410.01201.

Differs from the paper: `positive` is its log-space version, which it trains with; `linear` its
plain one. Here both are computed in real space, which needs no logarithms, and h begins at 0 and
not at g(0). The paper's language model sets a convolution before each layer and a perceptron behind
it, with layer normalization; only the recurrent layer is here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._scan import average
from ._scan_positive import positive


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate: Literal["positive", "linear"] = "positive",
    ) -> None:
        super().__init__()
        self.candidate = candidate
        self.weight = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(2 * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> State:
        return (self.bias.new_zeros(batch_size, self.bias.shape[0] // 2),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        z, n = linear(x, self.weight, self.bias).chunk(2, dim=-1)
        if self.candidate == "positive":
            n = positive(n)
        h = average(torch.sigmoid(-z), n, state[0])
        return h, (h[-1],)
