"""What a layer that also reads the inputs before this one needs: windows over the time axis."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(x: Tensor, last_x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Returns [x_t, x_{t-1}, ..., x_{t-width+1}] for all t, [T,B,width*I], and the next last_x.

    x: [T,B,I]. last_x: the width-1 inputs before x, oldest first, [B,(width-1)*I].
    """
    before = width - 1
    steps, columns, size = x.shape
    known = torch.cat([last_x.view(columns, before, size).transpose(0, 1), x])
    earlier = [known[before - lag : before - lag + steps] for lag in range(1, width)]
    last = known[steps:].transpose(0, 1).reshape(columns, before * size)
    return torch.cat([x, *earlier], dim=-1), last
