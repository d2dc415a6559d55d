"""The cells on torch's fused kernels, written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Noise, State


def lstm(cell: nn.Module, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    h, c = state
    raw = []
    for step in x:
        i, f, g, o = (w_ih @ step.T + b_ih[:, None] + w_hh @ h.T + b_hh[:, None]).chunk(4)
        c = torch.sigmoid(f).T * c + torch.sigmoid(i).T * torch.tanh(g).T
        h = torch.sigmoid(o).T * torch.tanh(c)
        raw.append(h)
    return torch.stack(raw), h, c


def gru(cell: nn.Module, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    (h,) = state
    raw = []
    for step in x:
        ir, iz, i_n = (w_ih @ step.T + b_ih[:, None]).chunk(3)
        hr, hz, hn = (w_hh @ h.T + b_hh[:, None]).chunk(3)
        r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        n = torch.tanh(i_n + r * hn)
        h = ((1 - z) * n).T + z.T * h
        raw.append(h)
    return torch.stack(raw), h


def rnn_tanh(cell: nn.Module, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    (h,) = state
    raw = []
    for step in x:
        h = torch.tanh(w_ih @ step.T + b_ih[:, None] + w_hh @ h.T + b_hh[:, None]).T
        raw.append(h)
    return torch.stack(raw), h


ORACLES = {"lstm": lstm, "gru": gru, "rnn_tanh": rnn_tanh}
