"""TAR on the memory: keeps the cell state c, not the output, from changing between time steps.

penalty = mean((c_{t+1} - c_t)^2) over all elements [T-1,B,H], times beta, where c is the last
layer's memory, which only cells that say `memory = True` hand over at every step. Only steps within
a window count; the penalty of a one-step window is 0.

Paper: Merity, McCann, Socher 2017, arXiv 1708.01009.

The paper names it as possible and does not try it.

A fused kernel returns the last c alone, so `lstm` cannot take part; a variant at rate 0, such as
`lstm_zoneout:zc=0:zh=0`, is the same cell with its memory in hand. The default 1 is TAR's; c is not
bounded as h is, so it need not mean the same strength. `layers=all` is the mean over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from bench.api import Activations

from ._layers import over_layers


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar[str] = "beta"
    needs: ClassVar[tuple[str, ...]] = ("memory",)
    beta: float = 1.0
    layers: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be below 0, but is {self.beta}")

    def __call__(self, acts: Activations) -> Tensor:
        memories = [c for c in acts.memory if c is not None]
        chosen = memories if self.layers == "all" else memories[-1:]
        if chosen[-1].shape[0] < 2:  # a shape, not a value: the mean over no step would be NaN
            return chosen[-1].new_zeros(())
        return over_layers(lambda c: F.mse_loss(c[1:], c[:-1]), chosen)
