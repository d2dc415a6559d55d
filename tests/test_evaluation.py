"""Every token after the first is predicted exactly once, whatever the columns and the window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bench.config import Trial
from bench.evaluation import evaluate, excess, monte_carlo
from bench.model import LanguageModel, build
from bench.noise import WindowNoise, stream
from bench.plugins import find, load_class


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    trial = Trial(nhid=8, nlayers=2)
    return build(trial, load_class(find()["cell"]["lstm"]), 13).double()


def text(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 13, length).astype(np.int32)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("length", [2, 3, 11, 12, 57, 101])
def test_there_are_n_minus_1_predictions(model: LanguageModel, length: int, columns: int) -> None:
    nll = evaluate(model, text(length), 5, columns)
    assert nll.shape == (length - 1,)
    assert (nll > 0).all()


def test_the_nll_does_not_depend_on_the_window(model: LanguageModel) -> None:
    reference = evaluate(model, text(157), 1000)
    for window in (1, 2, 7, 35):
        np.testing.assert_allclose(evaluate(model, text(157), window), reference, atol=1e-12)


def test_one_column_is_the_plain_reading(model: LanguageModel) -> None:
    ids = torch.tensor(text(40), dtype=torch.long)
    state = model.initial_state(1)
    by_hand = []
    with torch.no_grad():
        for here, following in pairwise(ids):
            logits, state = model.logits(here.view(1, 1), state)
            by_hand.append(-float(logits[0, 0].log_softmax(0)[following]))
    np.testing.assert_allclose(evaluate(model, text(40), 7, 1), by_hand, atol=1e-12)


def test_a_column_begins_where_the_one_before_ended(model: LanguageModel) -> None:
    ids = text(41)  # 40 predictions in 4 columns of 10
    parts = [evaluate(model, ids[start : start + 11], 35, 1) for start in range(0, 40, 10)]
    np.testing.assert_allclose(evaluate(model, ids, 35, 4), np.concatenate(parts), atol=1e-12)


def test_the_number_of_columns_matters_only_slightly(model: LanguageModel) -> None:
    ids = text(2001)
    one, ten = evaluate(model, ids, 35, 1).mean(), evaluate(model, ids, 35, 10).mean()
    assert one != ten
    assert one == pytest.approx(ten, abs=0.01)


def test_evaluation_leaves_no_trace_and_uses_no_noise(model: LanguageModel) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    one = evaluate(model, text(50), 35)
    torch.manual_seed(2)
    assert np.array_equal(one, evaluate(model, text(50), 35))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_excess_is_the_mean_difference_with_an_error_from_blocks() -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(3, 2, 20_000)
    nll = source + 0.1 + rng.normal(0, 0.5, 20_000)
    mean, se = excess(nll, source)
    assert mean == pytest.approx(0.1, abs=0.02)
    # Independent differences: blocks and single tokens agree, 0.5 / sqrt(20000).
    assert se == pytest.approx(0.5 / 20_000**0.5, rel=0.3)


def test_the_error_from_blocks_sees_what_neighbours_share() -> None:
    rng = np.random.default_rng(2)
    shared = np.repeat(rng.normal(0, 1, 200), 100)  # runs of 100 tokens move together
    _, se = excess(shared, np.zeros(20_000))
    assert se is not None and se > 5 * shared.std() / 20_000**0.5


def test_too_short_a_text_has_no_standard_error() -> None:
    assert excess(np.ones(15), np.zeros(15)) == (1.0, None)


# --- Monte Carlo ----------------------------------------------------------------------------------


def noisy(number: int, index: int) -> WindowNoise:
    """The masks of one window of one pass, as documented."""
    weight = torch.empty(0, dtype=torch.float64)
    return WindowNoise(stream(5, "mc", number), "mc", index, weight.device, weight.dtype)


def test_one_monte_carlo_pass_is_one_stochastic_pass(model: LanguageModel) -> None:
    once = evaluate(model, text(60), 4, noise=lambda index: noisy(0, index))
    assert np.array_equal(monte_carlo(model, text(60), 4, 1, seed=5), once)
    assert not np.array_equal(once, evaluate(model, text(60), 4))


def test_monte_carlo_averages_probabilities(model: LanguageModel) -> None:
    ids = text(60)
    each = np.stack(
        [evaluate(model, ids, 4, noise=lambda i, n=n: noisy(n, i)) for n in range(5)]  # type: ignore[misc]
    )
    got = monte_carlo(model, ids, 4, 5, seed=5)
    np.testing.assert_allclose(got, -np.log(np.exp(-each).mean(0)), atol=1e-12)
    assert got.mean() < each.mean(), "a mean of probabilities is above that of their logarithms"


def test_monte_carlo_windows_and_passes_have_masks_of_their_own(model: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    real = WindowNoise.at

    def noting(self: WindowNoise, site: str) -> object:
        seen.append((self.seed, self.step))
        return real(self, site)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WindowNoise, "at", noting)
        monte_carlo(model, text(101), 4, 3, seed=5)
    assert len(set(seen)) == 3 * 3  # 10 predictions a column in windows of 4, 3 passes


def test_monte_carlo_repeats_itself_and_settles(model: LanguageModel) -> None:
    ids = text(60)
    one, two = (monte_carlo(model, ids, 7, 40, seed) for seed in (5, 6))
    torch.manual_seed(9)
    assert np.array_equal(one, monte_carlo(model, ids, 7, 40, seed=5))
    single = [monte_carlo(model, ids, 7, 1, seed) for seed in (5, 6)]
    assert np.abs(one - two).mean() < 0.4 * np.abs(single[0] - single[1]).mean()


def test_monte_carlo_of_a_model_without_noise_is_the_plain_evaluation() -> None:
    trial = Trial(nhid=8, dropout=0, dropouti=0, dropouth=0)
    still = build(trial, load_class(find()["cell"]["lstm"]), 13).double()
    got = monte_carlo(still, text(60), 7, 8, seed=5)
    np.testing.assert_allclose(got, evaluate(still, text(60), 7), atol=1e-12)


def test_monte_carlo_needs_a_pass(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="at least 1, but is 0"):
        monte_carlo(model, text(60), 7, 0, seed=5)
