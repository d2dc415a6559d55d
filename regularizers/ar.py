"""Activation regularization (AR): keeps the output of the recurrent layers small.

penalty = mean(h^2) over all elements of h [T,B,H], times alpha, where h is the last layer's output
after dropout: the very tensor the decoder reads, its 1/(1-p) scaling included.

Paper: Merity, McCann, Socher 2017, arXiv 1708.01009.

The paper's text reads like a plain 2-norm; the authors' code (awd-lstm-lm) takes the mean of
squares, and single-digit coefficients make sense for that alone, so it is the default; `form=norm`
is the text's: the 2-norm over H, averaged over T, B. `of=raw` takes the output before dropout,
`layers=all` the mean over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench.api import Activations

from ._layers import over_layers


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar[str] = "alpha"
    alpha: float = 2.0
    of: Literal["dropped", "raw"] = "dropped"
    layers: Literal["last", "all"] = "last"
    form: Literal["mean_square", "norm"] = "mean_square"

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be below 0, but is {self.alpha}")

    def __call__(self, acts: Activations) -> Tensor:
        outputs = acts.dropped if self.of == "dropped" else acts.raw
        chosen = outputs if self.layers == "all" else outputs[-1:]
        size = _mean_square if self.form == "mean_square" else _mean_norm
        return over_layers(size, chosen)


def _mean_square(h: Tensor) -> Tensor:
    return h.square().mean()


def _mean_norm(h: Tensor) -> Tensor:
    # torch's norm has gradient 0 at 0, so a column that dropout silenced makes no NaN.
    norms: Tensor = torch.linalg.vector_norm(h, dim=-1)
    return norms.mean()
