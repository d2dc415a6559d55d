"""The shared parts of the tree's plugins, loaded as the plugins themselves load them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from bench.plugins import find, load_class


def part(name: str, user: str) -> Any:
    """Returns the module of a part, `_lstm` say, or of a cell, through a cell that uses it."""
    package = load_class(find()["cell"][user]).__module__.rpartition(".")[0]
    if name == user:
        return sys.modules[load_class(find()["cell"][user]).__module__]
    return importlib.import_module(f"{package}.{name}")
