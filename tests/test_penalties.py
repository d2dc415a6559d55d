"""AR and TAR: values worked out by hand for every option, and how a coefficient scales them."""

from __future__ import annotations

import itertools
import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.api import Activations
from bench.config import Trial, make_trial
from bench.corpora import load
from bench.loop import Trainer
from bench.plugins import build_regularizers, find, load_class, select_cell, select_regularizers
from benchmarks import penalties, record, train_step

OPTIONS = tuple(itertools.product(("dropped", "raw"), ("last", "all"), ("mean_square", "norm")))


def column(*steps: tuple[float, float]) -> Tensor:
    """[T,1,2] from T steps of two units."""
    return torch.tensor(steps, dtype=torch.float64).unsqueeze(1)


# T = 3, B = 1, H = 2, two layers; dropped with p = 1/2 is 0 or twice the raw value.
RAW = (column((0, 1), (0, 1), (2, 1)), column((1, 2), (3, 2), (3, 0)))
DROPPED = (column((0, 2), (0, 0), (4, 2)), column((2, 0), (6, 4), (0, 0)))
ACTS = Activations(torch.zeros(3, 1, 2), RAW, DROPPED, (None, None))

AR = {
    # dropped: layer 0 (0+4 + 0+0 + 16+4)/6 = 24/6, layer 1 (4+0 + 36+16 + 0+0)/6 = 56/6
    ("dropped", "last", "mean_square"): 56 / 6,
    ("dropped", "all", "mean_square"): (24 / 6 + 56 / 6) / 2,
    # raw: layer 0 (0+1 + 0+1 + 4+1)/6 = 7/6, layer 1 (1+4 + 9+4 + 9+0)/6 = 27/6
    ("raw", "last", "mean_square"): 27 / 6,
    ("raw", "all", "mean_square"): (7 / 6 + 27 / 6) / 2,
    # dropped: layer 0 has the norms 2, 0, sqrt(20), layer 1 has 2, sqrt(52), 0
    ("dropped", "last", "norm"): (2 + sqrt(52)) / 3,
    ("dropped", "all", "norm"): ((2 + sqrt(20)) / 3 + (2 + sqrt(52)) / 3) / 2,
    # raw: layer 0 has the norms 1, 1, sqrt(5), layer 1 has sqrt(5), sqrt(13), 3
    ("raw", "last", "norm"): (sqrt(5) + sqrt(13) + 3) / 3,
    ("raw", "all", "norm"): ((2 + sqrt(5)) / 3 + (sqrt(5) + sqrt(13) + 3) / 3) / 2,
}
TAR = {
    # raw: layer 0 changes by (0,0), (2,0): 4/4; layer 1 by (2,0), (0,-2): (4 + 4)/4
    ("raw", "last", "mean_square"): 2.0,
    ("raw", "all", "mean_square"): (1 + 2) / 2,
    # dropped: layer 0 changes by (0,-2), (4,2): (4 + 16+4)/4 = 6;
    # layer 1 by (4,4), (-6,-4): (16+16 + 36+16)/4 = 21
    ("dropped", "last", "mean_square"): 21.0,
    ("dropped", "all", "mean_square"): (6 + 21) / 2,
    # raw: layer 0 changes have the norms 0, 2, layer 1's 2, 2
    ("raw", "last", "norm"): 2.0,
    ("raw", "all", "norm"): (1 + 2) / 2,
    # dropped: layer 0 changes have the norms 2, sqrt(20), layer 1's sqrt(32), sqrt(52)
    ("dropped", "last", "norm"): (sqrt(32) + sqrt(52)) / 2,
    ("dropped", "all", "norm"): ((2 + sqrt(20)) / 2 + (sqrt(32) + sqrt(52)) / 2) / 2,
}


def made(name: str, of: str, layers: str, form: str) -> Any:
    return load_class(find()["regularizer"][name])(of=of, layers=layers, form=form)


def changed(acts: Activations, change: Any) -> Activations:
    raw, dropped = (tuple(change(t) for t in layers) for layers in (acts.raw, acts.dropped))
    return Activations(change(acts.embedded), raw, dropped, acts.memory)


@pytest.mark.parametrize(("name", "expected"), [("ar", AR), ("tar", TAR)], ids=["ar", "tar"])
@pytest.mark.parametrize("options", OPTIONS, ids=":".join)
def test_values_worked_out_by_hand(
    name: str, expected: dict[tuple[str, str, str], float], options: tuple[str, str, str]
) -> None:
    regularizer = made(name, *options)
    assert float(regularizer(ACTS)) == pytest.approx(expected[options], rel=1e-14)
    # A second, silent column halves the means of squares and of norms alike.
    wider = changed(ACTS, lambda t: torch.cat([t, torch.zeros_like(t)], 1))
    assert float(regularizer(wider)) == pytest.approx(expected[options] / 2, rel=1e-14)


def test_defaults_are_the_papers() -> None:
    registry = find()["regularizer"]
    assert float(load_class(registry["ar"])()(ACTS)) == pytest.approx(56 / 6)
    assert float(load_class(registry["tar"])()(ACTS)) == pytest.approx(2)
    assert float(load_class(registry["none"])()(ACTS)) == 0


@pytest.mark.parametrize("options", OPTIONS, ids=":".join)
def test_tar_is_zero_where_nothing_changes_in_time_and_in_a_window_of_one_step(
    options: tuple[str, str, str],
) -> None:
    tar = made("tar", *options)
    constant = changed(ACTS, lambda t: t[1:2].expand(5, -1, -1))
    assert float(tar(constant)) == 0
    one_step = changed(ACTS, lambda t: t[:1])
    assert float(tar(one_step)) == 0
    assert float(made("ar", *options)(one_step)) > 0


@pytest.mark.parametrize("options", OPTIONS, ids=":".join)
def test_tar_depends_on_the_order_of_time_and_ar_does_not(options: tuple[str, str, str]) -> None:
    shuffled = changed(ACTS, lambda t: t[[1, 0, 2]])
    tar, ar = made("tar", *options), made("ar", *options)
    assert abs(float(tar(shuffled)) - float(tar(ACTS))) > 0.1
    assert float(ar(shuffled)) == pytest.approx(float(ar(ACTS)))
    backwards = changed(ACTS, lambda t: t.flip(0))
    assert float(tar(backwards)) == pytest.approx(float(tar(ACTS)))


def formula(name: str, h: Tensor, form: str) -> Tensor:
    """The penalty of one layer, written out over single steps."""
    parts = list(h) if name == "ar" else [late - early for early, late in itertools.pairwise(h)]
    if form == "norm":
        return sum((p.square().sum(-1).sqrt().mean() for p in parts), h.new_zeros(())) / len(parts)
    return sum((p.square().sum() for p in parts), h.new_zeros(())) / (len(parts) * h[0].numel())


@pytest.mark.parametrize("name", ["ar", "tar"])
@pytest.mark.parametrize("options", OPTIONS, ids=":".join)
def test_values_and_gradients_are_those_of_the_formula(
    name: str, options: tuple[str, str, str]
) -> None:
    of, layers, form = options
    generator = torch.Generator().manual_seed(1)
    # Three layers, one of them batch-first in memory; two steps are a window with one change.
    for steps in (6, 2):
        raw, dropped = (
            tuple(
                torch.randn(4, steps, 5, generator=generator, dtype=torch.float64)
                .transpose(0, 1)
                .requires_grad_()
                for _ in range(3)
            )
            for _ in range(2)
        )
        value = made(name, *options)(Activations(raw[0], raw, dropped, (None,) * 3))
        chosen = raw if of == "raw" else dropped
        chosen = chosen if layers == "all" else chosen[-1:]
        wanted = torch.stack([formula(name, h, form) for h in chosen]).mean()
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
        found = torch.autograd.grad(3 * value, [*raw, *dropped], materialize_grads=True)
        expected = torch.autograd.grad(3 * wanted, [*raw, *dropped], materialize_grads=True)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["ar", "tar"])
def test_a_million_single_precision_floats_are_summed_exactly_enough(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(35, 20, 1500, generator=generator).tanh()
    regularizer = made(name, "raw", "last", "mean_square")
    single, double = (
        float(regularizer(Activations(x, (x,), (x,), (None,)))) for x in (h, h.double())
    )
    assert single == pytest.approx(double, rel=1e-6)


# --- in training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def window() -> Any:
    """Returns a function: regularizer -> (weighted penalty, nll, activations) of one window."""
    corpus = load("synthetic:train=2000:valid=300:test=300", Path("unused"))
    registry = find()

    def run(regularizer: str) -> tuple[float, float, Activations]:
        values = {"regularizer": regularizer, "nhid": 8, "batch_size": 5, "bptt": 10, "lr": 1}
        trial: Trial = make_trial({**values, "precision": "fp64"}, registry, "test")
        built = build_regularizers(select_regularizers(trial.regularizer, registry))
        cell = load_class(select_cell(trial.cell, registry).plugin)
        trainer = Trainer(trial, corpus, cell, built, torch.device("cpu"))
        seen: list[Activations] = []
        forward = trainer.model.forward

        def watched(*args: Any) -> Any:
            out = forward(*args)
            seen.append(out[2])
            return out

        trainer.model.forward = watched  # type: ignore[assignment, method-assign]
        tokens, targets = trainer.columns[:10].long(), trainer.columns[1:11].long()
        out = trainer.train_window(tokens, targets, trainer.model.initial_state(5))
        return float(out[1]), float(out[0]), changed(seen[0], Tensor.detach)

    return run


def test_a_coefficient_multiplies_exactly_once(window: Any) -> None:
    ar = made("ar", "dropped", "last", "mean_square")
    tar = made("tar", "raw", "last", "mean_square")
    one, nll, acts = window("ar:alpha=1")
    assert one == pytest.approx(float(ar(acts)), rel=1e-12)
    assert one > 0
    three, same_nll, _ = window("ar:alpha=3")
    assert three == pytest.approx(3 * one, rel=1e-12)
    assert same_nll == nll, "a penalty enters the nll"
    both, _, _ = window("tar:beta=0.5+ar:alpha=3")
    assert both == pytest.approx(3 * float(ar(acts)) + 0.5 * float(tar(acts)), rel=1e-12)
    assert window("ar:alpha=0+tar:beta=0")[0] == 0
    assert window("none")[0] == 0


def test_the_dropped_output_carries_its_scaling(window: Any) -> None:
    penalty, _, acts = window("ar:alpha=1")  # dropout 0.5, the default
    raw, dropped = acts.raw[-1], acts.dropped[-1]
    kept = dropped != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(dropped[kept], 2 * raw[kept])
    by_hand = float((2 * raw[kept]).square().sum()) / kept.numel()
    assert penalty == pytest.approx(by_hand, rel=1e-12)
    assert window("ar:alpha=1:of=raw")[0] == pytest.approx(float(raw.square().mean()), rel=1e-12)


def test_their_cost_is_measured_and_they_take_fewer_operations_than_plain_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["--quick", "--captured", "--seconds", "0", "--cells", "rnn_tanh", "--name", "here"]
    assert penalties.main(argv) == 0
    assert capsys.readouterr().out.startswith("no GPU: eager only")
    (row,) = json.loads((tmp_path / "penalties-here.json").read_text())["rows"]
    assert set(row["added_ms"]) == {*penalties.KINDS, penalties.AGAIN}
    assert min(row["stage_ms"].values()) > 0
    counts = row["operations"]
    assert max(counts["ar"], counts["tar"]) < counts["ar+tar"] < counts[penalties.PLAIN]


def test_the_steps_that_are_compared_differ_in_their_penalties() -> None:
    values = {"regularizer": "none", "nhid": 8, "batch_size": 3, "bptt": 5}
    steps = penalties.steps(train_step.trainer(values, 50, torch.device("cpu")))
    steps[penalties.NONE]()  # the first one of all does more
    counts = {name: penalties.operations(step) for name, step in steps.items()}
    assert counts[penalties.NONE] == counts[penalties.AGAIN]
    assert counts[penalties.NONE] < counts["ar"] < counts["ar+tar"] < counts[penalties.PLAIN]
