"""Every token after the first is predicted exactly once, whatever the columns and the window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bench.config import Trial
from bench.evaluation import evaluate, excess
from bench.model import LanguageModel, build
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
