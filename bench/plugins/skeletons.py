"""What `python -m bench.plugins new` writes: small plugins that work and pass the suite."""

CELL = '''"""One sentence on what {name} is.

h_t = tanh(W_ih x_t + b + W_hh h_(t-1)).

Shapes: W_ih [H,I], W_hh [H,H], b [H]; state (h,), [B,H]. All uniform in +-1/sqrt(H).

Paper: Author year, arXiv id.

What differs from the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Noise, State


class Cell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gain = gain  # a hyper-parameter: `{name}:gain=0.5` selects another value
        bound = hidden_size**-0.5
        self.w_ih = nn.Parameter(torch.empty(hidden_size, input_size).uniform_(-bound, bound))
        self.w_hh = nn.Parameter(torch.empty(hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound))

    def initial_state(self, batch_size: int) -> State:
        return (self.w_hh.new_zeros(batch_size, self.hidden_size),)

    def forward(self, x: Tensor, state: State, noise: Noise | None) -> tuple[Tensor, State]:
        # For randomness inside the recurrence: noise.mask("name", shape, p), unless noise is None.
        (h,) = state
        raw = []
        for step in F.linear(x, self.w_ih, self.bias):  # one product for all T steps
            h = torch.tanh(step + self.gain * (h @ self.w_hh.T))
            raw.append(h)
        return torch.stack(raw), (h,)
'''

REGULARIZER = '''"""One sentence on what {name} penalises.

penalty = mean(|h|) over all elements of the last layer's output after dropout, times alpha.

Paper: Author year, arXiv id.

What differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.api import Activations


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar[str] = "alpha"  # the harness multiplies by this field
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be below 0, but is {{self.alpha}}")

    def __call__(self, acts: Activations) -> Tensor:
        return acts.dropped[-1].abs().mean()
'''
