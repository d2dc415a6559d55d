"""The cells with a deep transition, written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Noise, State


def rhn(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    w_ih, w, b = cell.w_ih, cell.w, cell.b
    (s,) = state
    mask = torch.ones_like(s)
    if noise is not None:
        mask = noise.mask("recurrent", tuple(s.shape), cell.p)
    raw = []
    for step in x:
        for layer in range(len(w)):
            a = w[layer] @ (s * mask).T + b[layer][:, None]
            if layer == 0:
                a = a + w_ih @ step.T
            h, t = torch.tanh(a).chunk(2)[0].T, torch.sigmoid(a).chunk(2)[1].T
            s = h * t + s * (1 - t)
        raw.append(s)
    return torch.stack(raw), s


def nas(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    # The numbers of the open implementation; our blocks in its order.
    order = (0, 4, 2, 6, 5, 1, 7, 3)
    w_ih, w_hh = (torch.stack([w.chunk(8)[k] for k in order]) for w in (cell.w_ih, cell.w_hh))
    bias = torch.zeros_like(w_hh[:, :, 0])
    if cell.b is not None:
        bias = torch.stack([cell.b.chunk(8)[k] for k in order])
    sigmoid, tanh, relu = torch.sigmoid, torch.tanh, torch.relu
    c, m = state
    raw, memory = [], []
    for step in x:
        from_x = [w @ step.T for w in w_ih]
        from_m = [w @ m.T + b[:, None] for w, b in zip(w_hh, bias, strict=True)]
        one = [i + r for i, r in zip(from_x, from_m, strict=True)]
        two_0 = tanh(sigmoid(one[0]) * relu(one[1]))
        two_1 = tanh(sigmoid(one[2]) + relu(from_x[3] * from_m[3]))
        two_2 = tanh(tanh(one[4]) * sigmoid(one[5]))
        two_3 = sigmoid(tanh(one[6]) + sigmoid(one[7]))
        c = (tanh(two_0 + c.T) * two_1).T
        m = tanh(c * tanh(two_2 + two_3).T)
        raw.append(m)
        memory.append(c)
    return torch.stack(raw), c, m, torch.stack(memory)


ORACLES = {"rhn": rhn, "nas": nas}
