"""Weight-dropped GRU: DropConnect on the recurrent weights, on torch's fused kernel.

r, z = sigmoid(W_ih x_t + b_ih + (M * W_hh) h_{t-1} + b_hh);
n = tanh(W_in x_t + b_in + r * ((M * W_hn) h_{t-1} + b_hn));  h_t = (1 - z) * n + z * h_{t-1}.
M is 0 with probability wdrop, else 1/(1-wdrop), for each weight; drawn once for all steps and
columns of a window.

Gate order: r, z, n (torch's); the reset gate is applied after the recurrent product, as in cell
`gru`. Shapes: W_ih [3H,I], W_hh and M [3H,H], both biases [3H]; state (h,), [B,H]. All uniform in
+-1/sqrt(H), the very draws of cell `gru`.

Paper: Merity, Keskar & Socher 2017, arXiv 1708.02182. The default is that of its LSTM on PTB.

The paper drops weights of an LSTM; the authors' code offers the GRU as well.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._checks import rates
from ._fused import gru
from ._weightdrop import weights


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, wdrop: float = 0.5) -> None:
        super().__init__()
        rates(wdrop=wdrop)
        self.wdrop = wdrop
        self.rnn = nn.GRU(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return gru(weights(self.rnn, noise, self.wdrop), x, state, self.training)
