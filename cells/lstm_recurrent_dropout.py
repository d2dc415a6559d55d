"""LSTM with recurrent dropout: the mask is on the candidate alone, so that no memory is lost.

i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh); sigmoid on i, f, o, tanh on g;
c_t = f * c_{t-1} + i * (m_t * g);  h_t = o * tanh(c_t).
m_t is 0 with probability p, else 1/(1-p), for each unit and column; drawn for each step, or, with
per=sequence, once for all steps of a window.

Gate order: i, f, g, o (torch's). Shapes: W_ih [4H,I], W_hh [4H,H], both biases [4H]; state (h, c),
each [B,H]. All uniform in +-1/sqrt(H), the very draws of cell `lstm`.

Paper: Semeniuta, Severyn & Barth 2016, arXiv 1603.05118. The authors' examples use rates of 0.25
and 0.5, drawn either way.

Their code multiplies by 1 - p in evaluation where this one divides by 1 - p in training.

Published: PTB perplexity, validation / test: 91.6 / 87.0, as listed in the zoneout paper; 81.91 /
77.88 at 2 x 650 units, as run for the flipout paper.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from bench.api import Noise, State

from ._checks import rates
from ._lstm import run


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        p: float = 0.25,
        per: Literal["step", "sequence"] = "step",
    ) -> None:
        super().__init__()
        rates(p=p)
        self.p, self.per = p, per
        self.rnn = nn.LSTM(input_size, hidden_size)  # holds the weights; its kernel has no masks

    def initial_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        mask = None
        if noise is not None and self.p > 0:
            steps = len(x) if self.per == "step" else 1
            mask = noise.mask("candidate", (steps, *state[0].shape), self.p)
        return run(tuple(self.rnn.parameters()), x, state, g_mask=mask)
