"""The training loop: its rules, one at a time, on small trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.api import Activations
from bench.config import Trial, make_trial
from bench.corpora import Corpus, default_data_dir, load
from bench.corpora.windows import windows
from bench.evaluation import evaluate
from bench.loop import Trainer, prepare_thread
from bench.plugins import find
from tests.trainers import make_trainer

CPU = torch.device("cpu")
SMALL = {
    "corpus": "synthetic:train=1500:valid=300:test=300",
    "nhid": 12,
    "batch_size": 5,
    "bptt": 10,
    "epochs": 3,
    "precision": "fp64",
}


def trainer(**changes: Any) -> Trainer:
    return make_trainer(make_trial(SMALL | changes, find(), "test"), CPU)


def train(**changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    one = trainer(**changes)
    return list(one.epochs()), one.result()


def comparable(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in e.items() if k not in ("seconds", "tokens_per_s")} for e in epochs]


def test_the_same_trial_twice_is_the_same_to_the_bit() -> None:
    one, two = train(), train()
    assert comparable(one[0]) == comparable(two[0])
    assert one[1]["test_nll"] == two[1]["test_nll"]


def test_another_repetition_differs() -> None:
    assert train()[1]["test_nll"] != train(rep=1)[1]["test_nll"]


def test_trials_of_one_repetition_share_their_draws_across_regularizers_and_cells() -> None:
    dropped: dict[str, Tensor] = {}
    for name, cell, regularizer in (
        ("plain", "lstm", "none"),
        ("ar", "lstm", "ar:alpha=2"),
        ("gru", "gru", "none"),
    ):
        one = trainer(cell=cell, regularizer=regularizer)
        seen: list[Activations] = []
        one.regularizers.append((lambda acts, seen=seen: seen.append(acts) or torch.zeros(()), 0.0))  # type: ignore[misc]
        one.model.train()
        tokens, targets = next(windows(one.columns, 10))
        one.train_window(tokens, targets, one.model.initial_state(5))
        dropped[name] = torch.stack([seen[0].embedded == 0, seen[0].dropped[-1] == 0])
    assert torch.equal(dropped["plain"], dropped["ar"])
    assert torch.equal(dropped["plain"], dropped["gru"])


def test_none_is_bit_identical_to_a_coefficient_of_zero() -> None:
    assert comparable(train()[0]) == comparable(train(regularizer="ar:alpha=0+tar:beta=0")[0])


def test_penalties_are_logged_but_never_part_of_an_nll() -> None:
    plain, _ = train(epochs=1, lr=1e-9)
    ar, result = train(epochs=1, lr=1e-9, regularizer="ar:alpha=1000")
    assert ar[0]["penalty"] > 1 and plain[0]["penalty"] == 0
    assert ar[0]["train_nll"] == pytest.approx(plain[0]["train_nll"], abs=1e-6)
    assert result["valid_nll"] == ar[0]["valid_nll"]


def test_a_coefficient_multiplies_exactly_once() -> None:
    two, four = (train(epochs=1, lr=1e-9, regularizer=f"ar:alpha={a}")[0][0] for a in (2, 4))
    assert four["penalty"] == pytest.approx(2 * two["penalty"], rel=1e-6)


def valid_nlls(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Makes the evaluations of valid give these means, one after the other."""
    supply = iter(values)
    real = Trainer._evaluate

    def fake(self: Trainer, split: str) -> np.ndarray:
        nll = real(self, split)
        return np.full_like(nll, next(supply)) if split == "valid" else nll

    monkeypatch.setattr(Trainer, "_evaluate", fake)


def test_lr_is_divided_after_each_epoch_without_a_new_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    valid_nlls(monkeypatch, [5.0, 4.0, 4.0, 3.9, 4.5, 4.5])
    one = trainer(epochs=6, lr=8.0, lr_decay=2.0)
    assert [e["lr"] for e in one.epochs()] == [8, 8, 8, 4, 4, 2]
    assert one.at.best_epoch == 4
    assert one.result()["stop_reason"] == "epochs"


def test_training_ends_when_lr_falls_below_min_lr(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [5.0] + [5.2] * 20)
    one = trainer(epochs=50, lr=16.0)  # min_lr = 16 / 4^6
    assert len(list(one.epochs())) == 1 + 7
    assert one.result()["stop_reason"] == "annealed"


def test_test_is_read_once_at_the_best_valid_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    valid_nlls(monkeypatch, [4.0, 3.0, 3.5])
    one = trainer()
    at_best = 0.0
    for epoch in one.epochs():
        if epoch["epoch"] == 2:
            at_best = float(evaluate(one.model, one.corpus.test, 10).mean())
    assert one.result()["test_nll"] == at_best
    assert float(evaluate(one.model, one.corpus.test, 10).mean()) == at_best


def test_test_is_not_read_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[str] = []
    real = Trainer._evaluate

    def noting(self: Trainer, split: str) -> np.ndarray:
        splits.append(split)
        return real(self, split)

    monkeypatch.setattr(Trainer, "_evaluate", noting)
    train()
    assert splits == ["valid", "valid", "valid", "test"]


def test_an_infinite_loss_ends_a_trial_as_diverged() -> None:
    epochs, result = train(lr=1e200, clip=1e300, epochs=20, cell="rnn_tanh")
    assert result["status"] == "diverged" and result["stop_reason"] == "nan"
    assert not math.isfinite(epochs[-1]["train_nll"] + epochs[-1]["penalty"]) or (
        not math.isfinite(epochs[-1]["valid_nll"])
    )
    assert "test_nll" not in result, "there is nothing it could be compared with"


class Late(nn.Module):
    """A tanh RNN whose output becomes NaN after some windows."""

    def __init__(self, size_in: int, size_out: int, calls: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size_out, size_in) / 10)
        self.left = calls

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        return (self.weight.new_zeros(batch_size, 1),)

    def forward(self, x: Tensor, state: Any, noise: Any) -> Any:
        self.left -= 1
        raw = torch.tanh(x @ self.weight.T)
        return (raw * math.nan if self.left < 0 else raw), state


def small_trainer(make_cell: Callable[[int, int], nn.Module], **changes: Any) -> Trainer:
    trial = Trial(**(SMALL | {"nlayers": 1} | changes))  # type: ignore[arg-type]
    prepare_thread(CPU)
    return Trainer(trial, load(trial.corpus, default_data_dir()), make_cell, [], CPU)


def test_nan_stops_at_once_and_keeps_the_epochs_before() -> None:
    one = small_trainer(lambda i, h: Late(i, h, 40))
    epochs = list(one.epochs())  # 30 windows an epoch, 3 evaluation calls
    assert [e["epoch"] for e in epochs] == [1, 2]
    assert epochs[1]["step"] < 60 and epochs[1]["valid_nll"] is None
    result = one.result()
    assert (result["status"], result["epochs_done"], result["best_epoch"]) == ("diverged", 1, None)


def test_a_model_that_never_beats_the_unigram_is_marked() -> None:
    _, result = train(lr=1e-6)
    assert (result["status"], result["stop_reason"]) == ("ok", "not_learned")
    assert result["valid_nll"] > result["unigram_nll"]


def test_a_result_below_the_source_is_marked_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer._evaluate

    def leaking(self: Trainer, split: str) -> np.ndarray:
        nll = real(self, split)
        source = self.corpus.source_nll
        assert source is not None
        return source[split][1:] - 0.1 + 0.01 * (nll - nll.mean())

    monkeypatch.setattr(Trainer, "_evaluate", leaking)
    _, result = train()
    assert result["stop_reason"] == "impossible"
    assert result["valid_excess"] == pytest.approx(-0.1)


def test_the_floor_and_the_excess_add_up() -> None:
    _, result = train()
    for split in ("valid", "test"):
        total = result[f"{split}_floor"] + result[f"{split}_excess"]
        assert total == pytest.approx(result[f"{split}_nll"], abs=1e-12)
        assert result[f"{split}_excess_se"] > 0


def test_the_state_is_carried_across_windows_and_zeroed_at_each_pass() -> None:
    starts: list[float] = []

    class Watching(Late):
        def forward(self, x: Tensor, state: Any, noise: Any) -> Any:
            if self.training:
                starts.append(float(state[0].detach().sum()))
            raw, _ = super().forward(x, state, noise)
            return raw, (state[0] + 1,)

    one = small_trainer(lambda i, h: Watching(i, h, 10**9), epochs=2)
    list(one.epochs())
    assert starts == [5.0 * n for n in range(30)] * 2


def test_a_penalty_that_is_no_scalar_is_told() -> None:
    one = trainer()
    one.regularizers[:] = [(lambda acts: acts.raw[-1].square().mean(0), 1.0)]
    with pytest.raises(ValueError, match=r"a penalty must be a scalar, not of shape \[5, 12\]"):
        list(one.epochs())


def test_windows_cover_the_corpus_once_an_epoch() -> None:
    one = trainer(epochs=1)
    epoch = next(one.epochs())
    corpus: Corpus = one.corpus
    per_column = len(corpus.train) // 5 - 1
    assert epoch["step"] == -(-per_column // 10)
    assert one.at.trained_tokens == 5 * per_column


def test_prepare_thread_undoes_what_a_plugin_may_have_done() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    prepare_thread(CPU)
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1
    tiny = torch.tensor([1e-40]) * 1.0
    assert float(tiny) == 0, "denormals are flushed"
    cudnn: Any = torch.backends.cudnn
    assert cudnn.rnn.fp32_precision == "ieee"
