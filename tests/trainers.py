"""Builds a Trainer from a trial, as the worker does."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from bench.config import Trial, select
from bench.corpora import default_data_dir, load
from bench.loop import Trainer, prepare_thread
from bench.plugins import build_regularizers, find, load_class


def make_trainer(trial: Trial, device: torch.device, data_dir: Path | None = None) -> Trainer:
    """Returns a Trainer on a thread that is set as the worker sets it."""
    prepare_thread(device, precision=trial.precision)
    cell, regularizers = select(trial, find())
    return Trainer(
        trial,
        load(trial.corpus, data_dir or default_data_dir()),
        functools.partial(load_class(cell.plugin), **cell.hparams),
        build_regularizers(regularizers),
        device,
    )
