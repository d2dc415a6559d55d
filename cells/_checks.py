"""Checks of hyper-parameters, for all cells: what they raise stops a grid at its start."""

from __future__ import annotations

import math


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


def between(low: float, high: float, **values: float) -> None:
    """Raises ValueError unless each value is at least `low` and at most `high`."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be between {low} and {high}, but is {value}")


def finite(**values: float) -> None:
    """Raises ValueError unless each value is finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, but is {value}")


def above_zero(**values: float) -> None:
    """Raises ValueError unless each value is finite and above 0."""
    finite(**values)
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be above 0, but is {value}")
