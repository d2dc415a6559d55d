"""Temporal activation regularization (TAR): keeps the output from changing between time steps.

penalty = mean((h_{t+1} - h_t)^2) over all elements [T-1,B,H], times beta, where h is the last
layer's output before dropout (on dropped outputs the mask itself would be the change). Only steps
within a window count, as in the authors' code; the penalty of a one-step window is 0.

Paper: Merity, McCann, Socher 2017, arXiv 1708.01009.

The paper's text reads like a plain 2-norm; the authors' code (awd-lstm-lm) takes the mean of
squares, which is the default; `form=norm` is the text's: the 2-norm over H, averaged over T-1 and
B. `of=dropped` takes the output after dropout, `layers=all` the mean over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Activations

from ._layers import over_layers


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar[str] = "beta"
    beta: float = 1.0
    of: Literal["raw", "dropped"] = "raw"
    layers: Literal["last", "all"] = "last"
    form: Literal["mean_square", "norm"] = "mean_square"

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be below 0, but is {self.beta}")

    def __call__(self, acts: Activations) -> Tensor:
        outputs = acts.dropped if self.of == "dropped" else acts.raw
        chosen = outputs if self.layers == "all" else outputs[-1:]
        if chosen[-1].shape[0] < 2:  # a shape, not a value: the mean over no step would be NaN
            return chosen[-1].new_zeros(())
        size = _mean_square_change if self.form == "mean_square" else _mean_norm_change
        return over_layers(size, chosen)


def _mean_square_change(h: Tensor) -> Tensor:
    # The same as (h[1:] - h[:-1]).square().mean(), in two thirds of the operations.
    return F.mse_loss(h[1:], h[:-1])


def _mean_norm_change(h: Tensor) -> Tensor:
    # torch's norm has gradient 0 at 0, so two equal steps make no NaN.
    norms: Tensor = torch.linalg.vector_norm(h[1:] - h[:-1], dim=-1)
    return norms.mean()
