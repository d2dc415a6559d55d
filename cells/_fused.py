"""LSTM, GRU and simple RNN without masks, by the fastest kernel there is for the place.

On a GPU that is cuDNN's, in fp16 with padding (`_padded`). On a CPU only the LSTM has a fused
kernel in torch (oneDNN's), and only in float32 and float64; elsewhere the written-out loops of
`_lstm`, `_gru` and `_rnn` are faster than torch's own.
"""

from __future__ import annotations

from typing import Literal

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
        raw, after = _kernel(*_padded.pad(weights, x, state), training)
        return _padded.cut(raw, after, x.shape[1], size)
    return _kernel(weights, x, state, training)


def _kernel(weights: Weights, x: Tensor, state: State, training: bool) -> tuple[Tensor, State]:
    start = [s.unsqueeze(0) for s in state]
    # What nn.LSTM itself calls: with biases, one layer, no dropout, one direction, time first.
    raw, h, c = torch.lstm(x, start, weights, True, 1, 0.0, training, False, False)
    return raw, (h.squeeze(0), c.squeeze(0))


def gru(weights: Weights, x: Tensor, state: State, training: bool) -> tuple[Tensor, State]:
    """x [T,B,I], state (h,), [B,H] -> raw [T,B,H], state."""
    if x.device.type == "cpu":
        w_ih, w_hh, b_ih, b_hh = weights
        raw = _gru.gru(linear(x, w_ih, b_ih), state[0], w_hh, b_hh)
        return raw, (raw[-1],)
    raw, h = torch.gru(x, state[0].unsqueeze(0), weights, True, 1, 0.0, training, False, False)
    return raw, (h.squeeze(0),)


def rnn(
    weights: Weights, x: Tensor, state: State, training: bool, act: Literal["tanh", "relu"]
) -> tuple[Tensor, State]:
    """x [T,B,I], state (h,), [B,H] -> raw [T,B,H], state."""
    if x.device.type == "cpu":
        w_ih, w_hh, b_ih, b_hh = weights
        raw = _rnn.rnn(linear(x, w_ih, b_ih + b_hh), state[0], w_hh, act)
        return raw, (raw[-1],)
    fused = torch.rnn_tanh if act == "tanh" else torch.rnn_relu
    raw, h = fused(x, state[0].unsqueeze(0), weights, True, 1, 0.0, training, False, False)
    return raw, (h.squeeze(0),)
