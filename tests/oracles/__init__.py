"""Each cell once more, as a written-out loop over time: slow, plain, and easy to check by eye.

One module a family. An oracle takes what the cell's forward takes, with the cell itself in front,
and returns (raw, *state), or (raw, *state, memory) for a cell with `memory = True`. It reads the
cell's parameters and hyper-parameters, asks `noise` for the masks by the same names, and shares no
code with the cell.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from torch import Tensor, nn

from bench.api import Noise, State

Oracle = Callable[[nn.Module, Tensor, State, Noise | None], tuple[Tensor, ...]]

ORACLES: dict[str, Oracle] = {}
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    ORACLES |= importlib.import_module(_module.name).ORACLES
