"""Clip, decay and update in one pass are the separate ones; the loss scale of fp16 works."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.config import make_trial
from bench.plugins import find
from bench.update import Update
from tests.trainers import make_trainer

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 12,
    "batch_size": 5,
}


def update_of(**changes: Any) -> Update:
    trial = make_trial(SMALL | {"bptt": 10, "epochs": 1} | changes, find(), "test")
    return make_trainer(trial, CPU).engine.step.update


@pytest.mark.parametrize("clip", [0.01, 1e6])
@pytest.mark.parametrize("wdecay", [0.0, 0.01])
def test_one_pass_is_clip_then_decay_then_update(clip: float, wdecay: float) -> None:
    update = update_of(clip=clip, wdecay=wdecay, lr=0.5)
    before = [p.detach().clone() for p in update.parameters]
    grads = [torch.randn_like(p) for p in update.parameters]
    for parameter, grad in zip(update.parameters, grads, strict=True):
        parameter.grad = grad.clone()
    norm = update()
    exact = torch.cat([g.flatten() for g in grads]).double().norm()
    assert float(norm) == pytest.approx(float(exact), rel=1e-5)
    factor = min(1.0, clip / (float(exact) + 1e-6))
    for parameter, old, grad in zip(update.parameters, before, grads, strict=True):
        wanted = old - 0.5 * (factor * grad + wdecay * old)
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_a_number_reaches_the_weights() -> None:
    """So that the loss of the next step tells: divergence must not be hidden by a clip."""
    update = update_of()
    for parameter in update.parameters:
        parameter.grad = torch.ones_like(parameter)
    update.parameters[0].grad[0] = float("nan")  # type: ignore[index]
    assert update().isnan()
    assert update.parameters[-1].isnan().all()


def test_the_loss_scale_leaves_out_a_step_that_overflows() -> None:
    update = update_of(precision="fp16", clip=1e6, wdecay=0.0, lr=0.5)
    assert update.scale is not None
    before = [p.detach().clone() for p in update.parameters]
    for parameter in update.parameters:
        parameter.grad = torch.full_like(parameter, 2.0**16)  # a gradient of 1, scaled
    update.parameters[0].grad[0] = float("inf")  # type: ignore[index]
    assert float(update()) == 0.0
    assert all(map(torch.equal, update.parameters, before))
    assert float(update.scale) == 2.0**15
    for parameter in update.parameters:
        parameter.grad = torch.full_like(parameter, 2.0**15)
    norm = update()
    assert float(norm) == pytest.approx(sum(p.numel() for p in before) ** 0.5, rel=1e-5)
    for parameter, old in zip(update.parameters, before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.5, rtol=1e-5, atol=1e-5)


def test_training_in_fp16_learns_what_fp32_learns() -> None:
    """On a CPU only for tests: its kernels are slow, but they round as a GPU's do."""
    nlls = {}
    for precision in ("fp32", "fp16"):
        values = SMALL | {"bptt": 10, "epochs": 1, "lr": 2.0, "precision": precision}
        (record,) = make_trainer(make_trial(values, find(), "test"), CPU).epochs()
        nlls[precision] = record["train_nll"]
    assert nlls["fp16"] != nlls["fp32"]
    assert nlls["fp16"] == pytest.approx(nlls["fp32"], rel=2e-3)
