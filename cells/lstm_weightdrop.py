"""Weight-dropped LSTM: DropConnect on the recurrent weights, on torch's fused kernel.

i, f, g, o = split(W_ih x_t + b_ih + (M * W_hh) h_{t-1} + b_hh); sigmoid on i, f, o, tanh on g;
c_t = f * c_{t-1} + i * g;  h_t = o * tanh(c_t).
M is 0 with probability wdrop, else 1/(1-wdrop), for each weight; drawn once for all steps and
columns of a window.

Gate order: i, f, g, o (torch's). Shapes: W_ih [4H,I], W_hh and M [4H,H], both biases [4H]; state
(h, c), each [B,H]. All uniform in +-1/sqrt(H), the very draws of cell `lstm`.

Paper: Merity, Keskar & Socher 2017, arXiv 1708.02182. The default is that of its PTB model.

This is the cell alone. The rest of AWD-LSTM is fields of the trial: `dropoute` (dropout of words),
`locked` (one mask a window between layers), `optimizer` nt-asgd (averaged SGD), `variable_bptt`
(windows of varying length). The kernel gives no c but the last, so there is no memory.

Published: perplexity, validation / test, of the whole of AWD-LSTM without fine-tuning: PTB 60.7 /
58.8, WikiText-2 69.1 / 66.0; with it 60.0 / 57.3 and 68.6 / 65.8. Weight drop alone, PTB: 78.82 /
75.71 at 2 x 650 units, as run for the flipout paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State

from ._checks import rates
from ._fused import lstm
from ._weightdrop import weights


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, wdrop: float = 0.5) -> None:
        super().__init__()
        rates(wdrop=wdrop)
        self.wdrop = wdrop
        self.rnn = nn.LSTM(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        zeros = next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        return lstm(weights(self.rnn, noise, self.wdrop), x, state, self.training)
