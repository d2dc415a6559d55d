"""What training minimises: the nll, or the nll with the augmented loss of Inan et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.api import Activations
from bench.config.objective import parse
from bench.model import LanguageModel, StackState, token_nll
from bench.noise import Draws


@dataclass(frozen=True)
class Augmented:
    """nll + alpha * mean over tokens of KL(y~ || y^), with alpha = gamma * tau.

    y^ = softmax(logits / tau) is the model's prediction at temperature tau, y~ = softmax(L u / tau)
    the words that are near the target: L [V,E] is the embedding, u = L[target] the target's row.
    Inan, Khosravi and Socher 2017, arXiv 1611.01462, (3.1) to (3.7).

    y~ is a target and carries no gradient, as in the paper's (3.4), which differentiates by the
    logits alone (a public re-implementation lets it through). The paper's (3.1) writes the logits
    without a bias, and its tied models have none; here they are the model's own, with its bias.
    Defaults: those of that re-implementation on Penn Treebank, which has gamma 1 for WikiText-2.
    """

    gamma: float
    tau: float

    def __call__(self, logits: Tensor, targets: Tensor, embedding: Tensor) -> Tensor:
        """logits [T,B,V], targets [T,B], embedding [V,E] -> gamma * tau * mean KL, a scalar."""
        flat = logits.flatten(0, 1)
        kl: Tensor = _Divergence.apply(flat, targets.flatten(), embedding.detach(), self.tau)  # type: ignore[no-untyped-call]
        return self.gamma * self.tau * kl.mean()


def make_objective(spelling: str) -> Augmented | None:
    """Returns the term that an objective adds to the nll; None for `nll` itself."""
    name, values = parse(spelling)
    return None if name == "nll" else Augmented(float(values["gamma"]), float(values["tau"]))


def losses(
    objective: Augmented | None,
    model: LanguageModel,
    tokens: Tensor,
    targets: Tensor,
    state: StackState,
    noise: Draws | None,
) -> tuple[Tensor, Tensor, StackState, Activations]:
    """Returns a window's nll [T,B], what the objective adds to its mean (0-d), state and acts."""
    if objective is None:
        nll, state, acts = model(tokens, targets, state, noise)
        return nll, torch.zeros((), device=nll.device, dtype=nll.dtype), state, acts
    logits, state, acts = model.predict(tokens, state, noise)
    return token_nll(logits, targets), objective(logits, targets, model.embedding), state, acts


class _Divergence(torch.autograd.Function):
    """KL(y~ || y^) of each token [N] from logits [N,V]; it keeps one [N,V], its own gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, embedding: Tensor, tau: float) -> Tensor:
        log_wanted = (embedding[targets] @ embedding.T).div_(tau).log_softmax(-1)
        log_given = (logits / tau).log_softmax(-1)
        wanted = log_wanted.exp()
        kl = log_wanted.sub_(log_given).mul_(wanted).sum(-1)
        ctx.save_for_backward(log_given.exp_().sub_(wanted).div_(tau))  # (3.4)
        return kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad.unsqueeze(-1), None, None, None
