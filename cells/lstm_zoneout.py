"""LSTM with zoneout: at each step some units of c and of h keep the value they had.

i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh); sigmoid on i, f, o, tanh on g;
new c = f * c_{t-1} + i * g;  new h = o * tanh(new c);
c_t is c_{t-1} with probability zc, else the new c;  h_t is h_{t-1} with probability zh, else new h.
Without noise the expectation: c_t = zc * c_{t-1} + (1 - zc) * new c, and h_t likewise.

Gate order: i, f, g, o (torch's). Shapes: W_ih [4H,I], W_hh [4H,H], both biases [4H]; state (h, c),
each [B,H]. All uniform in +-1/sqrt(H), the very draws of cell `lstm`. The memory is c after
zoneout.

Paper: Krueger et al. 2017, arXiv 1606.01305. The defaults are those of its word-level PTB model.

As in the paper, the new h reads the new c before zoneout, the draws for c and h, for each step,
unit and column, are independent, and the output is h after zoneout (the authors' TensorFlow code
hands up the new h). Differs in its initial weights: the authors' Theano code draws them uniform of
a set width, with biases of 0 and 1 added to the forget gate; here the forget gate has no bias of 1.

Published: PTB perplexity, validation / test: 81.4 / 77.4 at 2 x 1500 units; 78.66 / 75.45 at
2 x 650, as run for the flipout paper.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bench.api import Noise, State

from ._checks import rates
from ._lstm import run
from ._zoneout import share_of_new


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(
        self, input_size: int, hidden_size: int, *, zc: float = 0.25, zh: float = 0.025
    ) -> None:
        super().__init__()
        rates(zc=zc, zh=zh)
        self.zc, self.zh = zc, zh
        self.rnn = nn.LSTM(input_size, hidden_size)  # holds the weights; its kernel has no zoneout

    def initial_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        shape = (len(x), *state[0].shape)
        new_c = share_of_new("zoneout c", shape, self.zc, noise, x)
        new_h = share_of_new("zoneout h", shape, self.zh, noise, x)
        return run(tuple(self.rnn.parameters()), x, state, new_c=new_c, new_h=new_h)
