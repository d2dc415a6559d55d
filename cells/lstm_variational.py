"""LSTM with variational dropout: one mask on the recurrent state for all steps of a window.

i, f, g, o = split(W_ih x_t + b_ih + W_hh (m * h_{t-1}) + b_hh); sigmoid on i, f, o, tanh on g;
c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t).
m is 0 with probability p, else 1/(1-p), for each unit and column; untied: one m for each gate.

Gate order: i, f, g, o (torch's). Shapes: W_ih [4H,I], W_hh [4H,H], both biases [4H]; state (h, c),
each [B,H]; m [B,H], or [4,B,H] untied. All uniform in +-1/sqrt(H), the very draws of cell `lstm`.

Paper: Gal & Ghahramani 2016, arXiv 1512.05287. The default p is that of its large models.

This is the recurrent part of the paper's recipe. The whole recipe adds two fields of the trial:
`locked`, one mask a window for the dropout between layers as well, and `dropoute`, dropout of
words. The paper masks a layer's input per gate too when untied; here the stack masks it, for all
gates alike. A window is one sequence; the next has another mask. Evaluation uses the mean network;
the field `eval_mc` averages stochastic passes instead, the paper's MC.

Published: PTB perplexity, validation / test: large tied 77.3 / 75.0 (MC 74.1), large untied 77.9 /
75.2 (MC 73.4), medium untied 81.9 / 79.7 (MC 78.6); 78.24 / 75.39 at 2 x 650 units, as run for the
flipout paper.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bench.api import Noise, State

from ._checks import rates
from ._lstm import run


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(
        self, input_size: int, hidden_size: int, *, p: float = 0.3, untied: bool = False
    ) -> None:
        super().__init__()
        rates(p=p)
        self.p, self.untied = p, untied
        self.rnn = nn.LSTM(input_size, hidden_size)  # holds the weights; its kernel has no masks

    def initial_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        mask = None
        if noise is not None and self.p > 0:
            columns, size = state[0].shape
            shape = (4, columns, size) if self.untied else (columns, size)
            mask = noise.mask("recurrent", shape, self.p)
        return run(tuple(self.rnn.parameters()), x, state, h_mask=mask)
