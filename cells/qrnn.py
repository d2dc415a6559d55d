"""Quasi-recurrent network: gates from a convolution in time, then an average in each channel.

X_t = [x_t, x_{t-1}, ..., x_{t-window+1}];  z = tanh(W_z X_t + b_z);  f, o, i = sigmoid(W X_t + b).
pooling = f:    c_t = f * c_{t-1} + (1 - f) * z;  h_t = c_t
pooling = fo:   c_t = f * c_{t-1} + (1 - f) * z;  h_t = o * c_t
pooling = ifo:  c_t = f * c_{t-1} + i * z;        h_t = o * c_t

Zoneout: at each step each channel of each column has f set to 1 with probability `zoneout`, so that
c_t is c_{t-1}: f = 1 - m * (1 - f) with m 0 or 1, drawn anew at every step, not rescaled. Without
noise m is its expectation 1 - zoneout, as in the authors' code, so that c_t is its expected value
given c_{t-1}.

Gate order: z, f, o, i (those that the pooling has, G of them). Shapes: W [G*H, window*I], x_t's
columns first, b [G*H]; state (c, last_x), c [B,H], last_x the window-1 inputs before, oldest first,
[B,(window-1)*I]; with window = 1 the state is (c,). All uniform in +-1/sqrt(H). Memory: c.

Paper: Bradbury et al. 2017, arXiv 1611.01576.

Differs from the paper: it has no biases, the authors' later code has them. There zoneout is defined
on f alone; with ifo pooling i is dropped with it, or the channel would not keep its value. Inputs
before the window are carried over, and begin at zero.

Published: PTB 60.6 / 58.3, WikiText-2 69.3 / 66.8 (val / test perplexity of AWD-QRNN without
fine-tuning, awd-lstm-lm README): this layer without zoneout, window 2 in the first layer and 1
above it, in a stack with the regularization of AWD-LSTM.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import at_least, rates
from ._scan import average, scan
from ._scan_window import windows
from ._zoneout import share_of_new


class Cell(nn.Module):
    memory: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        window: int = 2,
        pooling: Literal["f", "fo", "ifo"] = "fo",
        zoneout: float = 0.1,
    ) -> None:
        super().__init__()
        at_least(1, window=window)
        rates(zoneout=zoneout)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.window, self.pooling, self.zoneout = window, pooling, zoneout
        rows = (1 + len(pooling)) * hidden_size
        self.weight = nn.Parameter(torch.empty(rows, window * input_size))
        self.bias = nn.Parameter(torch.empty(rows))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    def initial_state(self, batch_size: int) -> State:
        c = self.bias.new_zeros(batch_size, self.hidden_size)
        if self.window == 1:
            return (c,)
        return c, self.bias.new_zeros(batch_size, (self.window - 1) * self.input_size)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        last: State = ()
        if self.window > 1:
            x, last_x = windows(x, state[1], self.window)
            last = (last_x,)
        z, f, *gates = linear(x, self.weight, self.bias).chunk(1 + len(self.pooling), dim=-1)
        z, f = torch.tanh(z), torch.sigmoid(f)
        take = torch.sigmoid(gates[1]) if self.pooling == "ifo" else None
        new = share_of_new("zoneout c", tuple(z.shape), self.zoneout, noise, z)
        if new is not None:
            f = torch.addcmul(1 - new, new, f)  # 1 where the channel is zoned out
            take = None if take is None else take * new
        c = average(f, z, state[0]) if take is None else scan(f, take * z, state[0])
        raw = c if self.pooling == "f" else torch.sigmoid(gates[0]) * c
        return raw, (c[-1], *last), c
