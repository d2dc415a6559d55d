"""minLSTM: an LSTM whose gates read the input alone and add up to 1, so that a scan computes it.

f, i = sigmoid(W x_t + b);  f' = f / (f + i);  i' = i / (f + i);  n_t = g(W_n x_t + b_n);
h_t = f' * h_{t-1} + i' * n_t.
g(a) = a + 0.5 where a >= 0 and sigmoid(a) elsewhere, with candidate = positive; g(a) = a with
candidate = linear.

Gate order: f, i, n. Shapes: weight [3H,I], bias [3H]; state (h,), [B,H]. All uniform in
+-1/sqrt(H); `forget_bias` is added to f's bias (the paper finds that a larger one trains faster).

Paper: Feng et al. 2024, arXiv 2410.01201.

Differs from the paper: `positive` is its log-space version, which it trains with; `linear` its
plain one. Here both are computed in real space, f' as sigmoid(log f - log i), which cannot divide
by zero, and h begins at 0 and not at g(0). The paper's language model sets a convolution before
each layer and a perceptron behind it, with layer normalization; only the recurrent layer is here.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import between
from ._scan import average
from ._scan_positive import positive


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate: Literal["positive", "linear"] = "positive",
        forget_bias: float = 0.0,
    ) -> None:
        super().__init__()
        between(-80, 80, forget_bias=forget_bias)
        self.candidate = candidate
        self.weight = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(3 * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        with torch.no_grad():
            self.bias[:hidden_size] += forget_bias

    def initial_state(self, batch_size: int) -> State:
        return (self.bias.new_zeros(batch_size, self.bias.shape[0] // 3),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        f, i, n = linear(x, self.weight, self.bias).chunk(3, dim=-1)
        share = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))  # f'; i' is 1 - f'
        if self.candidate == "positive":
            n = positive(n)
        h = average(share, n, state[0])
        return h, (h[-1],)
