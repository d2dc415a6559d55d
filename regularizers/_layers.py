"""A penalty of several layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def over_layers(penalty: Callable[[Tensor], Tensor], layers: Sequence[Tensor]) -> Tensor:
    """The mean of the layers' penalties; that of one layer is its own, with no operation more."""
    found = [penalty(h) for h in layers]
    return found[0] if len(found) == 1 else torch.stack(found).mean()
