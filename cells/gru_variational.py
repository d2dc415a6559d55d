"""GRU with variational dropout of the recurrent connections: one mask for the whole window.

r, z = sigmoid(W_ih x_t + b_ih + W_hh (m * h_{t-1}) + b_hh);
n = tanh(W_in x_t + b_in + r * (W_hn (m * h_{t-1}) + b_hn));  h_t = (1 - z) * n + z * h_{t-1}.

m is 0 with probability p, else 1/(1-p), one draw for each column and unit of a window; `untied`
draws one for each gate. It stands where h_{t-1} enters the recurrent products and not where z
carries it over: what a unit remembers is never erased.

Gate order: r, z, n (torch's). Shapes: W_ih [3H,I], W_hh [3H,H], both biases [3H]; state (h,),
[B,H]. Weights, their names and their initial draws are those of the cell `gru`.

Paper: Gal & Ghahramani 2016, arXiv 1512.05287.

Differs from the paper: a GRU's reset gate here acts after the recurrent product, as in cuDNN. A
window of truncated backpropagation is one sequence; the next has another mask. Masks on the inputs
of layers are the stack's (`dropouti`, `dropouth`, `dropout`), for all gates alike; untied, the
paper draws one for each gate there too. The default rate, of the recurrent connections, is that of
the paper's large LSTM.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import rates
from ._gru import gru


class Cell(nn.Module):
    def __init__(
        self, input_size: int, hidden_size: int, *, p: float = 0.3, untied: bool = False
    ) -> None:
        super().__init__()
        rates(p=p)
        self.p, self.untied = p, untied
        self.rnn = nn.GRU(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> State:
        return (next(self.parameters()).new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        (h,) = state
        w_ih, w_hh, b_ih, b_hh = self.rnn.parameters()
        mask = None
        if noise is not None and self.p > 0:
            shape = (3, *h.shape) if self.untied else tuple(h.shape)
            mask = noise.mask("recurrent", shape, self.p)
        raw = gru(linear(x, w_ih, b_ih), h, w_hh, b_hh, mask=mask)
        return raw, (raw[-1],)
