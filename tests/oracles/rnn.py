"""Simple RNNs, written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Noise, State


def rnn_variational(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    (h,) = state
    kept = torch.ones_like(h) if noise is None else noise.mask("recurrent", tuple(h.shape), cell.p)
    raw = []
    for step in x:
        h = torch.tanh(step @ w_ih.T + b_ih + (kept * h) @ w_hh.T + b_hh)
        raw.append(h)
    return torch.stack(raw), h


def rnn_relu(cell: nn.Module, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w_hh, b_ih, b_hh = (p for p in cell.parameters())
    (h,) = state
    raw = []
    for step in x:
        h = torch.relu(step @ w_ih.T + b_ih + h @ w_hh.T + b_hh)
        raw.append(h)
    return torch.stack(raw), h


def rnn_orthogonal(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, skew, b = (p for p in cell.parameters())
    (h,) = state
    size = len(b)
    a = torch.zeros(size, size, dtype=x.dtype)
    numbers = iter(skew)
    for i in range(size):
        for j in range(i + 1, size):
            number = next(numbers)
            a[i, j] = number
            a[j, i] = -number
    eye = torch.eye(size, dtype=x.dtype)
    q = torch.linalg.solve(eye + a, eye - a)
    raw = []
    for step in x:
        before = step @ w_ih.T + h @ q.T
        if cell.act == "tanh":
            h = torch.tanh(before + b)
        else:
            h = torch.sign(before) * torch.relu(before.abs() + b)
        raw.append(h)
    return torch.stack(raw), h


ORACLES = {
    "rnn_variational": rnn_variational,
    "rnn_relu": rnn_relu,
    "irnn": rnn_relu,
    "rnn_orthogonal": rnn_orthogonal,
}
