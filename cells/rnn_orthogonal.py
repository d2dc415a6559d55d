"""RNN whose recurrent matrix Q is orthogonal at all times, being the Cayley transform of a skew A.

a_t = W_ih x_t + Q h_{t-1};  Q = (I + A)^-1 (I - A) = 2 (I + A)^-1 - I,  A = S - S^T;
h_t = sign(a_t) * relu(|a_t| + b)  (act: modrelu)  or  h_t = tanh(a_t + b)  (act: tanh).

Q is computed once for each window. It neither stretches nor shrinks what it turns; in float32 at
650 units Q^T Q is the identity to 3e-6, even far from the start. modReLU with b = 0 passes all on
unchanged, with b < 0 it forgets what is small; at a_t = 0 it is 0 and so is its derivative.

Shapes: W_ih [H,I]; `skew` [H(H-1)/2], S above its diagonal, row by row; b [H]; state (h,), [B,H].
A starts in blocks of two that turn planes by angles uniform in 0..pi/2, b at 0, W_ih uniform in
+-1/sqrt(H). Weight decay acts on `skew`, not on Q: it draws Q to the identity.

Paper: Helfrich et al. 2018, arXiv 1707.09520.

Of the ways to hold a matrix orthogonal (Wisdom et al. 2016, arXiv 1611.00035, by a step along the
manifold; Lezcano-Casado & Martinez-Rubio 2019, arXiv 1901.08428, by the matrix exponential) this is
the one with a cheap exact gradient. Differs from the paper: no diagonal of -1 beside the Cayley
transform, so that Q is a rotation without an eigenvalue of exactly -1; plain gradient steps on A;
W_ih starts wider than in the authors' code (+-0.01).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._rnn import rnn


class Cell(nn.Module):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        act: Literal["tanh", "modrelu"] = "modrelu",
    ) -> None:
        super().__init__()
        self.act: Literal["tanh", "modrelu"] = act
        bound = hidden_size**-0.5
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size).uniform_(-bound, bound))
        # A starts in blocks of two, each of which makes Q turn a plane by its angle: tan(angle/2).
        angles = torch.empty(hidden_size // 2).uniform_(0, torch.pi / 2)
        start = torch.zeros(hidden_size, hidden_size)
        start.diagonal(1)[::2] = torch.tan(angles / 2)
        self.skew = nn.Parameter(start[tuple(self._above(start))])
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch_size: int) -> State:
        return (self.bias.new_zeros(batch_size, len(self.bias)),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        if self.act == "tanh":
            inputs, threshold = linear(x, self.weight_ih, self.bias), None
        else:
            inputs, threshold = linear(x, self.weight_ih), self.bias
        raw = rnn(inputs, state[0], self.recurrent(), self.act, threshold=threshold)
        return raw, (raw[-1],)

    def recurrent(self) -> Tensor:
        """Returns Q [H,H]."""
        eye = torch.eye(len(self.bias), dtype=self.skew.dtype, device=self.skew.device)
        s = torch.zeros_like(eye).index_put(tuple(self._above(eye)), self.skew)
        # I + A has an inverse for every skew A: no check, which would wait for a GPU.
        inverse: Tensor = torch.linalg.inv_ex(eye + s - s.t())[0]
        return 2 * inverse - eye

    @staticmethod
    def _above(matrix: Tensor) -> Tensor:
        size = len(matrix)
        return torch.triu_indices(size, size, offset=1, device=matrix.device)
