"""Runs a model's windows on its device: by replay of a recording where it can, else plainly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.config import Trial
from bench.model import LanguageModel, StackState
from bench.noise import StepNoise
from bench.precision import DTYPES
from bench.replay import Replay
from bench.step import Outcome, Penalty, Step


class Engine:
    """The training steps and the evaluation of one trial, on a stream of their own on a GPU.

    `replay` None: where there is a GPU. True on a CPU: by plain calls on the buffers of a replay,
    which is for tests, and no faster.
    """

    def __init__(
        self,
        trial: Trial,
        model: LanguageModel,
        regularizers: Sequence[tuple[Penalty, float]],
        device: torch.device,
        replay: bool | None = None,
    ) -> None:
        self.model, self.device = model, device
        self.stream = _stream(device)
        # A recording holds the place of the learning rate, not its value.
        lr = torch.tensor(trial.lr, device=device) if self.stream else trial.lr
        self.step = Step(trial, model, regularizers, lr)
        self.noise = StepNoise(trial.seed, "train", device, DTYPES[trial.precision])
        self.obstacle = _obstacle(model, regularizers)
        self._train: Callable[..., Outcome] = self._train_plainly
        self._predict: Callable[..., tuple[Tensor, StackState]] = self._predict_plainly
        if (self.stream is not None if replay is None else replay) and self.obstacle is None:
            self._train = Replay(self._train_plainly, self.stream, self.noise)
            self._predict = Replay(self._predict_plainly, self.stream)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))

    @property
    def path(self) -> str:
        """How training ran: `captured`, `eager`, or `eager: ` and why it could not be recorded."""
        if isinstance(self._train, Replay):
            failure = self._train.failure
            return "captured" if failure is None else f"eager: {failure}"
        return f"eager: {self.obstacle}" if self.stream and self.obstacle else "eager"

    def place(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which this engine's tensors are made and used."""
        return torch.cuda.stream(self.stream)  # does nothing without one

    def train(
        self, tokens: Tensor, targets: Tensor, state: StackState, number: int, lr: float
    ) -> Outcome:
        """Takes step `number` on a window, tokens and targets [T,B]; valid until the next one."""
        self.noise.feed(number)
        self.step.set_lr(lr)
        return self._train(tokens, targets, state)

    def predict(
        self, tokens: Tensor, targets: Tensor, state: StackState
    ) -> tuple[Tensor, StackState]:
        """tokens, targets [T,B] -> nll [T,B] and state, without noise; valid until the next."""
        return self._predict(tokens, targets, state)

    def synchronise(self) -> None:
        """Waits until all that was begun is done."""
        if self.stream is not None:
            self.stream.synchronize()

    def _train_plainly(self, tokens: Tensor, targets: Tensor, state: StackState) -> Outcome:
        return self.step(tokens, targets, state, self.noise)

    def _predict_plainly(
        self, tokens: Tensor, targets: Tensor, state: StackState
    ) -> tuple[Tensor, StackState]:
        nll, state, _ = self.model(tokens, targets, state, None)
        return nll, state


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _obstacle(model: LanguageModel, regularizers: Sequence[tuple[Penalty, float]]) -> str | None:
    """Returns why a plugin says that its steps cannot be recorded, None if none does."""
    for part in (*model.cells, *(regularizer for regularizer, _ in regularizers)):
        if why := getattr(part, "eager_only", None):
            return str(why)
    return None
