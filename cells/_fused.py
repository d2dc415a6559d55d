"""LSTM, GRU and simple RNN without masks, by the fastest kernel there is for the place.

On a GPU that is cuDNN's, in fp16 with padding (`_padded`). On a CPU only the LSTM has a fused
kernel in torch (oneDNN's), and only in float32 and float64; elsewhere the written-out loops of
`_lstm`, `_gru` and `_rnn` are faster than torch's own.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bench.api import State
from bench.products import linear, precision_of, rounds

from . import _gru, _lstm, _padded, _rnn

Weights = tuple[Tensor, ...] | list[Tensor]
"""w_ih [G*H,I], w_hh [G*H,H], b_ih and b_hh [G*H], torch's layout."""


def lstm(weights: Weights, x: Tensor, state: State, training: bool) -> tuple[Tensor, State]:
    """x [T,B,I], state (h, c), each [B,H] -> raw [T,B,H], state."""
    if x.device.type == "cpu" and rounds(x):
        raw, after, _ = _lstm.run(weights, x, state)
        return raw, after
    size = state[0].shape[1]
    if x.is_cuda and precision_of(x) == torch.float16 and _padded.pays(size):
        raw, after = _lstm_kernel(*_padded.pad(weights, x, state), training)
        return _padded.cut(raw, after, x.shape[1], size)
    return _lstm_kernel(weights, x, state, training)


def _lstm_kernel(weights: Weights, x: Tensor, state: State, training: bool) -> tuple[Tensor, State]:
    raw, h, c = _call(torch.lstm, weights, x, state, training)
    return raw, (h, c)


def gru(weights: Weights, x: Tensor, state: State, training: bool) -> tuple[Tensor, State]:
    """x [T,B,I], state (h,), [B,H] -> raw [T,B,H], state."""
    if x.device.type == "cpu":
        w_ih, w_hh, b_ih, b_hh = weights
        raw = _gru.gru(linear(x, w_ih, b_ih), state[0], w_hh, b_hh)
        return raw, (raw[-1],)
    raw, h = _call(torch.gru, weights, x, state, training)
    return raw, (h,)


def rnn(
    weights: Weights, x: Tensor, state: State, training: bool, act: Literal["tanh", "relu"]
) -> tuple[Tensor, State]:
    """x [T,B,I], state (h,), [B,H] -> raw [T,B,H], state."""
    if x.device.type == "cpu":
        w_ih, w_hh, b_ih, b_hh = weights
        raw = _rnn.rnn(linear(x, w_ih, b_ih + b_hh), state[0], w_hh, act)
        return raw, (raw[-1],)
    fused = torch.rnn_tanh if act == "tanh" else torch.rnn_relu
    raw, h = _call(fused, weights, x, state, training)
    return raw, (h,)


def _call(
    kernel: Any, weights: Weights, x: Tensor, state: State, training: bool
) -> tuple[Tensor, ...]:
    """Calls torch's kernel as nn.LSTM and its kin do; returns raw and each state [B,H]."""
    kind = precision_of(x)
    if kind != x.dtype:
        # Rounded here, for autocast would make every one of them float16 for cuDNN, bf16 too. In
        # one piece, as cuDNN wants its weights: otherwise it copies them, and warns at every call.
        flat = torch.cat([w.flatten() for w in weights]).to(kind)
        pieces = torch.split(flat, [w.numel() for w in weights])
        weights = [piece.view_as(w) for piece, w in zip(pieces, weights, strict=True)]
        x, state = x.to(kind), tuple(s.to(kind) for s in state)
    starts = [s.unsqueeze(0) for s in state]
    start = starts if len(starts) > 1 else starts[0]
    with torch.autocast(x.device.type, enabled=False):
        # With biases, one layer, no dropout, one direction, time first.
        raw, *ends = kernel(x, start, weights, True, 1, 0.0, training, False, False)
    return raw, *(end.squeeze(0) for end in ends)
