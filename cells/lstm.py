"""LSTM on torch's fused kernel: cuDNN on a GPU, oneDNN on a CPU.

i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh); sigmoid on i, f, o, tanh on g;
c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t).

Gate order: i, f, g, o (torch's). Shapes: W_ih [4H,I], W_hh [4H,H], both biases [4H]; state (h, c),
each [B,H]. All uniform in +-1/sqrt(H), torch's default and the AR/TAR paper's (arXiv 1708.01009).

Paper: Hochreiter & Schmidhuber 1997. The forget gate is that of Gers et al. 2000.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._fused import lstm


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return lstm(tuple(self.rnn.parameters()), x, state, self.training)
