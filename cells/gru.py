"""GRU, on cuDNN where there is a GPU.

r, z = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh);
n = tanh(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn));  h_t = (1 - z) * n + z * h_{t-1}.

Gate order: r, z, n (torch's); the reset gate is applied after the recurrent product, as in cuDNN,
not before it as in the paper. Shapes: W_ih [3H,I], W_hh [3H,H], both biases [3H]; state (h,),
[B,H]. All uniform in +-1/sqrt(H).

Paper: Cho et al. 2014, arXiv 1406.1078.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._fused import gru


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return gru(tuple(self.rnn.parameters()), x, state, self.training)
