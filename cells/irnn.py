"""IRNN: an RNN of rectified linear units whose recurrent matrix starts as the identity.

h_t = relu(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh);  at the start W_hh = scale * identity, so that a
unit keeps (scale 1) or slowly forgets (below 1) what it holds until training says otherwise.

Shapes: W_ih [H,I], W_hh [H,H], both biases [H]; state (h,), [B,H]. As in the paper the biases start
at 0 and W_ih is Gaussian of standard deviation 0.001.

Paper: Le et al. 2015, arXiv 1504.00941.

Differs from the paper: two biases, as in the cell `rnn_relu`, from which this one differs only in
its initial weights; and the state goes on from window to window. Nothing bounds it: on the
built-in corpus scale 1 learns far more slowly than `rnn_relu`, 0.5 about as fast.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._fused import rnn


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be above 0 and at most 1, but is {scale}")
        self.rnn = nn.RNN(input_size, hidden_size, nonlinearity="relu")
        w_ih, w_hh, b_ih, b_hh = self.rnn.parameters()
        nn.init.normal_(w_ih, std=0.001)
        nn.init.eye_(w_hh)
        w_hh.data.mul_(scale)
        nn.init.zeros_(b_ih)
        nn.init.zeros_(b_hh)

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return rnn(tuple(self.rnn.parameters()), x, state, self.training, "relu")
