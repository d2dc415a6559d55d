"""L1 on activations: keeps the output of the recurrent layers sparse.

penalty = mean(|h|) over all elements of h [T,B,H], times alpha, where h is the last layer's output
after dropout, as in AR: the same penalty with the absolute value in the square's place.

Paper: Glorot, Bordes, Bengio 2011 (AISTATS 15), "Deep sparse rectifier neural networks".

There it acts on the rectifiers of feed-forward layers, summed over the units; here it is a mean,
as AR is, so one coefficient means one strength at every size. The default 1 is ours. `of=raw` takes
the output before dropout, `layers=all` the mean over the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bench.api import Activations

from ._layers import over_layers


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar[str] = "alpha"
    alpha: float = 1.0
    of: Literal["dropped", "raw"] = "dropped"
    layers: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be below 0, but is {self.alpha}")

    def __call__(self, acts: Activations) -> Tensor:
        outputs = acts.dropped if self.of == "dropped" else acts.raw
        chosen = outputs if self.layers == "all" else outputs[-1:]
        return over_layers(lambda h: h.abs().mean(), chosen)
