"""50 training steps on Penn Treebank text give the losses of a plain PyTorch trainer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config import make_trial
from bench.corpora.windows import windows
from bench.plugins import find
from bench.schedule import window_lengths
from tests.plain_lm import losses
from tests.trainers import make_trainer

STEPS = 50
SIZES: dict[str, Any] = {
    "nhid": 24,
    "batch_size": 8,
    "bptt": 12,
    "lr": 5.0,
    "clip": 0.25,
    "wdecay": 1e-4,
}


@pytest.mark.parametrize("regularizer", ["none", "ar:alpha=2+tar:beta=1"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_losses_equal_a_plain_trainer(cell: str, regularizer: str, real_data: Path) -> None:
    rates = {"dropout": 0, "dropouti": 0, "dropouth": 0}
    values = {"corpus": "ptb", "cell": cell, "regularizer": regularizer, "precision": "fp64"}
    trial = make_trial(values | rates | SIZES, find(), "test")
    trainer = make_trainer(trial, torch.device("cpu"), real_data)
    weights = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    penalised = regularizer != "none"
    theirs = losses(
        cell,
        weights,
        torch.tensor(trainer.corpus.train, dtype=torch.long),
        **SIZES,
        alpha=2.0 * penalised,
        beta=1.0 * penalised,
    )
    state = trainer.model.initial_state(trial.batch_size)
    trainer.model.train()
    ours = []
    for tokens, targets in windows(trainer.columns, trial.bptt):
        nll, _, _, state = trainer.train_window(tokens, targets, state)
        ours.append(float(nll))
        if len(ours) == STEPS:
            break
    expected = [next(theirs) for _ in range(STEPS)]
    assert ours == pytest.approx(expected, rel=0, abs=1e-8)
    assert expected[-1] < expected[0] - 1, "the steps must have moved the weights"


def test_losses_equal_a_plain_trainer_with_the_augmented_loss_and_drawn_windows(
    real_data: Path,
) -> None:
    fields = {"objective": "augmented:gamma=0.7:tau=3", "variable_bptt": True, "tied": True}
    rates = {"dropout": 0, "dropouti": 0, "dropouth": 0, "dropoute": 0}
    values = {"corpus": "ptb", "precision": "fp64"} | fields | rates | SIZES
    trial = make_trial(values, find(), "test")
    trainer = make_trainer(trial, torch.device("cpu"), real_data)
    lengths = list(itertools.islice(window_lengths(trial.bptt, trial.seed, 0), STEPS))
    theirs = losses(
        "lstm",
        {name: t.clone() for name, t in trainer.model.state_dict().items()},
        torch.tensor(trainer.corpus.train, dtype=torch.long),
        **SIZES,
        alpha=0.0,
        beta=0.0,
        gamma=0.7,
        tau=3.0,
        lengths=lengths,
    )
    state = trainer.model.initial_state(trial.batch_size)
    trainer.model.train()
    ours = []
    for tokens, targets in windows(trainer.columns[: sum(lengths) + 1], lengths):
        nll, _, _, state = trainer.train_window(tokens, targets, state)
        ours.append(float(nll))
    expected = [next(theirs) for _ in range(STEPS)]
    assert ours == pytest.approx(expected, rel=0, abs=1e-8)
    assert expected[-1] < expected[0] - 1, "the steps must have moved the weights"
