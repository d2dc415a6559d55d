"""Unitary evolution RNN: the recurrent matrix is a product of cheap unitary ones.

z_t = modReLU(V x_t + W z_{t-1});  modReLU(z) = z * relu(|z| + b) / |z|;
W = D_3 R_2 F^-1 D_2 P R_1 F D_1: diagonals D_k of exp(i theta_k), reflections
R_k = 1 - 2 v_k v_k^* / |v_k|^2, the unitary Fourier transform F and a fixed permutation P.

H must be even: H/2 complex units, whose H real parts and imaginary parts are the state and the
output, first all re, then all im. Shapes, with n = H/2 units: V [H,I], theta [3,n], v [2,2,n] (two
vectors, re and im of each), b [n]; the buffer `permutation` [n]: row j of P w is row permutation[j]
of w. State (z,), [B,H]. W is unitary whatever the parameters are; it is built once a window, then
each step is one product with it.

Paper: Arjovsky, Shah, Bengio 2016, arXiv 1511.06464.

Differs: the state before the first window is 0, not learned. As in the paper theta is uniform in
+-pi, v in +-1, V as of Glorot & Bengio, b 0 (linear at first). |z| is sqrt(|z|^2 + 1e-10), for a
finite gradient at 0.

While b is 0 nothing fades: a state carried from window to window grows with the root of the steps
behind it until b turns negative. The papers' sequences all begin anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._unitary import Evolution, phases, real, units


class Cell(nn.Module):
    permutation: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        n = units(hidden_size)
        self.w_ih = nn.Parameter(torch.empty(hidden_size, input_size))
        self.theta = nn.Parameter(torch.empty(3, n))
        self.v = nn.Parameter(torch.empty(2, 2, n))
        self.b = nn.Parameter(torch.zeros(n))
        self.register_buffer("permutation", torch.randperm(n))
        bound = math.sqrt(6 / (input_size + n))
        nn.init.uniform_(self.w_ih, -bound, bound)
        nn.init.uniform_(self.theta, -math.pi, math.pi)
        nn.init.uniform_(self.v, -1, 1)

    def initial_state(self, batch_size: int) -> State:
        return (self.w_ih.new_zeros(batch_size, self.w_ih.shape[0]),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        from_input = linear(x, self.w_ih)
        raw = Evolution.apply(from_input, state[0], real(self.matrix()), self.b)  # type: ignore[no-untyped-call]
        return raw, (raw[-1],)

    def matrix(self) -> Tensor:
        """Returns W [n,n], complex."""
        d = phases(self.theta).unsqueeze(-1)
        w = torch.fft.fft(torch.diag(d[0, :, 0]), dim=0, norm="ortho")
        # A copy: whoever loads the buffer before the backward pass must not disturb that.
        w = d[1] * _reflect(w, self.v[0])[self.permutation.clone()]
        return d[2] * _reflect(torch.fft.ifft(w, dim=0, norm="ortho"), self.v[1])


def _reflect(w: Tensor, v: Tensor) -> Tensor:
    vector = torch.complex(v[0], v[1])
    return w - torch.outer(vector * (2 / v.square().sum()), vector.conj() @ w)
