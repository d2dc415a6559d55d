"""Cuts an array of word ids into columns and windows, for training and for evaluation.

Columns are as narrow as the ids and, where they can be, a view of the memory-mapped file: trials on
one machine share it. Only the rows of a window become int64, which torch's losses want.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = -1  # the target of a padded place


def rows(cols: Tensor, start: int, end: int) -> Tensor:
    """Returns rows of columns [L,B], to embed or to predict: int64 [end - start, B]."""
    return cols[start:end].to(torch.int64, memory_format=torch.contiguous_format)


def columns(ids: NDArray[Any], batch_size: int) -> Tensor:
    """Returns the text in `batch_size` columns of equal length: [N] -> [N // B, B], a view.

    The text runs down the first column, then down the second; what is left over is dropped. A
    window is `bptt` rows of it, and its targets are the same rows moved down by one::

        a b c d e f g h i j k l m n    with B = 3, bptt = 2

        a  e  i   <- tokens           <- targets are b f j
        b  f  j   <- tokens           <- targets are c g k, the last tokens of this window
        c  g  k      tokens of the next window; targets are d h l
        d  h  l      only ever targets          (m, n are dropped)
    """
    length = len(ids) // batch_size
    with warnings.catch_warnings():  # the file is mapped for reading only, and only read
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        flat = torch.from_numpy(ids[: length * batch_size])
    return flat.view(batch_size, length).t()


def windows(
    cols: Tensor, bptt: int | Iterable[int], start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (tokens, targets), int64 [T,B], down the columns; T = bptt, the last may be shorter.

    Each token after the first of its column is a target exactly once. `bptt` may be the lengths of
    the windows one after the other, each at least 1 and enough of them. `start`: the row at which
    the first window begins.
    """
    lengths = itertools.repeat(bptt) if isinstance(bptt, int) else iter(bptt)
    while start < len(cols) - 1:
        end = min(start + next(lengths), len(cols) - 1)
        both = rows(cols, start, end + 1)
        yield both[:-1], both[1:]
        start = end


def evaluation_columns(ids: NDArray[Any], n: int = 10) -> tuple[Tensor, Tensor]:
    """Returns (tokens [L,n], targets [L,n]) in which each token but the first is a target.

    The first input of a column is the last target of the column before it, so no token is lost
    where columns meet. Places beyond the text hold token 0 and target -1: exactly N-1 targets are
    real. L is the ceiling of (N-1) / n. A text `a b c d e f g h` with n = 3 gives::

        tokens  a d g      targets  b e h
                b e 0               c f -1
                c f 0               d g -1
    """
    count = len(ids) - 1
    length = -(-count // n)
    flat = torch.zeros(2, n * length, dtype=torch.int32)
    flat[1] = IGNORED
    flat.numpy()[0, :count] = ids[:-1]
    flat.numpy()[1, :count] = ids[1:]
    tokens, targets = flat.view(2, n, length).transpose(1, 2)
    return tokens, targets


def in_text_order(values: Tensor, count: int) -> Tensor:
    """Returns the first `count` of the values [L,n] of `evaluation_columns`, in text order.

    With count = N-1 these are the values of tokens 1..N-1 of the text.
    """
    return values.t().reshape(-1)[:count]
