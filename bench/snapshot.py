"""All of a trial under way as tensors and plain numbers, taken and put back between two windows.

With it a trial goes on elsewhere as if nothing had happened, to the bit: windows follow from the
row that is next, and masks from the number of the step, so no generator has a state.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bench.loop import Trainer
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
    state = None if trainer.state is None else [len(layer) for layer in trainer.state]
    numbers: dict[str, Any] = {"at": dataclasses.asdict(trainer.at), "state": state}
    if trainer.average is not None:
        numbers["average_steps"] = trainer.average.steps
    return tensors, numbers


def put_back(trainer: Trainer, snapshot: Snapshot) -> None:
    """Puts a new Trainer where the snapshot was taken. Raises Misfit, and changes nothing then."""
    tensors, numbers = snapshot
    try:
        at = Standing(**numbers["at"])
    except (KeyError, TypeError) as error:
        raise Misfit(f"numbers of another version: {error}") from None
    here = _tensors(trainer)
    for name, tensor in here.items():
        _fit(name, tensor, tensors.get(name))
    averaged: list[str] = []
    if "average_steps" in numbers:
        averaged = [f"average.{n}" for n in range(len(trainer.parameters))]
        for name, parameter in zip(averaged, trainer.parameters, strict=True):
            _fit(name, parameter, tensors.get(name))
    with trainer.engine.place(), torch.no_grad():
        for name, tensor in here.items():
            tensor.copy_(tensors[name])  # in place: recordings and fused kernels hold on to it
        moved = {name: tensor.to(trainer.device) for name, tensor in tensors.items()}
        best = [name for name in moved if name.startswith("best.")]
        trainer.best_weights = {name.removeprefix("best."): moved[name] for name in best}
        if "best_nll" in tensors:
            trainer.best_nll = tensors["best_nll"].numpy()
        if averaged:
            trainer.average = Average(trainer.parameters)
            trainer.average.steps = numbers["average_steps"]
            trainer.average.values = [moved[name] for name in averaged]
        if numbers["state"] is not None:
            trainer.state = tuple(
                tuple(moved[f"state.{layer}.{n}"] for n in range(count))
                for layer, count in enumerate(numbers["state"])
            )
    trainer.at = at
    trainer.at.resumed += 1


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


def _fit(name: str, here: Tensor, there: Tensor | None) -> None:
    if there is None or there.shape != here.shape or there.dtype != here.dtype:
        raise Misfit(f"{name} does not fit")


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
