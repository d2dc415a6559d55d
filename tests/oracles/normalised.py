"""The cells with normalised products, written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Noise, State


def normal(a: Tensor, dim: int) -> Tensor:
    """a [B,G] -> mean 0 and variance 1 (biased) along `dim`, but for the 1e-5."""
    centered = a - a.sum(dim, keepdim=True) / a.shape[dim]
    variance = (centered**2).sum(dim, keepdim=True) / a.shape[dim]
    return centered / torch.sqrt(variance + 1e-5)


def lstm_layernorm(
    cell: nn.Module, x: Tensor, state: State, noise: Noise | None
) -> tuple[Tensor, ...]:
    p = dict(cell.named_parameters())
    h, c = state
    raw, memory = [], []
    for step in x:
        from_h = p["gain_hh"] * normal(h @ p["w_hh"].T, 1)
        from_x = p["gain_ih"] * normal(step @ p["w_ih"].T, 1)
        i, f, g, o = (from_h + from_x + p["bias"]).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(p["gain_c"] * normal(c, 1) + p["bias_c"])
        raw.append(h)
        memory.append(c)
    return torch.stack(raw), h, c, torch.stack(memory)


def gru_layernorm(
    cell: nn.Module, x: Tensor, state: State, noise: Noise | None
) -> tuple[Tensor, ...]:
    p = dict(cell.named_parameters())
    (h,) = state
    both = 2 * h.shape[1]
    raw = []
    for step in x:
        from_h, from_x = h @ p["w_hh"].T, step @ p["w_ih"].T
        rz = p["gain_hh"][:both] * normal(from_h[:, :both], 1)
        rz = rz + p["gain_ih"][:both] * normal(from_x[:, :both], 1) + p["bias"][:both]
        r, z = torch.sigmoid(rz).chunk(2, 1)
        recall = p["gain_hh"][both:] * normal(from_h[:, both:], 1) + p["bias_hn"]
        term = p["gain_ih"][both:] * normal(from_x[:, both:], 1) + p["bias"][both:]
        h = (1 - z) * torch.tanh(term + r * recall) + z * h
        raw.append(h)
    return torch.stack(raw), h


def lstm_batchnorm(
    cell: nn.Module, x: Tensor, state: State, noise: Noise | None
) -> tuple[Tensor, ...]:
    """Does not move the running averages."""
    p = dict(cell.named_parameters())
    # As they are now: whoever calls may change them before the backward pass.
    running = {name: buffer.clone() for name, buffer in cell.named_buffers()}

    def norm(a: Tensor, name: str) -> Tensor:
        if cell.training:
            return p[f"gain_{name}"] * normal(a, 0)
        deviation = torch.sqrt(running[f"var_{name}"] + 1e-5)
        return p[f"gain_{name}"] * (a - running[f"mean_{name}"]) / deviation

    h, c = state
    raw, memory = [], []
    for step in x:
        gates = norm(h @ p["w_hh"].T, "hh") + norm(step @ p["w_ih"].T, "ih") + p["bias"]
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(norm(c, "c") + p["bias_c"])
        raw.append(h)
        memory.append(c)
    return torch.stack(raw), h, c, torch.stack(memory)


ORACLES = {
    "lstm_layernorm": lstm_layernorm,
    "gru_layernorm": gru_layernorm,
    "lstm_batchnorm": lstm_batchnorm,
}
