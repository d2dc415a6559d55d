"""The LSTM in a shape that cuDNN has its fastest kernels for, by padding with zeros.

Its persistent kernels keep W_hh on the chip for all steps. For an LSTM of one layer in float16 they
want units and inputs in multiples of 128, at most 1,024 units, and columns in multiples of 8.

Padding is exact. A padded unit has weights, biases and state 0, so its gates are 1/2 and its
candidate tanh(0) = 0: c and h stay 0, and it adds 0 to every product. Padded columns are cut off.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bench.api import State

UNITS, COLUMNS, MOST_UNITS = 128, 8, 1024


def pays(size: int) -> bool:
    """Returns whether a layer of `size` units has such a kernel, padded."""
    return size + -size % UNITS <= MOST_UNITS


def pad(
    weights: tuple[Tensor, ...] | list[Tensor], x: Tensor, state: State
) -> tuple[list[Tensor], Tensor, State]:
    """Returns all three with zeros up to the next multiples; see `lstm` of `_fused`."""
    w_ih, w_hh, b_ih, b_hh = weights
    size, inputs, columns = w_hh.shape[1], x.shape[2], x.shape[1]
    more, more_in, more_columns = -size % UNITS, -inputs % UNITS, -columns % COLUMNS

    def grown(weight: Tensor, right: int) -> Tensor:
        # Rows are four gates of `size` units: each gate grows by itself.
        gates = weight.view(4, size, -1)
        return F.pad(gates, (0, right, 0, more)).flatten(0, 1)

    padded = [grown(w_ih, more_in), grown(w_hh, more)]
    padded += [grown(b.unsqueeze(1), 0).squeeze(1) for b in (b_ih, b_hh)]
    start = tuple(F.pad(s, (0, more, 0, more_columns)) for s in state)
    return padded, F.pad(x, (0, more_in, 0, more_columns)), start


def cut(raw: Tensor, state: State, columns: int, size: int) -> tuple[Tensor, State]:
    """Returns raw [T,B,H] and state without what was padded."""
    return raw[:, :columns, :size], tuple(s[:columns, :size] for s in state)
