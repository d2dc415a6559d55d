"""One step of training: forward, backward, clip and update. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Activations
from bench.config import Trial
from bench.model import LanguageModel, StackState, detach
from bench.noise import Draws
from bench.objective import losses, make_objective

Penalty = Callable[[Activations], Tensor]
Outcome = tuple[Tensor, Tensor, Tensor, StackState]
"""The mean nll, what else is in the loss (weighted penalties, the objective's term) and the norm of
the gradient before clipping, each 0-d; the state after the window."""


class Step:
    """SGD without momentum on the nll plus penalties; clipped on the global norm, then decayed.

    Weight decay is on all weights and comes after clipping. Clip, decay and update are one pass
    over the weights where torch's fused SGD can do it, which takes the clip as a scale of the
    gradients in single precision; in fp64 they are separate, at full precision.

    In fp16 the loss is scaled, so that small gradients do not vanish: as torch.amp's GradScaler
    does, a step whose gradients overflow is left out and halves the scale, and 2,000 steps without
    one double it. All of it stays on the device.

    `sums` adds up, over the steps since it was last zeroed, nll times tokens, penalty and norm.
    """

    def __init__(
        self,
        trial: Trial,
        model: LanguageModel,
        regularizers: Sequence[tuple[Penalty, float]],
        lr: float | Tensor,
    ) -> None:
        self.model, self.regularizers, self.clip = model, regularizers, trial.clip
        self.objective = make_objective(trial.objective)
        self.parameters = list(model.parameters())
        self.fused = trial.precision != "fp64"
        device = self.parameters[0].device
        self.sums = torch.zeros(3, device=device, dtype=torch.float64)
        self.scale: Tensor | None = None
        if trial.precision == "fp16":
            self.scale = torch.full((), 2.0**16, device=device)
            self.good_steps = torch.zeros((), device=device, dtype=torch.int32)
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=lr, weight_decay=trial.wdecay, fused=self.fused
        )

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
        self.optimizer.zero_grad(set_to_none=True)
        total = loss + penalty
        (total if self.scale is None else total * self.scale).backward()  # type: ignore[no-untyped-call]
        loss, penalty, norm = loss.detach(), penalty.detach(), self.update()
        self.sums += torch.stack([loss.double() * tokens.numel(), penalty.double(), norm.double()])
        return loss, penalty, norm, detach(state)

    @torch.no_grad()
    def update(self) -> Tensor:
        """Clips the gradients and updates the weights; returns the norm before clipping."""
        if not self.fused:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.optimizer.step()
            return norm
        optimizer: Any = self.optimizer  # its kernel divides gradients by `grad_scale`
        norm = nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.scale is None:
            optimizer.grad_scale = ((norm + 1e-6) / self.clip).clamp_(min=1)
            optimizer.step()
            return norm
        overflow = (~norm.isfinite()).float()
        norm = torch.where(norm.isfinite(), norm / self.scale, 0.0)
        optimizer.grad_scale = self.scale * ((norm + 1e-6) / self.clip).clamp_(min=1)
        optimizer.found_inf = overflow
        optimizer.step()
        torch._amp_update_scale_(self.scale, self.good_steps, overflow, 2.0, 0.5, 2000)
        return norm

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the steps to come."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
