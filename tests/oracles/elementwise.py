"""The elementwise recurrences, written out: one step, one product for each gate, at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Noise, State

sigmoid, tanh = torch.sigmoid, torch.tanh


def qrnn(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    c = state[0]
    size, hidden = cell.input_size, cell.hidden_size
    seen = [c.new_empty(len(c), 0)]
    if cell.window > 1:
        seen = list(state[1].split(size, dim=1))
    names = {"f": "zf", "fo": "zfo", "ifo": "zfoi"}[cell.pooling]
    mask = None
    if noise is not None and cell.zoneout > 0:
        mask = noise.mask("zoneout c", (*x.shape[:2], hidden), cell.zoneout)
    raw, memory = [], []
    for t, step in enumerate(x):
        seen.append(step)
        pre = {}
        for g, name in enumerate(names):
            rows = slice(g * hidden, (g + 1) * hidden)
            pre[name] = cell.bias[rows]
            for lag in range(cell.window):
                columns = slice(lag * size, (lag + 1) * size)
                pre[name] = pre[name] + seen[-1 - lag] @ cell.weight[rows, columns].T
        f, z = sigmoid(pre["f"]), tanh(pre["z"])
        i = sigmoid(pre["i"]) if "i" in pre else 1 - f
        updated = f * c + i * z
        if cell.zoneout == 0:
            c = updated
        elif mask is None:
            c = cell.zoneout * c + (1 - cell.zoneout) * updated
        else:
            c = torch.where(mask[t] == 0, c, updated)
        memory.append(c)
        raw.append(sigmoid(pre["o"]) * c if "o" in pre else c)
    last = [] if cell.window == 1 else [torch.cat(seen[-(cell.window - 1) :], dim=1)]
    return torch.stack(raw), c, *last, torch.stack(memory)


def sru(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    (c,) = state
    hidden = cell.hidden_size
    v_f = v_r = torch.zeros_like(c)
    if cell.v is not None:
        v_f, v_r = cell.v[:hidden], cell.v[hidden:]
    b_f, b_r = cell.bias[:hidden], cell.bias[hidden:]
    w = [cell.weight[g * hidden : (g + 1) * hidden] for g in range(4)]
    raw, memory = [], []
    for step in x:
        f = sigmoid(step @ w[1].T + v_f * c + b_f)
        r = sigmoid(step @ w[2].T + v_r * c + b_r)
        c = f * c + (1 - f) * (step @ w[0].T)
        skip = step @ w[3].T if len(w[3]) else cell.scale * step
        raw.append(r * c + (1 - r) * skip)
        memory.append(c)
    return torch.stack(raw), c, torch.stack(memory)


def _g(cell: Any, a: Tensor) -> Tensor:
    if cell.candidate == "linear":
        return a
    return torch.clamp(a, min=0) + torch.clamp(sigmoid(a), max=0.5)


def mingru(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    (h,) = state
    (w_z, w_n), (b_z, b_n) = cell.weight.chunk(2), cell.bias.chunk(2)
    raw = []
    for step in x:
        z = sigmoid(step @ w_z.T + b_z)
        h = (1 - z) * h + z * _g(cell, step @ w_n.T + b_n)
        raw.append(h)
    return torch.stack(raw), h


def minlstm(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    (h,) = state
    (w_f, w_i, w_n), (b_f, b_i, b_n) = cell.weight.chunk(3), cell.bias.chunk(3)
    raw = []
    for step in x:
        f, i = sigmoid(step @ w_f.T + b_f), sigmoid(step @ w_i.T + b_i)
        h = f / (f + i) * h + i / (f + i) * _g(cell, step @ w_n.T + b_n)
        raw.append(h)
    return torch.stack(raw), h


def t_rnn(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    (h,) = state
    w, v = cell.weight.chunk(2)
    raw = []
    for step in x:
        f = sigmoid(step @ v.T + cell.bias)
        h = f * h + (1 - f) * (step @ w.T)
        raw.append(h)
    return torch.stack(raw), h


def _typed(cell: Any, now: Tensor, before: Tensor) -> list[Tensor]:
    w, v = cell.weight.chunk(2, dim=1)
    size = cell.hidden_size
    parts = (slice(g * size, (g + 1) * size) for g in range(3))
    return [before @ v[rows].T + now @ w[rows].T + cell.bias[rows] for rows in parts]


def t_gru(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    h, before = state
    raw = []
    for step in x:
        z, f, o = _typed(cell, step, before)
        h = sigmoid(f) * h + z * tanh(o)
        before = step
        raw.append(h)
    return torch.stack(raw), h, before


def t_lstm(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    c, before = state
    raw, memory = [], []
    for step in x:
        z, f, o = _typed(cell, step, before)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * z
        before = step
        raw.append(c * tanh(o))
        memory.append(c)
    return torch.stack(raw), c, before, torch.stack(memory)


def qrn(cell: nn.Module, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_n, w_gates, b_n, b_gates, q = (p for p in cell.parameters())
    (h,) = state
    (w_z, *w_r), (b_z, *b_r) = (w.chunk(1 + bool(cell.reset)) for w in (w_gates, b_gates))
    raw = []
    for step in x:
        z = sigmoid((step * q) @ w_z.T + b_z)
        n = tanh(step @ w_n.T + b_n)
        r = sigmoid((step * q) @ w_r[0].T + b_r[0]) if w_r else torch.ones_like(z)
        h = z * r * n + (1 - z) * h
        raw.append(h)
    return torch.stack(raw), h


ORACLES = {
    "qrnn": qrnn,
    "sru": sru,
    "mingru": mingru,
    "minlstm": minlstm,
    "t_rnn": t_rnn,
    "t_gru": t_gru,
    "t_lstm": t_lstm,
    "qrn": qrn,
}
