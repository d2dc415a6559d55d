"""Plain tanh RNN, on cuDNN where there is a GPU.

h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

Shapes: W_ih [H,I], W_hh [H,H], both biases [H]; state (h,), [B,H]. All uniform in +-1/sqrt(H).

Paper: Elman 1990.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._fused import rnn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size, nonlinearity="tanh")

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return rnn(tuple(self.rnn.parameters()), x, state, self.training, "tanh")
