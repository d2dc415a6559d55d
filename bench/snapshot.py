"""All of a trial under way as tensors and plain numbers, taken and put back between two windows.

With it a trial goes on elsewhere as if nothing had happened, to the bit: windows follow from the
row that is next, and masks from the number of the step, so no generator has a state.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch
from torch import Tensor

from bench.loop import Trainer
from bench.products import ROUNDED
from bench.schedule import Average
from bench.standing import Standing

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, on the CPU and of their own memory, and numbers that JSON holds exactly."""


class Misfit(ValueError):
    """A snapshot of something else than this trial."""


def take(trainer: Trainer) -> Snapshot:
    """Returns where a trial stands, at any moment between two windows, of evaluation too."""
    if trainer.diverged:
        raise ValueError("a diverged trial is at its end")
    with trainer.engine.place():
        tensors = {name: _own(tensor) for name, tensor in _tensors(trainer).items()}
    trainer.at.captured |= trainer.engine.path == "captured"
    state = None if trainer.state is None else [len(layer) for layer in trainer.state]
    numbers: dict[str, Any] = {"at": dataclasses.asdict(trainer.at), "state": state}
    if trainer.average is not None:
        numbers["average_steps"] = trainer.average.steps
    return tensors, numbers


def put_back(trainer: Trainer, snapshot: Snapshot) -> None:
    """Puts a new Trainer where the snapshot was taken. Raises Misfit, and changes nothing then."""
    tensors, numbers = snapshot
    at = _standing(numbers.get("at"))
    here = _tensors(trainer)
    with trainer.engine.place(), torch.no_grad():
        further = _further(trainer, at, numbers)
        for name, tensor in (here | further).items():
            # torch's own products leave a state rounded, where the precision has them round.
            rounded = ROUNDED.get(trainer.trial.precision) if name.startswith("state.") else None
            _fit(name, tensor, tensors.get(name), rounded)
        for name, tensor in here.items():
            tensor.copy_(tensors[name])  # in place: recordings and fused kernels hold on to it
        moved = {name: tensors[name].to(trainer.device) for name in further}
        if at.best_epoch is not None:
            best = [name for name in moved if name.startswith("best.")]
            trainer.best_weights = {name.removeprefix("best."): moved[name] for name in best}
            trainer.best_nll = tensors["best_nll"].numpy()
        if "average_steps" in numbers:
            trainer.average = Average(trainer.parameters)
            trainer.average.steps = numbers["average_steps"]
            trainer.average.values = [moved[f"average.{n}"] for n in range(len(trainer.parameters))]
        if numbers["state"] is not None:
            trainer.state = tuple(
                tuple(moved[f"state.{layer}.{n}"] for n in range(count))
                for layer, count in enumerate(numbers["state"])
            )
    trainer.at = at
    trainer.at.resumed += 1


def _standing(said: Any) -> Standing:
    """Returns the numbers, each of its type and finite. Raises Misfit."""
    try:
        at = Standing(**said)
    except TypeError as error:
        raise Misfit(f"numbers of another version: {error}") from None
    for field in dataclasses.fields(at):
        if not _is(getattr(at, field.name), str(field.type)):
            raise Misfit(f"{field.name} does not fit")
    return at


def _is(value: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return value is None or _is(value, kind.removesuffix(" | None"))
    if kind == "list[float]":
        return isinstance(value, list) and all(_is(one, "float") for one in value)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "int":
        return type(value) is int and 0 <= value < 2**63
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # which NaN is not


def _further(trainer: Trainer, at: Standing, numbers: dict[str, Any]) -> dict[str, Tensor]:
    """Returns tensors like those that the snapshot has and a new trainer has not. Misfit."""
    found: dict[str, Tensor] = {}
    if at.best_epoch is not None:
        found |= {f"best.{name}": t for name, t in trainer.model.state_dict().items()}
        found["best_nll"] = torch.empty(len(trainer.corpus.valid) - 1, dtype=torch.float64)
    if "average_steps" in numbers:
        if not _is(numbers["average_steps"], "int"):
            raise Misfit("average_steps does not fit")
        found |= {f"average.{n}": p for n, p in enumerate(trainer.parameters)}
    if numbers.get("state", ()) is not None:
        state = trainer.model.initial_state(trainer.trial.batch_size)
        if numbers.get("state") != [len(layer) for layer in state]:
            raise Misfit("state does not fit")
        found |= {f"state.{layer}.{n}": t for layer, s in enumerate(state) for n, t in enumerate(s)}
    return found


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Returns every tensor that is part of where a trial stands, by name."""
    model, update = trainer.model, trainer.engine.step.update
    found = {f"model.{n}": t for n, t in (*model.named_parameters(), *model.named_buffers())}
    found["sums"] = trainer.engine.step.sums
    if update.scale is not None:
        found |= {"scale": update.scale, "good_steps": update.good_steps}
    found |= {f"best.{name}": tensor for name, tensor in trainer.best_weights.items()}
    if trainer.best_nll is not None:
        found["best_nll"] = torch.from_numpy(trainer.best_nll)
    if trainer.average is not None:
        found |= {f"average.{n}": tensor for n, tensor in enumerate(trainer.average.values)}
    for layer, state in enumerate(trainer.state or ()):
        found |= {f"state.{layer}.{n}": tensor for n, tensor in enumerate(state)}
    return found


def _fit(name: str, here: Tensor, there: Tensor | None, rounded: torch.dtype | None) -> None:
    if there is None or there.shape != here.shape or there.dtype not in (here.dtype, rounded):
        raise Misfit(f"{name} does not fit")


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
