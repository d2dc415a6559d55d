"""Norm stabilizer: keeps the length of the output, not its direction, from changing in time.

penalty = mean((|h_{t+1}| - |h_t|)^2) over [T-1,B], |.| the 2-norm over H, times beta, where h is
the last layer's output before dropout. Only steps within a window count; the penalty of a one-step
window is 0. TAR penalises the change of the vector, this the change of its norm alone.

Paper: Krueger and Memisevic 2016, arXiv 1511.08400.

The paper's beta is 50, for characters; on words of Penn Treebank 10 was the better of 1 and 10 in a
small public trial (Element-Research/rnn, PR 236), and is the default. The norm is that of a whole
layer, so the penalty grows with H. The paper counts the step from the initial state as well; here
the state is carried, and the step across two windows is left out, as in TAR. `of=dropped` takes
the output after dropout, `layers=all` the mean over the layers.

Published: character-level Penn Treebank, bits per character, validation / test: 1.459 / 1.352 with
it, 1.466 / 1.356 without. On words, perplexity of a small LSTM in the public trial: 125 without it,
124 at beta 1, 122 at beta 10.
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
    coefficient: ClassVar[str] = "beta"
    beta: float = 10.0
    of: Literal["raw", "dropped"] = "raw"
    layers: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be below 0, but is {self.beta}")

    def __call__(self, acts: Activations) -> Tensor:
        outputs = acts.dropped if self.of == "dropped" else acts.raw
        chosen = outputs if self.layers == "all" else outputs[-1:]
        if chosen[-1].shape[0] < 2:  # a shape, not a value: the mean over no step would be NaN
            return chosen[-1].new_zeros(())
        return over_layers(_change, chosen)


def _change(h: Tensor) -> Tensor:
    # torch's norm has gradient 0 at 0, so a silent column makes no NaN.
    norms: Tensor = torch.linalg.vector_norm(h, dim=-1)
    return (norms[1:] - norms[:-1]).square().mean()
