"""Trials with the fields around the cell: AWD's recipe, the augmented loss, Monte Carlo figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.config import make_trial
from bench.corpora.windows import columns, windows
from bench.errors import BadInput
from bench.evaluation import evaluate, monte_carlo
from bench.loop import Trainer
from bench.plugins import find
from bench.schedule import window_lengths
from tests.test_loop import SMALL, comparable, small_trainer, train, trainer, valid_nlls
from tests.test_trial import identity
from tests.trainers import make_trainer

RECIPE: dict[str, Any] = {
    "locked": True,
    "dropoute": 0.1,
    "variable_bptt": True,
    "objective": "augmented",
    "optimizer": "nt-asgd",
    "nonmono": 1,
    "eval_mc": 2,
    "epochs": 4,
}


def same(one: Any, other: Any) -> None:
    assert comparable(one[0]) == comparable(other[0])
    clocks = {"train_seconds": 0, "eval_seconds": 0, "tokens_per_s": 0}
    assert one[1] | clocks == other[1] | clocks


def test_the_whole_recipe_twice_is_the_same_to_the_bit_and_another_rep_differs() -> None:
    one = train(**RECIPE)
    assert one[1]["status"] == "ok"
    same(one, train(**RECIPE))
    assert one[1]["test_nll"] != train(**RECIPE, rep=1)[1]["test_nll"]


REFUSED = [
    ("eval_mc", 0, "eval_mc: 0: input should be greater than or equal to 1"),
    ("eval_mc", True, "eval_mc: True: must be a number, not true or false"),
    ("eval_mc", "many", "eval_mc: many: input should be a valid integer"),
    ("nonmono", 0, "nonmono: 0: input should be greater than or equal to 1"),
    ("dropoute", 1, "dropoute: 1: input should be less than 1"),
    ("locked", "maybe", "locked: maybe: input should be a valid boolean"),
    ("variable_bptt", 2, "variable_bptt: 2: input should be a valid boolean"),
    ("objective", "foo", "objective: 'foo' is unknown. Known: augmented, nll."),
    ("objective", "augmented:beta=1", "objective: augmented has no hyper-parameter 'beta'"),
    ("objective", "augmented:tau=0", "objective: augmented: tau=0 must be above 0"),
    ("objective", 3, "objective: 3: input should be a valid string"),
]


@pytest.mark.parametrize(("field", "value", "line"), REFUSED)
def test_a_wrong_value_is_one_line_that_names_it(field: str, value: Any, line: str) -> None:
    with pytest.raises(BadInput) as error:
        make_trial({field: value}, find(), "grid.yaml")
    assert str(error.value).startswith(f"grid.yaml: {line}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "golden"),
    [
        ({"locked": True, "dropoute": 0.1}, "fde493bb8830"),
        ({"eval_mc": 100}, "3ae03ce2254a"),
        ({"objective": "augmented:tau=10"}, "ad2e7982c2c6"),
        ({"variable_bptt": True, "optimizer": "nt-asgd", "nonmono": 3}, "03187174b476"),
    ],
)
def test_golden_run_ids(values: dict[str, Any], golden: str) -> None:
    assert identity(**values) == golden


# --- Monte Carlo ----------------------------------------------------------------------------------


def test_monte_carlo_stands_beside_the_plain_figures() -> None:
    epochs, result = train(epochs=2)
    with_mc, mc = train(epochs=2, eval_mc=3)
    assert comparable(epochs) == comparable(with_mc)
    assert (result["valid_nll"], result["test_nll"]) == (mc["valid_nll"], mc["test_nll"])
    assert "valid_mc_nll" not in result
    for split in ("valid", "test"):
        assert mc[f"{split}_mc_nll"] != mc[f"{split}_nll"]
        assert math.isfinite(mc[f"{split}_mc_nll"])


def test_monte_carlo_is_at_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [4.0, 3.0, 3.5])
    one = trainer(eval_mc=2)
    at_best = 0.0
    for epoch in one.epochs():
        if epoch["epoch"] == 2:
            nll = monte_carlo(one.model, one.corpus.test, 10, 2, one.trial.seed)
            at_best = float(nll.mean())
    assert one.result()["test_mc_nll"] == at_best


def test_a_diverged_trial_has_no_monte_carlo_figure() -> None:
    _, result = train(lr=1e200, clip=1e300, epochs=20, cell="rnn_tanh", eval_mc=2)
    assert result["status"] == "diverged" and "valid_mc_nll" not in result


# --- the augmented loss ---------------------------------------------------------------------------


def test_gamma_zero_is_training_on_the_nll_but_for_rounding() -> None:
    plain, zero = train(epochs=2)[0], train(epochs=2, objective="augmented:gamma=0")[0]
    assert comparable(plain) == [pytest.approx(epoch, rel=1e-12) for epoch in comparable(zero)]


def test_the_term_is_in_the_penalty_and_never_in_an_nll() -> None:
    plain, _ = train(epochs=1, lr=1e-9)
    one, result = train(epochs=1, lr=1e-9, objective="augmented:gamma=1:tau=1")
    two, _ = train(epochs=1, lr=1e-9, objective="augmented:gamma=2:tau=1")
    both, _ = train(epochs=1, lr=1e-9, objective="augmented:gamma=1:tau=1", regularizer="ar")
    ar, _ = train(epochs=1, lr=1e-9, regularizer="ar")
    assert one[0]["penalty"] > 1e-4
    assert one[0]["train_nll"] == pytest.approx(plain[0]["train_nll"], abs=1e-6)
    assert two[0]["penalty"] == pytest.approx(2 * one[0]["penalty"], rel=1e-4)
    assert both[0]["penalty"] == pytest.approx(one[0]["penalty"] + ar[0]["penalty"], rel=1e-4)
    assert result["valid_nll"] == one[0]["valid_nll"]


def test_the_term_moves_the_weights() -> None:
    assert train(epochs=1, objective="augmented")[1]["test_nll"] != train(epochs=1)[1]["test_nll"]


# --- window lengths -------------------------------------------------------------------------------


def test_windows_of_given_lengths_train_every_token_once() -> None:
    cols = columns(np.arange(101), 2)
    pairs = list(windows(cols, window_lengths(12, 1, 0)))
    assert torch.equal(torch.cat([tokens for tokens, _ in pairs]), cols[:-1])
    assert torch.equal(torch.cat([targets for _, targets in pairs]), cols[1:])
    assert len({len(tokens) for tokens, _ in pairs}) > 1


def seen_lengths(**changes: Any) -> list[list[int]]:
    """The lengths of the windows of each epoch."""
    one = trainer(variable_bptt=True, bptt=20, epochs=2, **changes)
    found: list[list[int]] = [[]]
    real = one.train_window

    def noting(tokens: Tensor, targets: Tensor, state: Any) -> Any:
        found[-1].append(len(tokens))
        return real(tokens, targets, state)

    one.train_window = noting  # type: ignore[method-assign]
    for _ in one.epochs():
        assert one.at.trained_tokens == len(found) * 5 * (len(one.corpus.train) // 5 - 1)
        found.append([])
    return found[:2]


def test_lengths_vary_between_epochs_and_repetitions_but_not_between_cells() -> None:
    first, second = seen_lengths()
    assert sum(first) == sum(second) and first != second
    assert seen_lengths(rep=1)[0] != first
    assert seen_lengths(cell="gru", regularizer="ar")[0] == first


def test_lr_is_rescaled_by_the_length_of_the_window() -> None:
    steps: list[Tensor] = []
    for length in (5, 10, 20):
        # Each row the same and no state: every length has one gradient, and the step shows lr.
        one = small_trainer(Constant, variable_bptt=True, bptt=10, lr=2.0, wdecay=0, clip=1e9)
        before = one.model.decoder_bias.detach().clone()
        ones = torch.ones(length, 5, dtype=torch.long)
        one.train_window(ones, 2 * ones, one.model.initial_state(5))
        steps.append(one.model.decoder_bias.detach() - before)
    torch.testing.assert_close(2 * steps[0], steps[1])
    torch.testing.assert_close(2 * steps[1], steps[2])
    assert float(steps[1].abs().max()) > 0.1


def test_the_lr_in_the_record_is_the_trials() -> None:
    epochs, _ = train(variable_bptt=True, epochs=2)
    assert [e["lr"] for e in epochs] == [20, 20]


class Constant(nn.Module):
    """Zero whatever it reads: every window has the same gradient."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size_out, size_in))

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        return (self.weight.new_zeros(batch_size, 1),)

    def forward(self, x: Tensor, state: Any, noise: Any) -> Any:
        return x @ self.weight.T * 0, state


# --- averaging ------------------------------------------------------------------------------------


def test_sgd_never_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [3.0, 4.0, 4.0, 4.0, 4.0])
    one = trainer(epochs=5, nonmono=1)
    list(one.epochs())
    assert one.average is None and one.result()["averaged_from_epoch"] is None


def test_before_the_trigger_nt_asgd_is_sgd_without_annealing() -> None:
    epochs, result = train(epochs=3, optimizer="nt-asgd")
    plain, other = train(epochs=3, min_lr=0, lr_decay=1 + 1e-12)
    assert result["averaged_from_epoch"] is None and result["stop_reason"] == "epochs"
    assert [e["train_nll"] for e in epochs] == pytest.approx([e["train_nll"] for e in plain])
    assert result["test_nll"] == pytest.approx(other["test_nll"])


class Steps(Trainer):
    """Notes the parameters after each step."""

    def train_window(self, tokens: Tensor, targets: Tensor, state: Any) -> Any:
        out = super().train_window(tokens, targets, state)
        if not hasattr(self, "seen"):
            self.seen: list[list[Tensor]] = []
        self.seen.append([p.detach().clone() for p in self.parameters])
        return out


def test_averages_are_evaluated_and_kept_while_training_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.trainers.Trainer", Steps)
    one: Any = make_trainer(
        make_trial(SMALL | {"epochs": 6, "optimizer": "nt-asgd", "nonmono": 1}, find(), "test"),
        torch.device("cpu"),
    )
    # Epoch 3 is above epoch 1: averages from epoch 4 on, and epoch 5 is the best.
    valid_nlls(monkeypatch, [4.0, 4.1, 4.2, 3.9, 3.5, 3.8])
    rates, at_five = [], 0.0
    for epoch in one.epochs():
        rates.append(epoch["lr"])
        assert all(map(torch.equal, one.parameters, one.seen[-1])), "the raw weights train on"
        if epoch["epoch"] == 5:
            since = one.seen[3 * 30 : 5 * 30]
            mean = [torch.stack(list(p)).mean(0) for p in zip(*since, strict=True)]
            saved = [one.best_weights[name] for name, _ in one.model.named_parameters()]
            for ours, wanted in zip(saved, mean, strict=True):
                torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-13)
            at_five = {name: t.clone() for name, t in one.best_weights.items()}  # type: ignore[assignment]
    assert rates == [20.0] * 6, "lr is not divided"
    assert len(one.seen) == 6 * 30
    result = one.result()
    assert result["averaged_from_epoch"] == 4 and result["best_epoch"] == 5
    assert all(torch.equal(t, at_five[name]) for name, t in one.best_weights.items())  # type: ignore[index]
    one.model.load_state_dict(at_five)
    assert result["test_nll"] == float(evaluate(one.model, one.corpus.test, 10).mean())


def test_the_weights_themselves_train_on_as_if_nothing_were_averaged() -> None:
    one, other = (trainer(epochs=5, optimizer="nt-asgd", nonmono=nonmono) for nonmono in (1, 100))
    ours, theirs = list(one.epochs()), list(other.epochs())
    assert one.at.averaged_from_epoch is not None and one.at.averaged_from_epoch < 5
    assert other.at.averaged_from_epoch is None
    assert [e["train_nll"] for e in ours] == [e["train_nll"] for e in theirs]
    assert ours[-1]["valid_nll"] != theirs[-1]["valid_nll"]
    assert all(map(torch.equal, one.parameters, other.parameters))


def test_no_averaging_begins_after_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [4.0, 4.1, 4.2])
    one = trainer(epochs=3, optimizer="nt-asgd", nonmono=1)
    list(one.epochs())
    assert one.result()["averaged_from_epoch"] is None


class Counting(Constant):
    """Keeps a buffer, as batch normalisation does."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__(size_in, size_out)
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor, state: Any, noise: Any) -> Any:
        self.calls.add_(self.training)
        return super().forward(x, state, noise)


def test_buffers_are_not_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [4.0, 4.1, 4.2, 3.9])
    one = small_trainer(Counting, epochs=4, optimizer="nt-asgd", nonmono=1)
    list(one.epochs())
    assert one.at.best_epoch == 4 and one.at.averaged_from_epoch == 4
    assert float(one.best_weights["cells.0.calls"]) == 4 * 30
