"""From a grid to its trials: products, what is skipped and why, what is merged."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.grid import Block, Grid
from bench.config.sizes import Sizes
from bench.config.trial import Trial, make_trial, select
from bench.corpora import default_data_dir, load
from bench.errors import BadInput, one_line
from bench.plugins import Registry, Selected, build_regularizers, load_class

MAX_TRIALS = 200_000

_Pair = tuple[str | None, list[tuple[Selected, Callable[[Trial], object]]]]


@dataclass
class Expansion:
    """The trials of a grid in order, what was skipped and why, and how many were equal."""

    trials: list[Trial] = field(default_factory=list)
    skipped: dict[tuple[str, str, str], int] = field(default_factory=dict)
    merged: int = 0


def expand(grid: Grid, registry: Registry, data_dir: Path | None = None) -> Expansion:
    """Returns the grid's trials in order; equal ones are merged and counted. Raises BadInput.

    `data_dir` is where corpora are; one is read only where `num_params` asks for its vocabulary.
    """
    size = sum(math.prod(len(axis) for axis in b.axes.values()) * b.reps for b in grid.blocks)
    if size > MAX_TRIALS:
        raise BadInput(f"{grid.where}: {size:,} trials are too many (at most {MAX_TRIALS:,})")
    expansion = Expansion()
    seen: set[Trial] = set()
    folder = data_dir or default_data_dir()
    sizes = Sizes(registry, lambda corpus: len(load(corpus, folder).vocab))
    pairs: dict[tuple[str, str], _Pair] = {}  # many trials have the same two plugins
    for values, block in _products(grid):
        first = make_trial(sizes.solve(values, block.where), registry, block.where)
        names = (first.cell, first.regularizer)
        if names not in pairs:
            pairs[names] = _pair(first, registry)
        reason = _skip_reason(first, *pairs[names])
        if reason:
            key = (first.cell, first.regularizer, reason)
            expansion.skipped[key] = expansion.skipped.get(key, 0) + block.reps
            continue
        sizes.check(first, block.where)
        for rep in range(first.rep, first.rep + block.reps):  # bench.train gives its own rep
            trial = first.model_copy(update={"rep": rep})
            if trial in seen:
                expansion.merged += 1
                continue
            seen.add(trial)
            expansion.trials.append(trial)
    if not expansion.trials:
        reasons = "; ".join(f"{c} x {r}: {why}" for c, r, why in expansion.skipped)
        raise BadInput(f"{grid.where}: an empty grid; all skipped: {reasons}")
    return expansion


def _products(grid: Grid) -> Iterator[tuple[dict[str, Any], Block]]:
    for block in grid.blocks:
        for steps in itertools.product(*block.axes.values()):
            values = dict(block.base)
            for step in steps:
                values |= step
            yield values, block


def _pair(trial: Trial, registry: Registry) -> _Pair:
    """Returns why a cell and its regularizers never go together, and those that may say skip."""
    cell, regularizers = select(trial, registry)
    for one in regularizers:
        for need in one.plugin.needs:
            if not cell.plugin.flags.get(need):
                why = f"{one.plugin.name} needs {need}, which {cell.plugin.name} does not give"
                return why, []
    build_regularizers(regularizers)  # their own range checks, before anything starts
    classes = [(one, load_class(one.plugin)) for one in (cell, *regularizers)]
    return None, [(one, cls.skip) for one, cls in classes if getattr(cls, "skip", None)]


def _skip_reason(
    trial: Trial, reason: str | None, skips: list[tuple[Selected, Callable[[Trial], object]]]
) -> str | None:
    for one, skip in skips:
        try:
            said = skip(trial)
        except Exception as error:
            raise BadInput(
                f"{one.plugin.kind} {one.spelling}: its skip(trial) fails: "
                f"{type(error).__name__}: {one_line(error, 200)}",
                detail=traceback.format_exc(),
            ) from error
        if said:
            return one_line(said, 200)
    return reason
