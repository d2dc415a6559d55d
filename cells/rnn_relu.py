"""Plain RNN of rectified linear units on torch's fused kernel: cuDNN on a GPU.

h_t = relu(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh).

Shapes: W_ih [H,I], W_hh [H,H], both biases [H]; state (h,), [B,H]. All uniform in +-1/sqrt(H), and
at equal seed equal to those of the cell `rnn_tanh`.

Paper: Le et al. 2015, arXiv 1504.00941.

Differs from the paper: this is its "RNN + ReLU" baseline, there with recurrent weights drawn from a
Gaussian; its proposal is the cell `irnn`. Nothing bounds h.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._fused import rnn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size, nonlinearity="relu")

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return rnn(tuple(self.rnn.parameters()), x, state, self.training, "relu")
