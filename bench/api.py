"""The page a plugin author reads: what a cell and a regularizer are, and what they are given.

Axis letters, everywhere and only these: T time steps in a window, B batch columns, E embedding
size, I layer input size, H layer output size, V vocabulary. Tensors are time-major.

A cell is one recurrent layer, in `cells/<name>.py`, a `torch.nn.Module` called exactly `Cell`::

    class Cell(nn.Module):
        def __init__(self, input_size: int, hidden_size: int, *, zc: float = 0.05): ...
        def initial_state(self, batch_size: int) -> State: ...
        def forward(self, x, state, noise):  # x [T,B,I] -> raw [T,B,H], State
            return raw, state

A regularizer is a frozen dataclass, in `regularizers/<name>.py`, called exactly `Regularizer`::

    @dataclass(frozen=True)
    class Regularizer:
        coefficient: ClassVar[str] = "alpha"
        alpha: float = 2.0
        def __call__(self, acts: Activations) -> Tensor:  # a scalar, not yet times alpha
            ...

Keyword-only arguments of the cell and fields of the regularizer are its hyper-parameters. They are
annotated int, float, bool, str or Literal[...] and have literal defaults, so that they can be read
without importing the file. `python -m bench.plugins check FILE` tests a plugin against the rules;
docs/add-a-cell.md and docs/add-a-regularizer.md tell them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

if TYPE_CHECKING:  # `import bench.api` must stay light: listing plugins imports no torch
    from torch import Tensor

State: TypeAlias = "tuple[Tensor, ...]"
"""What one layer carries from window to window, each [B, *]: LSTM (h, c), GRU (h,)."""


class Noise(Protocol):
    """The only source of randomness a cell may use; `None` in its place means no randomness."""

    def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        """Returns a dropout mask: 0 with probability `p`, else 1/(1-p).

        A pure function of (seed, step, site, name): the same call in the same step gives the same
        mask, another name an independent one (any but the stack's own, "between layers"), on every
        device alike. Raises ValueError unless 0 <= p < 1.
        """
        ...


@dataclass(frozen=True)
class Activations:
    """What a regularizer sees of one training window.

    embedded: [T,B,E], after `dropouti`.
    raw: one [T,B,H] per layer, the cells' outputs with no dropout between layers on them.
    dropped: one [T,B,H] per layer, after `dropouth` (inner layers) or `dropout` (the last one);
        `dropped[-1]` is the very tensor the decoder reads, 1/(1-p) scaling included.
    memory: one [T,B,H] per layer for cells that say `memory = True`, otherwise None in its place.
    """

    embedded: Tensor
    raw: tuple[Tensor, ...]
    dropped: tuple[Tensor, ...]
    memory: tuple[Tensor | None, ...]


class CellProtocol(Protocol):
    """The contract of `Cell`; the suite in `bench.contract` holds every cell to it.

    Optional class attributes: `memory = True` (forward also returns the memory [T,B,H]),
    `mixes_batch = True` (columns see each other in training), `eager_only = "why"` (control flow on
    values: its steps are not recorded as a CUDA graph), `skip(trial) -> str | None` (a reason why
    this trial makes no sense), `plain()` (the same cell, same parameters, in plain torch
    operations).
    """

    def __init__(self, input_size: int, hidden_size: int, **hparams: Any) -> None: ...

    def initial_state(self, batch_size: int) -> State:
        """Returns the state before the first window, on the module's device and dtype."""
        ...

    def __call__(self, x: Tensor, state: State, noise: Noise | None) -> Any:
        """x [T,B,I] -> (raw [T,B,H], state) or, with `memory = True`, (raw, state, memory)."""
        ...


class RegularizerProtocol(Protocol):
    """The contract of `Regularizer`: a frozen dataclass whose fields are its hyper-parameters.

    `coefficient` names the field that scales it: the harness multiplies by it, and logs the sum of
    a trial's weighted penalties beside the nll.
    `needs` may hold "memory": pairs with cells that have none are skipped with that reason.
    """

    coefficient: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def __call__(self, acts: Activations) -> Tensor:
        """Returns the unweighted penalty, a scalar not below 0."""
        ...
