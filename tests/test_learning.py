"""Every plugin of the tree learns: thirty steps lower the loss.

`make plugins-smoke` trains each for real (see plugins_smoke.py).
"""

from __future__ import annotations

import pytest
import torch

from bench.config import make_trial
from bench.loop import Trainer
from bench.plugins import find
from tests.plugins_smoke import MEMORY_CELL
from tests.trainers import make_trainer

CPU = torch.device("cpu")
STEPS = 30
BASE = {
    "corpus": "synthetic:train=2000:valid=300:test=300",
    "nhid": 16,
    "batch_size": 4,
    "bptt": 12,
    "lr": 2,
    "clip": 1,
}
LR = {"irnn": 0.1, "nas": 8}  # unbounded ReLUs overshoot; the NAS cell passes little on at first


def losses(trainer: Trainer) -> list[float]:
    """Nll plus penalty of thirty steps on one window, from the initial state each time."""
    found = []
    trainer.model.train()
    for _ in range(STEPS):
        state = trainer.model.initial_state(4)
        tokens, targets = trainer.columns[:12].long(), trainer.columns[1:13].long()
        nll, penalty, _, _ = trainer.train_window(tokens, targets, state)
        found.append(float(nll + penalty))
    return found


@pytest.mark.parametrize("name", sorted(find()["cell"]))
def test_thirty_steps_of_a_cell_lower_the_loss(name: str) -> None:
    rates = {"dropout": 0, "dropouti": 0, "dropouth": 0}
    values = BASE | rates | {"cell": name, "lr": LR.get(name, BASE["lr"])}
    trainer = make_trainer(make_trial(values, find(), name), CPU)
    # The decoder's bias alone would learn the words' frequencies: nothing but the cells may move,
    # and the embedding is large enough for the decoder to tell their outputs apart.
    with torch.no_grad():
        trainer.model.embedding.mul_(10)
    for parameter in trainer.parameters:
        parameter.requires_grad_(False)
    trainer.model.cells.requires_grad_(True)
    before = [p.clone() for p in trainer.model.cells.parameters()]
    found = losses(trainer)
    assert min(found[-5:]) < found[0] - 0.2, found
    for (key, now), then in zip(trainer.model.cells.named_parameters(), before, strict=True):
        assert not torch.equal(now, then), f"{key} does not learn"


@pytest.mark.parametrize("name", sorted(find()["regularizer"]))
def test_thirty_steps_under_a_regularizer_lower_the_loss(name: str) -> None:
    registry = find()
    needs = registry["regularizer"][name].needs
    cell = MEMORY_CELL if "memory" in needs else "lstm"
    trial = make_trial(BASE | {"cell": cell, "regularizer": name}, registry, name)
    found = losses(make_trainer(trial, CPU))
    assert sum(found[-5:]) / 5 < found[0] - 0.5, found
