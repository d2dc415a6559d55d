"""LSTM whose two gate products and cell output are normalised over the columns of the batch.

i, f, g, o = split(BN(W_hh h_{t-1}; gain_hh) + BN(W_ih x_t; gain_ih) + b); sigmoid on i, f, o, tanh
on g;  c_t = f * c_{t-1} + i * g;  h_t = o * tanh(BN(c_t; gain_c, b_c));
BN(a; gain) = gain * (a - mean(a)) / sqrt(var(a) + 1e-5) for every unit by itself.

Gate order: i, f, g, o. Shapes: W_ih [4H,I], W_hh [4H,H], gain_ih, gain_hh and b [4H], gain_c and
b_c [H]; state (h, c), each [B,H], and memory [T,B,H], the c that is not normalised. Weights uniform
in +-1/sqrt(H), gains `gain`, biases 0 but `forget_bias` for f. Buffers, part of the weights: the
running mean (at first 0) and variance (at first 1) of the two products, [4H], and of c, [H].

Paper: Cooijmans et al. 2017, arXiv 1603.09025.

In training the three terms are normalised, as in the paper, by the mean and the biased variance of
the B columns at that one step, with gradients through both: no output depends on a later input. A
single column is all mean: its normalised terms are 0, and only the biases act.

In evaluation running averages take their place. The paper keeps one for every step of a sequence,
since activations go through a transient before they settle; here state is carried from window to
window, so that text has no first step, and one average serves all steps. A training window moves
it a tenth of the way (the authors' code: a twentieth) to the mean and the variance of its T*B
values taken together, the variance biased. No variance is averaged over steps of B values, which
with few columns would be too small by a factor of (B-1)/B.

Few columns make gradients explode, by the method itself: where they nearly agree, the slope of BN
is up to gain/sqrt(1e-5). At 64 units the largest gradient of mean(h^2) is above 1e2 with 2 columns
at T = 35 and above 1e15 at T = 150, with 4 below 0.1 at T = 150 but above 1e13 at T = 1000, with 8
harmless: trials with a batch_size below 4 are skipped.

Gains of 0.1, 1e-5 and forget biases of 1 are the authors' code's. It draws the weights otherwise
(orthogonal).

Published: character-level Penn Treebank, test, 1.32 bits per character.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import above_zero, finite
from ._norm import EPSILON, OVER_BATCH, BatchNormSteps
from ._norm_lstm import NormLSTM

MOMENTUM = 0.1
FEWEST = 4  # columns


class Cell(nn.Module):
    memory: ClassVar[bool] = True
    mixes_batch: ClassVar[bool] = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: float = 0.1,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        above_zero(gain=gain)
        finite(forget_bias=forget_bias)
        bound = hidden_size**-0.5
        self.w_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.gain_ih = nn.Parameter(torch.full((4 * hidden_size,), gain))
        self.gain_hh = nn.Parameter(torch.full((4 * hidden_size,), gain))
        self.gain_c = nn.Parameter(torch.full((hidden_size,), gain))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.bias_c = nn.Parameter(torch.zeros(hidden_size))
        nn.init.constant_(self.bias[hidden_size : 2 * hidden_size], forget_bias)
        for name, size in (("ih", 4 * hidden_size), ("hh", 4 * hidden_size), ("c", hidden_size)):
            self.register_buffer(f"mean_{name}", torch.zeros(size))
            self.register_buffer(f"var_{name}", torch.ones(size))

    @staticmethod
    def skip(trial: Any) -> str | None:
        if trial.batch_size >= FEWEST:
            return None
        return f"batch norm over fewer than {FEWEST} columns has exploding gradients"

    def initial_state(self, batch_size: int) -> State:
        zeros = self.w_hh.new_zeros(batch_size, self.w_hh.shape[1])
        return zeros, zeros

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State, Tensor]:
        raw, memory = (self._train if self.training else self._evaluate)(x, *state)
        return raw, (raw[-1], memory[-1]), memory

    def _train(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        product = linear(x, self.w_ih)
        term, *stats_ih = BatchNormSteps.apply(  # type: ignore[no-untyped-call]
            product, self.gain_ih, self.bias
        )
        raw, memory, *stats = NormLSTM.apply(  # type: ignore[no-untyped-call]
            term, h, c, self.w_hh, self.gain_hh, self.gain_c, self.bias_c, OVER_BATCH
        )
        self._move("ih", *stats_ih)
        self._move("hh", *stats[:2])
        self._move("c", *stats[2:])
        return raw, memory

    @torch.no_grad()
    def _move(self, name: str, means: Tensor, rstds: Tensor) -> None:
        """Moves the running averages; means, rstds [T,G] of the steps of a window."""
        mean = means.mean(0)
        # The variance of all T*B values: that within the steps plus that between them.
        var = (rstds.pow(-2) - EPSILON + (means - mean).square()).mean(0)
        self.get_buffer(f"mean_{name}").lerp_(mean, MOMENTUM)
        self.get_buffer(f"var_{name}").lerp_(var, MOMENTUM)

    def _evaluate(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        # With given statistics BN is affine, so that those of the products go into the weights.
        scale_ih, shift_ih = self._affine("ih", self.gain_ih, self.bias)
        scale_hh, shift = self._affine("hh", self.gain_hh, shift_ih)
        scale_c, shift_c = self._affine("c", self.gain_c, self.bias_c)
        terms = F.linear(x, scale_ih.unsqueeze(1) * self.w_ih, shift)
        w = (scale_hh.unsqueeze(1) * self.w_hh).t()
        raw, memory = [], []
        for term in terms.unbind():
            i, f, g, o = torch.addmm(term, h, w).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(torch.addcmul(shift_c, scale_c, c))
            raw.append(h)
            memory.append(c)
        return torch.stack(raw), torch.stack(memory)

    def _affine(self, name: str, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (scale, shift) with BN(a) + bias = scale * a + shift under the running averages.

        They are copied: a training window before the backward pass would change them in place.
        """
        mean = self.get_buffer(f"mean_{name}").clone()
        scale = gain * (self.get_buffer(f"var_{name}") + EPSILON).rsqrt()
        return scale, bias - scale * mean
