"""Checks of hyper-parameters, for all cells: what they raise stops a grid at its start."""

from __future__ import annotations


def rates(**values: float) -> None:
    """Raises ValueError unless each value is a rate: at least 0 and below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, but is {value}")


def at_least(least: int, **values: int) -> None:
    """Raises ValueError unless each value is at least `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, but is {value}")
