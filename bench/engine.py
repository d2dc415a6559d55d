"""Runs a model's windows on its device: by replay of a recording where it can, else plainly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
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
        self.stream = _stream(device)
        # A recording holds the place of the learning rate, not its value.
        dtype = DTYPES[trial.precision]
        lr = torch.tensor(trial.lr, device=device, dtype=dtype) if self.stream else trial.lr
        self.step = step = Step(trial, model, regularizers, lr)
        self.noise = noise = StepNoise(trial.seed, "train", device, dtype)
        self.obstacle = _obstacle(model, regularizers)

        # Functions that know not this object, or it and they would keep each other in memory.
        def train(tokens: Tensor, targets: Tensor, state: StackState) -> Outcome:
            return step(tokens, targets, state, noise)

        def predict(
            tokens: Tensor, targets: Tensor, state: StackState
        ) -> tuple[Tensor, StackState]:
            nll, state, _ = model(tokens, targets, state, None)
            return nll, state

        self._train: Callable[..., Outcome] = train
        self._predict: Callable[..., tuple[Tensor, StackState]] = predict
        if (self.stream is not None if replay is None else replay) and self.obstacle is None:
            held = partial(_held, model)
            self._train = Replay(train, self.stream, noise, held)
            self._predict = Replay(predict, self.stream, None, held)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))

    @property
    def path(self) -> str:
        """How training ran: `captured`, if steps were recorded and replayed, or `eager`."""
        run = self._train
        replayed = isinstance(run, Replay) and run.replays and run.failure is None
        return "captured" if replayed else "eager"

    @property
    def eager_because(self) -> str | None:
        """Why steps or evaluation were not recorded where they might have been, None otherwise."""
        tried = [r.failure for r in (self._train, self._predict) if isinstance(r, Replay)]
        return next((why for why in (self.obstacle, *tried) if why and self.stream), None)

    def place(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which this engine's tensors are made and used."""
        # Not stream(None): it would make a context on a GPU that this trial does not use.
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()

    def train(
        self, tokens: Tensor, targets: Tensor, state: StackState, number: int, lr: float
    ) -> Outcome:
        """Takes step `number` on a window, tokens and targets [T,B]; valid until the next one."""
        self.noise.feed(number)
        self.step.update.set_lr(lr)
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


def _held(model: LanguageModel) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _obstacle(model: LanguageModel, regularizers: Sequence[tuple[Penalty, float]]) -> str | None:
    """Returns why a plugin says that its steps cannot be recorded, None if none does."""
    for part in (*model.cells, *(regularizer for regularizer, _ in regularizers)):
        if why := getattr(part, "eager_only", None):
            return str(why)
    return None
