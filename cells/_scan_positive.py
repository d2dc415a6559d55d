"""The positive candidate of minGRU and minLSTM (Feng et al. 2024, arXiv 2410.01201)."""

from __future__ import annotations

import torch
from torch import Tensor


def positive(a: Tensor) -> Tensor:
    """Returns a + 0.5 where a >= 0 and sigmoid(a) elsewhere: continuous, increasing, above 0."""
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))
