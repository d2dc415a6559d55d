"""From a grid to its trials: products, what is skipped and why, what is merged."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.grid import Block, Grid
from bench.config.sizes import Sizes
from bench.config.trial import Trial, make_trial, select
from bench.corpora import default_data_dir, load
from bench.errors import BadInput, one_line
from bench.plugins import Registry, build_regularizers, load_class

MAX_TRIALS = 200_000


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
    for values, block in _products(grid):
        first = make_trial(sizes.solve(values, block.where), registry, block.where)
        reason = _skip_reason(first, registry)
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


def _skip_reason(trial: Trial, registry: Registry) -> str | None:
    cell, regularizers = select(trial, registry)
    for one in regularizers:
        for need in one.plugin.needs:
            if not cell.plugin.flags.get(need):
                return f"{one.plugin.name} needs {need}, which {cell.plugin.name} does not give"
    build_regularizers(regularizers)  # their own range checks, before anything starts
    for one in (cell, *regularizers):
        skip = getattr(load_class(one.plugin), "skip", None)
        try:
            reason = skip(trial) if skip else None
        except Exception as error:
            raise BadInput(
                f"{one.plugin.kind} {one.spelling}: its skip(trial) fails: "
                f"{type(error).__name__}: {one_line(error, 200)}",
                detail=traceback.format_exc(),
            ) from error
        if reason:
            return one_line(reason, 200)
    return None
