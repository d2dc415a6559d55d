"""Recurrent highway network: several highway micro-layers inside each step of the recurrence.

With s_0 the last state of the step before, in each micro-layer l = 1..depth
h_l, t_l = split([l = 1] W_ih x + W_l (m * s_{l-1}) + b_l); tanh on h, sigmoid on t;
s_l = h_l * t_l + s_{l-1} * (1 - t_l);  the output is s_depth.

Gate order: h, t. Shapes: W_ih [2H,I], W [depth,2H,H], b [depth,2H]; state (s,), [B,H]. The mask m
[B,H] of variational dropout, rate `p`, is one for the window: the same at every step, in all
micro-layers and for both h and t. It is on the state that enters the products; what is carried by
1 - t is never dropped. Without noise m is 1, its mean. Uniform in +-1/sqrt(H), but the rows of
W_ih for h larger (see below); the biases of h 0, those of t at `transform_bias`.

The authors keep the bias at -2 on PTB whatever the depth (their sweep over depths 1 to 10 changes
nothing else but the number of units), and at -4 on characters. As a step carries (1 - t)^depth of
its state, it then forgets sooner the deeper it is. `depth_aware=True` divides the odds t / (1 - t)
by the depth, bias - ln(depth), so that all depths begin with about one memory.

Paper: Zilly, Srivastava, Koutník, Schmidhuber 2017, arXiv 1607.03474.

Differs: weights uniform in +-1/sqrt(H), not +-0.04 (about the same at the paper's 830 units). Of
the input's h a step passes t (1 - t)^(depth-1) on at first, a 14th by default; small models at low
learning rates never find the words in that. The rows of W_ih for h are therefore divided by it, so
that a step begins with as much of its input as one of a plain tanh RNN (by a hundred at most).
Dropout on the layer's input and on words is not the cell's; `depth_aware` is not in the paper.
Masks shared by h and t are those of the authors' TensorFlow code; their Torch code has two.

Published: word PTB 67.9 valid, 65.4 test (depth 10, 830 units, 23M parameters, tied).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import at_least, between, rates
from ._rhn import Highway

MOST = 100  # times as large: beyond it tanh saturates, and no depth or bias passes more


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        depth: int = 5,
        p: float = 0.25,
        transform_bias: float = -2.0,
        depth_aware: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, depth=depth)
        rates(p=p)
        between(-80, 80, transform_bias=transform_bias)
        self.p = p
        self.w_ih = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.w = nn.Parameter(torch.empty(depth, 2 * hidden_size, hidden_size))
        self.b = nn.Parameter(torch.empty(depth, 2 * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        bias = transform_bias - math.log(depth) if depth_aware else transform_bias
        nn.init.zeros_(self.b[:, :hidden_size])
        nn.init.constant_(self.b[:, hidden_size:], bias)
        t = 1 / (1 + math.exp(-bias))
        with torch.no_grad():
            self.w_ih[:hidden_size] /= max(t * (1 - t) ** (depth - 1), 1 / MOST)

    def initial_state(self, batch_size: int) -> State:
        return (self.w.new_zeros(batch_size, self.w.shape[2]),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        (s,) = state
        mask = None
        if noise is not None and self.p > 0:
            mask = noise.mask("recurrent", (s.shape[0], s.shape[1]), self.p)
        pre = linear(x, self.w_ih, self.b[0])
        raw = Highway.apply(pre, s, self.w, self.b[1:], mask)  # type: ignore[no-untyped-call]
        return raw, (raw[-1],)
