"""Clip, weight decay and SGD as one pass over the weights, and the loss scale of fp16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd  # the function: the class imports all of torch's compiler

from bench.config import Trial

FIRST_SCALE, PATIENCE = 2.0**16, 2000
"""Those of torch.amp's GradScaler."""


class Update:
    """SGD without momentum; clipped on the global norm, then decayed. Nothing waits for the device.

    In one pass where torch's fused SGD can do it, which takes the clip as a scale of the gradients
    in single precision; in fp64 clip, decay and update are separate, at full precision.

    In fp16 the loss is to be multiplied by `scale`, so that small gradients do not vanish: as with
    torch.amp's GradScaler a step whose gradients overflow is left out and halves the scale, and
    PATIENCE steps without one double it. `scale` is None in every other precision.
    """

    def __init__(self, parameters: Sequence[Tensor], trial: Trial, lr: float | Tensor) -> None:
        self.parameters, self.lr = parameters, lr
        self.clip, self.wdecay = trial.clip, trial.wdecay
        self.fused = trial.precision != "fp64"
        self.scale: Tensor | None = None
        if trial.precision == "fp16":
            device = parameters[0].device
            self.scale = torch.full((), FIRST_SCALE, device=device)
            self.good_steps = torch.zeros((), device=device, dtype=torch.int32)

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the steps to come, in the place where a recording reads it."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Clips the gradients and updates the weights; returns the norm before clipping, 0-d."""
        weights: list[Tensor] = [p for p in self.parameters if p.grad is not None]
        grads = [p.grad for p in weights if p.grad is not None]
        if not self.fused:
            norm = nn.utils.clip_grad_norm_(weights, self.clip)
            torch._foreach_add_(grads, weights, alpha=self.wdecay)
            torch._foreach_mul_(grads, self.lr)
            torch._foreach_sub_(weights, grads)
            return norm
        norm = nn.utils.get_total_norm(grads)
        if self.scale is None:
            self._fused(weights, grads, self._shrink(norm), None)
            return norm
        overflow = (~norm.isfinite()).float()
        norm = torch.where(norm.isfinite(), norm / self.scale, 0.0)
        self._fused(weights, grads, self.scale * self._shrink(norm), overflow)
        torch._amp_update_scale_(self.scale, self.good_steps, overflow, 2.0, 0.5, PATIENCE)
        return norm

    def _shrink(self, norm: Tensor) -> Tensor:
        """Returns what clipping divides by: 1, or more where the norm is above the clip."""
        return ((norm + 1e-6) / self.clip).clamp_(min=1)

    def _fused(
        self, weights: list[Tensor], grads: list[Tensor], divisor: Tensor, skip: Tensor | None
    ) -> None:
        sgd(
            weights,
            grads,
            [None] * len(weights),
            fused=True,
            grad_scale=divisor,
            found_inf=skip,
            weight_decay=self.wdecay,
            lr=self.lr,  # type: ignore[arg-type]  # a tensor, too, as torch.optim.SGD passes it
            momentum=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
