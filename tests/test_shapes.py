"""Every cell, regularizer and the model under jaxtyping and beartype: the axes are what they say.

The harness never imports jaxtyping: the checked signatures are wrapped around it here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor, nn

from bench.api import Activations
from bench.config import make_trial
from bench.corpora import load
from bench.loop import Trainer
from bench.plugins import build_regularizers, find, load_class, select_cell, select_regularizers

check = jaxtyped(typechecker=beartype)
CELLS = [p for p in find()["cell"].values() if p.flags["memory"] is False]
PENALTIES = [
    "none", "ar:of=raw:layers=all", "ar:form=norm", "tar:of=dropped", "tar:layers=all:form=norm",
]  # fmt: skip
T, B, E, NHID = 7, 5, 6, 8


def checked_cell(forward: Callable[..., Any], size_in: int, size_out: int) -> Callable[..., Any]:
    """A cell's forward, held to x [T,B,I], state [B,*] -> raw [T,B,H], state [B,*]."""

    @check
    def checked(
        x: Float[Tensor, f"T B {size_in}"],
        state: tuple[Float[Tensor, "B _"], ...],
        noise: object,
    ) -> tuple[Float[Tensor, f"T B {size_out}"], tuple[Float[Tensor, "B _"], ...]]:
        out: Any = forward(x, state, noise)
        return out

    return checked


def checked_regularizer(regularizer: Callable[..., Any]) -> Callable[..., Any]:
    @check
    def checked(acts: Activations) -> Float[Tensor, ""]:
        check_activations(acts.embedded, acts.raw[0], acts.dropped[0], acts.raw[1], acts.dropped[1])
        out: Any = regularizer(acts)
        return out

    return checked


@check
def check_activations(
    embedded: Float[Tensor, f"T B {E}"],
    raw_inner: Float[Tensor, f"T B {NHID}"],
    dropped_inner: Float[Tensor, f"T B {NHID}"],
    raw_last: Float[Tensor, f"T B {E}"],
    dropped_last: Float[Tensor, f"T B {E}"],
) -> None:
    """Tied: the last layer has emsize units."""


def checked_model(forward: Callable[..., Any]) -> Callable[..., Any]:
    @check
    def checked(
        tokens: Int[Tensor, "T B"], targets: Int[Tensor, "T B"], state: tuple, noise: object
    ) -> tuple[Float[Tensor, "T B"], tuple, Activations]:
        out: Any = forward(tokens, targets, state, noise)
        return out

    return checked


def build(cell: str, regularizer: str) -> Trainer:
    """A trainer whose cells, regularizers and model are wrapped."""
    registry = find()
    values = {"cell": cell, "regularizer": regularizer, "nhid": NHID, "emsize": E, "lr": 1}
    trial = make_trial({**values, "batch_size": B, "bptt": T}, registry, "test")
    built = build_regularizers(select_regularizers(trial.regularizer, registry))
    checked = [(checked_regularizer(r), c) for r, c in built]
    corpus = load("synthetic:train=2000:valid=300:test=300", Path("unused"))
    cls = load_class(select_cell(cell, registry).plugin)
    trainer = Trainer(trial, corpus, cls, checked, torch.device("cpu"))
    for module, size_in, size_out in zip(trainer.model.cells, (E, NHID), (NHID, E), strict=True):
        module.forward = checked_cell(module.forward, size_in, size_out)
    trainer.model.forward = checked_model(trainer.model.forward)  # type: ignore[method-assign]
    return trainer


@pytest.mark.parametrize("regularizer", PENALTIES)
@pytest.mark.parametrize("cell", [p.name for p in CELLS])
def test_axes_hold_in_training_and_evaluation(cell: str, regularizer: str) -> None:
    trainer = build(cell, regularizer)
    state = trainer.model.initial_state(B)
    for start in range(0, 3 * T, T):
        tokens = trainer.columns[start : start + T].long()
        targets = trainer.columns[start + 1 : start + T + 1].long()
        nll, _, _, state = trainer.train_window(tokens, targets, state)
        assert torch.isfinite(nll)
    with torch.no_grad():
        trainer.model.eval()
        one = torch.zeros(1, 1, dtype=torch.int64)  # T = B = 1
        trainer.model(one, one, trainer.model.initial_state(1), None)


class BatchFirst(nn.Module):
    def forward(self, x: Tensor, state: Any, noise: object) -> Any:
        return x.transpose(0, 1), state


class GrowsItsState(nn.Module):
    def forward(self, x: Tensor, state: Any, noise: object) -> Any:
        return x, tuple(s.unsqueeze(0) for s in state)


class CountsInIntegers(nn.Module):
    def forward(self, x: Tensor, state: Any, noise: object) -> Any:
        return x.long(), state


@pytest.mark.parametrize("rogue", [BatchFirst, GrowsItsState, CountsInIntegers])
def test_the_check_refuses_other_axes(rogue: type[nn.Module]) -> None:
    checked = checked_cell(rogue().forward, E, E)
    with pytest.raises(TypeCheckError):
        checked(torch.zeros(T, B, E), (torch.zeros(B, E),), None)


def test_the_check_refuses_a_penalty_that_is_no_scalar() -> None:
    inner, last = torch.zeros(T, B, NHID), torch.zeros(T, B, E)
    acts = Activations(last, (inner, last), (inner, last), (None, None))
    checked_regularizer(lambda a: a.raw[-1].mean())(acts)
    with pytest.raises(TypeCheckError):
        checked_regularizer(lambda a: a.raw[-1].mean(0))(acts)
    swapped = Activations(last, (last, inner), (last, inner), (None, None))
    with pytest.raises(TypeCheckError):
        checked_regularizer(lambda a: a.raw[-1].mean())(swapped)
