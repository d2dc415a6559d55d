"""Tanh RNN with variational dropout of the recurrent connections: one mask for the whole window.

h_t = tanh(W_ih x_t + b_ih + W_hh (m * h_{t-1}) + b_hh);  m is 0 with probability p, else 1/(1-p),
one draw for each column and unit of a window.

Shapes: W_ih [H,I], W_hh [H,H], both biases [H]; state (h,), [B,H]. Weights, their names and their
initial draws are those of the cell `rnn_tanh`.

Paper: Gal & Ghahramani 2016, arXiv 1512.05287.

Differs from the paper: a window of truncated backpropagation is one sequence; the next has
another mask. Masks on the inputs of layers are the stack's (`dropouti`, `dropouth`, `dropout`).
The default rate, of the recurrent connections, is that of the paper's large LSTM.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import rates
from ._rnn import rnn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, p: float = 0.3) -> None:
        super().__init__()
        rates(p=p)
        self.p = p
        self.rnn = nn.RNN(input_size, hidden_size, nonlinearity="tanh")

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        (h,) = state
        w_ih, w_hh, b_ih, b_hh = self.rnn.parameters()
        mask = None
        if noise is not None and self.p > 0:
            mask = noise.mask("recurrent", tuple(h.shape), self.p)
        inputs = linear(x, w_ih, b_ih + b_hh)
        raw = rnn(inputs, h, w_hh, "tanh", mask=mask)
        return raw, (raw[-1],)
