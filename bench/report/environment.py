"""What moves numbers beside the trial itself; records that differ in it are not averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_OF_OLD = ("driver", "determinism")
COLUMNS = ("device", "torch", "cuda", "cudnn", "threads", "kernel_path", *_OF_OLD)
"""Columns that make an environment.

Precision, sources and protocol are the trial's own and told apart by its run_id; host and python do
not move numbers. Null is a value like another, but for `_OF_OLD`, which records from before them
lack: there it agrees with any.
"""

Environment = tuple[Any, ...]
"""Values of COLUMNS; () where records are to be mixed (`--mix`)."""


def of(record: Mapping[str, Any]) -> Environment:
    """Returns the environment of a record."""
    return tuple(map(record.get, COLUMNS))


def differing(environments: Iterable[Environment]) -> list[int]:
    """Returns the places in COLUMNS of what these differ in; none: they may be averaged."""
    met = set(environments)
    if len(met) < 2:
        return []
    found = []
    for place, values in enumerate(zip(*met, strict=True)):
        known = {v for v in values if v is not None or COLUMNS[place] not in _OF_OLD}
        if len(known) > 1:
            found.append(place)
    return found


def together(one: Environment, other: Environment) -> Environment:
    """Returns all that is known of two that do not differ."""
    return tuple(b if a is None else a for a, b in zip(one, other, strict=True))


def told(environments: Sequence[Environment], unit: str = "") -> str:
    """Returns `3 on NVIDIA A100, 2 on NVIDIA H200`: how many, and only what they differ in.

    `unit`: what is counted, said once (`3 pairs on …`).
    """
    places = differing(environments)
    met = Counter(said(one, places) for one in environments)
    parts = [f"{n} {where}" for where, n in met.most_common()]
    if unit and parts:
        parts[0] = parts[0].replace(" ", f" {unit} ", 1)
    return ", ".join(parts)


def said(environment: Environment, places: Sequence[int]) -> str:
    """Returns some columns in words: `on NVIDIA A100 with torch 2.13.0 and cuda 13.0`."""
    device = "".join(f"on {value(environment[p])}" for p in places if COLUMNS[p] == "device")
    others = [f"{COLUMNS[p]} {value(environment[p])}" for p in places if COLUMNS[p] != "device"]
    return f"{device} with {' and '.join(others)}".strip() if others else device


def value(found: Any) -> str:
    """Returns a column's value as the page has it."""
    return "not recorded" if found is None else str(found)
