"""One step of training: forward, backward, clip and update. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.api import Activations
from bench.config import Trial
from bench.model import LanguageModel, StackState, detach
from bench.noise import Draws
from bench.objective import losses, make_objective
from bench.update import Update

Penalty = Callable[[Activations], Tensor]
Outcome = tuple[Tensor, Tensor, Tensor, StackState]
"""The mean nll, what else is in the loss (weighted penalties, the objective's term) and the norm of
the gradient before clipping, each 0-d; the state after the window."""


class Step:
    """SGD on the nll plus what the objective and the penalties add to it.

    `sums` adds up, over the steps since it was last zeroed, nll times tokens, penalty and norm.
    """

    def __init__(
        self,
        trial: Trial,
        model: LanguageModel,
        regularizers: Sequence[tuple[Penalty, float]],
        lr: float | Tensor,
    ) -> None:
        self.model, self.regularizers = model, regularizers
        self.objective = make_objective(trial.objective)
        self.update = Update(list(model.parameters()), trial, lr)
        self.sums = torch.zeros(3, device=model.embedding.device, dtype=torch.float64)

    def __call__(self, tokens: Tensor, targets: Tensor, state: StackState, noise: Draws) -> Outcome:
        """Takes one step on a window, tokens and targets [T,B]."""
        nll, penalty, state, acts = losses(
            self.objective, self.model, tokens, targets, detach(state), noise
        )
        loss = nll.mean()
        for regularizer, coefficient in self.regularizers:
            value = regularizer(acts)
            if value.shape != ():
                raise ValueError(
                    f"{type(regularizer).__module__.rsplit('.', 1)[-1]}: a penalty must be a "
                    f"scalar, not of shape {list(value.shape)}"
                )
            penalty = torch.add(penalty, value, alpha=coefficient)
        total = loss + penalty
        if self.update.scale is not None:
            total = total * self.update.scale
        self.model.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        loss, penalty, norm = loss.detach(), penalty.detach(), self.update()
        self.sums += torch.stack([loss.double() * tokens.numel(), penalty.double(), norm.double()])
        return loss, penalty, norm, detach(state)
