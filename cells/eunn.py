"""Efficient unitary RNN: the recurrent matrix is a product of rotations of neighboring units.

z_t = modReLU(V x_t + W z_{t-1});  modReLU(z) = z * relu(|z| + b) / |z|;
W = D F_capacity ... F_1, with D the diagonal of exp(i omega). The odd-numbered factors rotate the
pairs of units (1,2), (3,4), ..., the even-numbered ones (2,3), (4,5), ...; a unit without a partner
passes. A pair (u, v) becomes
u' = cos(theta) u - sin(theta) exp(i phi) v;  v' = sin(theta) u + cos(theta) exp(i phi) v.

H must be even: H/2 complex units, whose H real parts and imaginary parts are the state and the
output, first all re, then all im. Shapes, with n = H/2 units: V [H,I], even [capacity/2,2,n//2] and
odd [capacity/2,2,(n-1)//2] (theta and phi of the pairs that begin at an even or odd index, from 0),
omega [n], b [n]; state (z,), [B,H]. W is unitary whatever the angles are, and reaches every unitary
matrix from capacity n on. It is built once a window, then each step is one product with it.

Paper: Jing et al. 2017, arXiv 1612.05231.

Differs: only the tunable form, not the one in the manner of the FFT; phi turns what enters a pair,
as in the authors' code (turning what leaves it, that of the last factors would repeat omega); the
state before the first window is 0. As in the authors' code the angles are uniform in +-pi, b 0
(linear at first). V is that of cells/urnn.py, as of Glorot & Bengio, not uniform in +-0.01: SGD
moves b by some hundredths in a few windows, and where |z| is less than that, b turns off every unit
for good. |z| is sqrt(|z|^2 + 1e-10), for a finite gradient at 0.

While b is 0 nothing fades: a state carried from window to window grows with the root of the steps
behind it until b turns negative. The papers' sequences all begin anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.api import Noise, State
from bench.products import linear

from ._checks import at_least
from ._unitary import Evolution, phases, real, units


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, capacity: int = 2) -> None:
        super().__init__()
        n = units(hidden_size)
        at_least(2, capacity=capacity)
        if capacity % 2:
            raise ValueError(f"capacity must be even, but is {capacity}")
        self.w_ih = nn.Parameter(torch.empty(hidden_size, input_size))
        self.even = nn.Parameter(torch.empty(capacity // 2, 2, n // 2))
        self.odd = nn.Parameter(torch.empty(capacity // 2, 2, (n - 1) // 2))
        self.omega = nn.Parameter(torch.empty(n))
        self.b = nn.Parameter(torch.zeros(n))
        bound = math.sqrt(6 / (input_size + n))
        nn.init.uniform_(self.w_ih, -bound, bound)
        for angles in (self.even, self.odd, self.omega):
            nn.init.uniform_(angles, -math.pi, math.pi)

    def initial_state(self, batch_size: int) -> State:
        return (self.w_ih.new_zeros(batch_size, self.w_ih.shape[0]),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        from_input = linear(x, self.w_ih)
        raw = Evolution.apply(from_input, state[0], real(self.matrix()), self.b)  # type: ignore[no-untyped-call]
        return raw, (raw[-1],)

    def matrix(self) -> Tensor:
        """Returns W [n,n], complex."""
        w = torch.diag(torch.ones_like(phases(self.omega)))
        for even, odd in zip(self.even, self.odd, strict=True):
            w = _rotate(_rotate(w, even, 0), odd, 1)
        return phases(self.omega).unsqueeze(1) * w


def _rotate(w: Tensor, angles: Tensor, start: int) -> Tensor:
    theta, phi = angles.unsqueeze(-1)
    stop = start + 2 * theta.shape[0]
    u, v = w[start:stop:2], w[start + 1 : stop : 2]
    cos, sin = theta.cos(), theta.sin()
    v = phases(phi) * v
    pairs = torch.stack([cos * u - sin * v, sin * u + cos * v], 1)
    return torch.cat([w[:start], pairs.flatten(0, 1), w[stop:]])
