"""GRU with zoneout: at each step each unit keeps its previous value with probability zh.

r, z = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh);
n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn));  c = (1 - z) * n + z * h_{t-1};
h_t = h_{t-1} with probability zh, else c, drawn for each step, column and unit; without noise the
expectation, h_t = zh * h_{t-1} + (1 - zh) * c.

Gate order: r, z, n (torch's). Shapes: W_ih [3H,I], W_hh [3H,H], both biases [3H]; state (h,),
[B,H]. Weights, their names and their initial draws are those of the cell `gru`.

Paper: Krueger et al. 2017, arXiv 1606.01305.

Differs from the paper: the reset gate acts after the recurrent product, as in cuDNN, and weights
start uniform in +-1/sqrt(H), not orthogonal. The paper names no one rate for its GRU, only that
0.05 to 0.25 helps (on characters of PTB); the default lies between.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import rates
from ._gru import gru
from ._zoneout import share_of_new


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, zh: float = 0.1) -> None:
        super().__init__()
        rates(zh=zh)
        self.zh = zh
        self.rnn = nn.GRU(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        (h,) = state
        w_ih, w_hh, b_ih, b_hh = self.rnn.parameters()
        new = share_of_new("zoneout h", (len(x), *h.shape), self.zh, noise, x)
        raw = gru(linear(x, w_ih, b_ih), h, w_hh, b_hh, new=new)
        return raw, (raw[-1],)
