"""The GRU's variants, written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Noise, State


def gru_variational(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    weights = dict(cell.named_parameters())
    w_ir, w_iz, w_in = weights["rnn.weight_ih_l0"].chunk(3)
    w_hr, w_hz, w_hn = weights["rnn.weight_hh_l0"].chunk(3)
    b_ir, b_iz, b_in = weights["rnn.bias_ih_l0"].chunk(3)
    b_hr, b_hz, b_hn = weights["rnn.bias_hh_l0"].chunk(3)
    (h,) = state
    kept_r = kept_z = kept_n = torch.ones_like(h)
    if noise is not None and cell.untied:
        kept_r, kept_z, kept_n = noise.mask("recurrent", (3, *h.shape), cell.p)
    elif noise is not None:
        kept_r = kept_z = kept_n = noise.mask("recurrent", tuple(h.shape), cell.p)
    raw = []
    for step in x:
        r = torch.sigmoid(step @ w_ir.T + b_ir + (kept_r * h) @ w_hr.T + b_hr)
        z = torch.sigmoid(step @ w_iz.T + b_iz + (kept_z * h) @ w_hz.T + b_hz)
        n = torch.tanh(step @ w_in.T + b_in + r * ((kept_n * h) @ w_hn.T + b_hn))
        h = (1 - z) * n + z * h
        raw.append(h)
    return torch.stack(raw), h


def gru_zoneout(cell: Any, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, ...]:
    weights = dict(cell.named_parameters())
    w_ih, w_hh = weights["rnn.weight_ih_l0"], weights["rnn.weight_hh_l0"]
    b_ih, b_hh = weights["rnn.bias_ih_l0"], weights["rnn.bias_hh_l0"]
    (h,) = state
    keeps = None
    if noise is not None:
        keeps = noise.mask("zoneout h", (len(x), *h.shape), cell.zh) == 0
    raw = []
    for t, step in enumerate(x):
        ir, iz, i_n = (w_ih @ step.T + b_ih[:, None]).chunk(3)
        hr, hz, hn = (w_hh @ h.T + b_hh[:, None]).chunk(3)
        r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        n = torch.tanh(i_n + r * hn)
        new = ((1 - z) * n).T + z.T * h
        if keeps is None:
            h = cell.zh * h + (1 - cell.zh) * new
        else:
            h = torch.where(keeps[t], h, new)
        raw.append(h)
    return torch.stack(raw), h


ORACLES = {"gru_variational": gru_variational, "gru_zoneout": gru_zoneout}
