"""`python -m tests.golden` writes tests/golden.json: the nll of small float64 trials.

To be run only with a new `protocol`: the test fails when a value moves and the number does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.config import PROTOCOL, Trial, make_trial
from bench.plugins import find

FILE = Path(__file__).parent / "golden.json"
BASE: dict[str, Any] = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 10,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 2,
    "precision": "fp64",
}
CASES: dict[str, dict[str, Any]] = {
    "lstm none": {},
    "lstm ar+tar": {"regularizer": "ar+tar"},
    "lstm ar norm, tar dropped": {"regularizer": "ar:form=norm:of=raw+tar:of=dropped:layers=all"},
    "gru tar": {"cell": "gru", "regularizer": "tar:beta=3"},
    "rnn_tanh ar": {"cell": "rnn_tanh", "lr": 2.0, "regularizer": "ar:alpha=1"},
    "three layers, emsize": {"nlayers": 3, "emsize": 6},
    "untied": {"tied": False, "emsize": 7},
    "no dropout, rep 1": {"dropout": 0.0, "dropouti": 0.0, "dropouth": 0.0, "rep": 1},
    "annealing": {"lr": 200.0, "epochs": 6, "lr_decay": 10.0, "wdecay": 1e-3},
    "locked, dropoute": {"locked": True, "dropoute": 0.2},
    "augmented": {"objective": "augmented:gamma=1:tau=5"},
    "variable_bptt": {"variable_bptt": True, "rep": 1},
    "nt-asgd": {"optimizer": "nt-asgd", "nonmono": 1, "lr": 8.0, "wdecay": 1e-3, "epochs": 8},
    "eval_mc": {"eval_mc": 3, "locked": True},
}


def trials() -> Iterator[tuple[str, Trial]]:
    """Yields the golden trials by name."""
    registry = find()
    for name, changes in CASES.items():
        yield name, make_trial(BASE | changes, registry, name)


def measure(trial: Trial) -> dict[str, float]:
    """Returns what is held fixed of a trial."""
    from tests.trainers import make_trainer

    trainer = make_trainer(trial, torch.device("cpu"))
    epochs = list(trainer.epochs())
    result = trainer.result()
    names = ["valid_nll", "test_nll", *(["valid_mc_nll"] if trial.eval_mc else [])]
    return {"train_nll": epochs[-1]["train_nll"], **{name: result[name] for name in names}}


def main() -> None:
    values = {name: measure(trial) for name, trial in trials()}
    FILE.write_text(json.dumps({"protocol": PROTOCOL, "trials": values}, indent=1) + "\n")
    print(f"{FILE.name}: {len(values)} trials at protocol {PROTOCOL}")


if __name__ == "__main__":
    main()
