"""The LSTM's variants, and the weight-dropped GRU, written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Noise, State


def lstm_variational(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    (h, c), size = state, len(w_hh) // 4
    masks = [torch.ones_like(h)] * 4
    if noise is not None and cell.untied:
        masks = list(noise.mask("recurrent", (4, *h.shape), cell.p))
    elif noise is not None:
        masks = [noise.mask("recurrent", tuple(h.shape), cell.p)] * 4
    raw, memory = [], []
    for step in x:
        pre = []
        for k in range(4):
            rows = slice(k * size, (k + 1) * size)
            recurrent = (h * masks[k]) @ w_hh[rows].T
            pre.append(step @ w_ih[rows].T + b_ih[rows] + recurrent + b_hh[rows])
        c = torch.sigmoid(pre[1]) * c + torch.sigmoid(pre[0]) * torch.tanh(pre[2])
        h = torch.sigmoid(pre[3]) * torch.tanh(c)
        raw.append(h)
        memory.append(c)
    return torch.stack(raw), h, c, torch.stack(memory)


def lstm_recurrent_dropout(
    cell: Any, x: Tensor, state: State, noise: Noise | None
) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    h, c = state
    masks = torch.ones(len(x), *h.shape, dtype=x.dtype)
    if noise is not None and cell.per == "step":
        masks = noise.mask("candidate", (len(x), *h.shape), cell.p)
    elif noise is not None:
        masks = masks * noise.mask("candidate", (1, *h.shape), cell.p)
    raw, memory = [], []
    for step, mask in zip(x, masks, strict=True):
        i, f, g, o = (step @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * (torch.tanh(g) * mask)
        h = torch.sigmoid(o) * torch.tanh(c)
        raw.append(h)
        memory.append(c)
    return torch.stack(raw), h, c, torch.stack(memory)


def lstm_zoneout(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    h, c = state
    raw, memory = [], []
    for t, step in enumerate(x):
        i, f, g, o = (step @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
        new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        new_h = torch.sigmoid(o) * torch.tanh(new_c)
        if noise is None:
            c = cell.zc * c + (1 - cell.zc) * new_c
            h = cell.zh * h + (1 - cell.zh) * new_h
        else:
            shape = (len(x), *h.shape)
            c = torch.where(noise.mask("zoneout c", shape, cell.zc)[t] > 0, new_c, c)
            h = torch.where(noise.mask("zoneout h", shape, cell.zh)[t] > 0, new_h, h)
        raw.append(h)
        memory.append(c)
    return torch.stack(raw), h, c, torch.stack(memory)


def lstm_weightdrop(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    if noise is not None:
        w_hh = w_hh * noise.mask("weights", tuple(w_hh.shape), cell.wdrop)
    h, c = state
    raw = []
    for step in x:
        i, f, g, o = (step @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        raw.append(h)
    return torch.stack(raw), h, c


def gru_weightdrop(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    if noise is not None:
        w_hh = w_hh * noise.mask("weights", tuple(w_hh.shape), cell.wdrop)
    (h,) = state
    raw = []
    for step in x:
        from_x, from_h = step @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        xr, xz, xn = from_x.chunk(3, -1)
        hr, hz, hn = from_h.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = (1 - z) * n + z * h
        raw.append(h)
    return torch.stack(raw), h


ORACLES = {
    "lstm_variational": lstm_variational,
    "lstm_recurrent_dropout": lstm_recurrent_dropout,
    "lstm_zoneout": lstm_zoneout,
    "lstm_weightdrop": lstm_weightdrop,
    "gru_weightdrop": gru_weightdrop,
}
