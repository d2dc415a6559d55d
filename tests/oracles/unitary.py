"""The unitary cells, written out: complex numbers, and every factor applied at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.api import Noise, State


def eunn(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    layers = [layer for both in zip(cell.even, cell.odd, strict=True) for layer in both]

    def turn(z: Tensor) -> Tensor:
        for number, (theta, phi) in enumerate(layers):
            columns = list(z.unbind(1))
            for pair in range(len(theta)):
                i = 2 * pair + number % 2
                u, v = columns[i], columns[i + 1] * torch.exp(1j * phi[pair])
                columns[i] = torch.cos(theta[pair]) * u - torch.sin(theta[pair]) * v
                columns[i + 1] = torch.sin(theta[pair]) * u + torch.cos(theta[pair]) * v
            z = torch.stack(columns, 1)
        return z * torch.exp(1j * cell.omega)

    return _evolve(cell, x, state, turn)


def urnn(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    d_1, d_2, d_3 = torch.exp(1j * cell.theta)
    permutation = cell.permutation.clone()
    v_1, v_2 = cell.v[:, 0] + 1j * cell.v[:, 1]

    def reflect(z: Tensor, v: Tensor) -> Tensor:
        along = (z * v.conj()).sum(1, keepdim=True)
        return z - 2 * along * v / v.abs().square().sum()

    def turn(z: Tensor) -> Tensor:
        z = reflect(torch.fft.fft(z * d_1, norm="ortho"), v_1)
        z = torch.fft.ifft(z[:, permutation] * d_2, norm="ortho")
        return reflect(z, v_2) * d_3

    return _evolve(cell, x, state, turn)


def _evolve(
    cell: Any, x: Tensor, state: State, turn: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    re, im = state[0].chunk(2, 1)
    z = re + 1j * im
    raw = []
    for step in x:
        from_re, from_im = (step @ cell.w_ih.T).chunk(2, 1)
        z = turn(z) + from_re + 1j * from_im
        size = torch.sqrt(z.real**2 + z.imag**2 + 1e-10)
        z = z * (torch.relu(size + cell.b) / size)
        raw.append(torch.cat([z.real, z.imag], 1))
    return torch.stack(raw), raw[-1]


ORACLES = {"eunn": eunn, "urnn": urnn}
