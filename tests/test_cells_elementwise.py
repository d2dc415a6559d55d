"""What defines each cell whose recurrence is elementwise, beyond its equality with its oracle."""

from __future__ import annotations

import inspect
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contract import variants
from bench.plugins import load_class
from tests.elementwise_cells import CELLS, B, H, I, T, build, inputs, memory, state_of
from tests.oracles.elementwise import sru

NAMES = ("qrnn", "sru", "mingru", "minlstm", "t_rnn", "t_gru", "t_lstm", "qrn")
EXTRA: dict[str, list[dict[str, Any]]] = {
    "qrnn": [{"window": 1}, {"window": 3}, {"zoneout": 0.0}],
    "qrn": [{"gate": "scalar", "reset": True}],
}
CASES = [
    pytest.param(name, hparams, id=f"{name}:{hparams}")
    for name in NAMES
    for hparams in [*variants(CELLS[name]).values(), *EXTRA.get(name, [])]
]


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_windows_may_be_cut_anywhere(name: str, hparams: dict[str, Any]) -> None:
    cell = build(name, **hparams)
    x, start = inputs(T, B, I), state_of(cell)
    whole, end, *_ = cell(x, start, None)
    for sizes in [*((cut, T - cut) for cut in range(1, T)), (1,) * T]:
        state, parts = start, []
        for part in x.split(sizes):
            raw, state, *_ = cell(part, state, None)
            parts.append(raw)
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
        for ours, theirs in zip(state, end, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_each_unit_remembers_alone(name: str, hparams: dict[str, Any]) -> None:
    """No recurrent matrix: a unit's past reaches that unit only; a new weight would show here."""
    cell = build(name, **hparams)
    x, (first, *rest) = inputs(T, B, I), state_of(cell)
    moved = first.clone()
    moved[:, 1] += 1
    change = cell(x, (moved, *rest), None)[0] - cell(x, (first, *rest), None)[0]
    assert change[:, :, 1].abs().min() > 0
    assert change[:, :, [0, 2, 3]].abs().max() == 0


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_gates_ignore_the_state(name: str, hparams: dict[str, Any]) -> None:
    """The memory is linear in the state before; sru's v alone makes a gate read it."""
    cell = build(name, **hparams)
    x, (first, *rest) = inputs(T, B, I), state_of(cell)
    c = [memory(cell, x, (first + step, *rest)) for step in (0, 1, 2)]
    bend = (c[2] - 2 * c[1] + c[0]).abs().max()
    if name == "sru" and hparams.get("v", True):
        assert bend > 1e-3
    else:
        assert bend < 1e-12


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_memory_is_the_state_at_every_step(name: str, hparams: dict[str, Any]) -> None:
    cell = build(name, **hparams)
    x, state = inputs(T, B, I), state_of(cell)
    c = memory(cell, x, state)
    for t in range(T):
        _, state, *_ = cell(x[t : t + 1], state, None)
        torch.testing.assert_close(state[0], c[t], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_builds_without_memory_for_weights(name: str, hparams: dict[str, Any]) -> None:
    with torch.device("meta"):
        shadow = load_class(CELLS[name])(I, H, **hparams)
    shapes = {key: p.shape for key, p in build(name, **hparams).named_parameters()}
    assert {key: p.shape for key, p in shadow.named_parameters()} == shapes
    assert all(p.is_meta for p in shadow.parameters())


def test_defaults_are_the_papers() -> None:
    def defaults(name: str) -> dict[str, Any]:
        parameters = inspect.signature(load_class(CELLS[name])).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    assert defaults("qrnn") == {"window": 2, "pooling": "fo", "zoneout": 0.1}
    assert defaults("sru") == {"v": True, "highway_bias": 0.0}
    assert defaults("minlstm") == {"candidate": "positive", "forget_bias": 0.0}
    assert defaults("qrn") == {"gate": "vector", "reset": False, "forget_bias": 0.0}


def test_sru_without_v_is_sru_with_v_zero() -> None:
    with_v, without = build("sru"), build("sru", v=False)
    with torch.no_grad():
        with_v.v.zero_()
        without.weight.copy_(with_v.weight)
    x, state = inputs(T, B, I), state_of(with_v)
    for ours, theirs in zip(with_v(x, state, None)[::2], without(x, state, None)[::2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert "v" not in dict(without.named_parameters())


@pytest.mark.parametrize("v", [True, False])
def test_sru_of_equal_sizes_equals_its_loop(v: bool) -> None:
    cell = build("sru", H, v=v)
    x, state = inputs(T, B, H), state_of(cell)
    raw, after, c = cell(x, state, None)
    for ours, theirs in zip((raw, *after, c), sru(cell, x, state, None), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("highway_bias", [0.0, -3.0])
def test_sru_highway(highway_bias: float) -> None:
    cell = build("sru", H, highway_bias=highway_bias)
    scale = math.sqrt(1 + 2 * math.exp(highway_bias))
    assert cell.weight.shape[0] == 3 * H
    assert (cell.bias[H:] == highway_bias).all() and (cell.bias[:H] == 0).all()
    x, state = inputs(T, B, H), state_of(cell)
    with torch.no_grad():
        cell.bias[H:] = -1e4  # r = 0
    torch.testing.assert_close(cell(x, state, None)[0], scale * x, rtol=0, atol=1e-12)
    with torch.no_grad():
        cell.bias[H:] = 1e4  # r = 1
    raw, _, c = cell(x, state, None)
    torch.testing.assert_close(raw, c, rtol=0, atol=1e-12)


def test_sru_initial_weights() -> None:
    cell = build("sru", 300, 200)
    assert cell.weight.shape[0] == 4 * 200
    variances = [float(w.detach().var()) * 300 for w in cell.weight.chunk(4)]
    assert variances == pytest.approx([1, 0.5, 0.5, 3], rel=0.03)
    assert float(cell.v.detach().square().mean()) == pytest.approx(0.5, rel=0.1)
    plain = build("sru", 300, 200, v=False)
    variances = [float(w.detach().var()) * 300 for w in plain.weight.chunk(4)]
    assert variances == pytest.approx([1, 1, 1, 3], rel=0.03)


@pytest.mark.parametrize(("name", "hparam"), [("sru", "highway_bias"), ("minlstm", "forget_bias")])
def test_biases_have_bounds(name: str, hparam: str) -> None:
    given: dict[str, Any] = {}
    for given[hparam] in (80.5, -81.0, 1e4, float("inf"), float("nan")):
        line = f"{hparam} must be between -80 and 80, but is {given[hparam]}"
        with pytest.raises(ValueError, match=f"^{line}$"):
            build(name, **given)
    for given[hparam] in (80.0, -80.0):
        cell = load_class(CELLS[name])(H, H, **given)
        raw, *_ = cell(torch.randn(T, B, H), cell.initial_state(B), None)
        assert all(torch.isfinite(t).all() for t in (raw, *cell.parameters()))


def test_minlstm_gates_add_up_to_one() -> None:
    cell = build("minlstm", candidate="linear")
    with torch.no_grad():
        cell.weight[2 * H :], cell.bias[2 * H :] = 0.0, 1.5
    h, _ = cell(inputs(T, B, I), (torch.full((B, H), 1.5, dtype=torch.float64),), None)
    torch.testing.assert_close(h, torch.full_like(h, 1.5), rtol=0, atol=1e-12)
    with torch.no_grad():  # both gates shut: their shares are still a half each
        cell.weight[: 2 * H], cell.bias[: 2 * H] = 0.0, -200.0
    cell.float()
    h, _ = cell(torch.randn(1, B, I), (torch.zeros(B, H),), None)
    torch.testing.assert_close(h, torch.full_like(h, 0.75))


def test_minlstm_forget_bias_moves_the_forget_gate_alone() -> None:
    plain, biased = build("minlstm"), build("minlstm", forget_bias=2.0)
    moved = (biased.bias - plain.bias).detach()
    torch.testing.assert_close(moved[:H], torch.full_like(moved[:H], 2.0), rtol=0, atol=1e-6)
    assert (moved[H:] == 0).all() and torch.equal(plain.weight, biased.weight)


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_positive_candidates(name: str) -> None:
    x = inputs(20, 50, I)
    positive, linear = build(name), build(name, candidate="linear")
    assert memory(positive, x, positive.initial_state(50)).min() > 0
    assert memory(linear, x, linear.initial_state(50)).min() < 0
    g = sys.modules[type(positive).__module__].positive
    a = torch.tensor([-1e4, -1.0, -1e-9, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor([0, 1 / (1 + math.e), 0.5, 0.5, 2.5], dtype=torch.float64)
    torch.testing.assert_close(g(a), expected, rtol=0, atol=1e-8)
    g(a).sum().backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", ["t_rnn", "t_lstm"])
def test_strongly_typed_memory_is_an_average(name: str) -> None:
    """z is bounded here, so the memory stays between its least and its greatest value."""
    cell = build(name)
    with torch.no_grad():
        cell.weight[:H] = 0
        if name == "t_lstm":
            cell.bias[:H] = 0.5
    z = 0.5 if name == "t_lstm" else 0.0
    first, *rest = state_of(cell)
    c = memory(cell, inputs(T, B, I), (first, *rest))
    path = torch.cat([first.unsqueeze(0), c]) - z
    assert (path[1:].abs() < path[:-1].abs()).all()
    assert (path[1:] * path[:-1] > 0).all()


@pytest.mark.parametrize("name", ["t_gru", "t_lstm"])
def test_strongly_typed_gates_read_two_inputs(name: str) -> None:
    cell = build(name)
    with torch.no_grad():
        cell.weight[H : 2 * H], cell.bias[H : 2 * H] = 0.0, -1e4  # f = 0
    x, state = inputs(T, B, I), state_of(cell)
    before = cell(x, state, None)[0]
    for lag in range(4):
        other = x.clone()
        other[5 - lag] += 1
        change = (cell(other, state, None)[0][5] - before[5]).abs()
        assert (change.max() > 0) == (lag < 2)


def test_t_rnn_has_no_bias_on_its_candidate() -> None:
    cell = build("t_rnn")
    h, _ = cell(torch.zeros(T, B, I, dtype=torch.float64), cell.initial_state(B), None)
    assert (h == 0).all()


def kept_share(cell: Any, x: Tensor) -> Tensor:
    """1 - z of every unit, from how much of the state a step keeps."""
    zero, one = torch.zeros(len(x), H).double(), torch.ones(len(x), H).double()
    lone = x.unsqueeze(0)
    return (cell(lone, (one,), None)[0] - cell(lone, (zero,), None)[0])[0]


def test_qrn_gates() -> None:
    x = inputs(B, I)
    shared = kept_share(build("qrn", gate="scalar"), x)
    torch.testing.assert_close(shared, shared[:, :1].expand_as(shared), rtol=0, atol=1e-12)
    own = kept_share(build("qrn", gate="vector"), x)
    assert (own - own[:, :1]).abs()[:, 1:].min() > 0
    for gate in ("scalar", "vector"):
        cell = build("qrn", gate=gate, forget_bias=2.5)
        still = kept_share(cell, torch.zeros(1, I).double())
        expected = torch.full_like(still, 1 / (1 + math.exp(-2.5)))
        torch.testing.assert_close(still, expected, rtol=0, atol=1e-12)


def test_qrn_reset_gate_weakens_what_is_new() -> None:
    plain, reset = (build("qrn", gate="scalar", reset=reset) for reset in (False, True))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            theirs = dict(reset.named_parameters())[name]
            theirs[: len(parameter)] = parameter
        assert (reset.bias_gates[1:] == 0).all()
        reset.weight_gates[1:] = 0  # r = 1/2
    x = inputs(T, B, I)
    one, other = (memory(c, x, c.initial_state(B)) for c in (plain, reset))
    torch.testing.assert_close(other, one / 2, rtol=0, atol=1e-12)
