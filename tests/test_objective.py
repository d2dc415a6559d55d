"""The augmented loss: its value and gradient written out, its limits, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.config import Trial
from bench.config.objective import OBJECTIVES, canonical, parse
from bench.errors import BadInput
from bench.model import LanguageModel, build, token_nll
from bench.objective import Augmented, losses, make_objective
from bench.plugins import find, load_class

T, B, V, E = 4, 3, 11, 6


def drawn(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def targets() -> Tensor:
    return torch.randint(0, V, (T, B), generator=torch.Generator().manual_seed(2))


def by_hand(logits: Tensor, wanted: Tensor, embedding: Tensor, gamma: float, tau: float) -> Tensor:
    """Equations (3.1) to (3.7), token by token, word by word."""
    total = torch.zeros((), dtype=torch.float64)
    for t in range(T):
        for b in range(B):
            u = embedding[wanted[t, b]]
            near = torch.stack([torch.exp(row @ u / tau) for row in embedding]).detach()
            near = near / near.sum()
            given = torch.exp(logits[t, b] / tau)
            given = given / given.sum()
            for v in range(V):
                total = total + near[v] * torch.log(near[v] / given[v])
    return gamma * tau * total / (T * B)


@pytest.mark.parametrize(("gamma", "tau"), [(0.5, 20.0), (1.0, 1.0), (3.0, 0.25)])
def test_value_and_gradient_are_the_papers(gamma: float, tau: float) -> None:
    ours, theirs = (3 * drawn(T, B, V) for _ in range(2))
    embedding = drawn(V, E, seed=3).requires_grad_()
    got = Augmented(gamma, tau)(ours.requires_grad_(), targets(), embedding)
    wanted = by_hand(theirs.requires_grad_(), targets(), embedding, gamma, tau)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    got.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    assert embedding.grad is None, "the target distribution carries no gradient"


def test_it_is_zero_exactly_where_the_model_gives_the_target_distribution() -> None:
    embedding = drawn(V, E)
    wanted = targets()
    same = embedding[wanted] @ embedding.T + 7  # a softmax does not see the 7
    assert float(Augmented(1, 2)(same, wanted, embedding)) == pytest.approx(0, abs=1e-12)
    assert float(Augmented(1, 2)(drawn(T, B, V), wanted, embedding)) > 0.1


def test_high_temperature_matches_logits_to_those_of_the_embedding() -> None:
    # (4.3): tau^2 |V| times the gradient becomes W h - L u, both about their means.
    logits, embedding, wanted = drawn(T, B, V).requires_grad_(), drawn(V, E), targets()
    tau = 1e5
    Augmented(1 / tau, tau)(logits, wanted, embedding).backward()
    difference = logits.detach() - embedding[wanted] @ embedding.T
    centered = difference - difference.mean(-1, keepdim=True)
    assert logits.grad is not None
    torch.testing.assert_close(tau**2 * V * T * B * logits.grad, centered, rtol=1e-3, atol=1e-3)


def test_low_temperature_makes_the_nearest_word_the_only_target() -> None:
    logits, embedding, wanted = drawn(T, B, V).requires_grad_(), drawn(V, E), targets()
    tau = 1e-3
    Augmented(1, tau)(logits, wanted, embedding).backward()
    nearest = (embedding[wanted] @ embedding.T).argmax(-1)
    given = logits.detach().argmax(-1)
    expected = torch.zeros(T, B, V, dtype=torch.float64)
    expected.scatter_add_(-1, given.unsqueeze(-1), torch.ones(T, B, 1, dtype=torch.float64))
    expected.scatter_add_(-1, nearest.unsqueeze(-1), -torch.ones(T, B, 1, dtype=torch.float64))
    assert logits.grad is not None  # gamma * tau / tau = gamma
    torch.testing.assert_close(logits.grad * T * B, expected, rtol=0, atol=1e-6)


def model(**changes: object) -> LanguageModel:
    trial = Trial(**({"nhid": E, "dropout": 0, "dropouti": 0, "dropouth": 0} | changes))  # type: ignore[arg-type]
    return build(trial, load_class(find()["cell"]["lstm"]), V).double()


@pytest.mark.parametrize("tied", [True, False])
def test_the_nll_beside_it_is_that_of_the_model(tied: bool) -> None:
    one = model(tied=tied, emsize=E)
    state = one.initial_state(B)
    tokens = targets().roll(1, 0)
    plain, zero, _, _ = losses(None, one, tokens, targets(), state, None)
    nll, term, _, acts = losses(Augmented(0.5, 20), one, tokens, targets(), state, None)
    torch.testing.assert_close(nll, plain, rtol=1e-12, atol=1e-13)
    assert float(zero) == 0 and term.shape == ()
    logits, _, _ = one.predict(tokens, state, None)
    assert torch.equal(token_nll(logits, targets()), nll)
    wanted = by_hand(logits, targets(), one.embedding, 0.5, 20)
    torch.testing.assert_close(term, wanted, rtol=1e-9, atol=1e-12)
    assert acts.raw[-1].shape == (T, B, E)


# --- its spelling ---------------------------------------------------------------------------------


def test_spellings_are_canonical() -> None:
    assert canonical("nll") == "nll"
    assert canonical("augmented:tau=20:gamma=0.5") == canonical("augmented") == "augmented"
    assert canonical("augmented:tau=1e1:gamma=.8") == "augmented:gamma=0.8:tau=10"
    assert Trial(objective="augmented:tau=20.0").objective == "augmented"
    assert make_objective("nll") is None
    assert make_objective("augmented:gamma=0") == Augmented(0.0, 20.0)
    assert set(OBJECTIVES) == {"nll", "augmented"}


@pytest.mark.parametrize(
    ("spelling", "line"),
    [
        ("foo", "objective: 'foo' is unknown. Known: augmented, nll."),
        ("augmentd", "objective: 'augmentd' is unknown. Did you mean augmented?"),
        ("", "objective: '' is no selection"),
        ("nll:tau=1", "objective: nll has no hyper-parameter 'tau'"),
        ("augmented:alpha=1", "objective: augmented has no hyper-parameter 'alpha'"),
        ("augmented:gamma=x", "objective: augmented: gamma=x must be a finite number"),
        ("augmented:gamma=-1", "objective: augmented: gamma=-1 must be at least 0"),
        ("augmented:tau=0", "objective: augmented: tau=0 must be above 0"),
        ("augmented:tau", "objective: 'tau' in augmented must be key=value"),
        ("augmented:tau=1:tau=2", "objective: tau is given twice"),
    ],
)
def test_a_wrong_spelling_is_one_line(spelling: str, line: str) -> None:
    with pytest.raises(BadInput) as error:
        parse(spelling)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
