"""What makes a GRU variational or zoned out, and that its written-out gradient is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class
from tests.parts import part

CELLS = find()["cell"]
gru = part("_gru", "gru_zoneout").gru
T, B, I, H = 7, 5, 4, 6  # noqa: E741


def make(name: str, size_in: int = I, size: int = H, **hparams: Any) -> Any:
    torch.manual_seed(3)
    return load_class(CELLS[name])(size_in, size, **hparams).double()


def noise(step: int = 0) -> SiteNoise:
    return WindowNoise(7, "train", step, torch.device("cpu"), torch.float64).at("layer0")


def values(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def set_gate(cell: Any, gate: str, bias: float, recurrent: float) -> None:
    """Makes one gate see only its bias and its own unit's h_{t-1} times `recurrent`."""
    size = cell.rnn.hidden_size
    rows = slice("rzn".index(gate) * size, ("rzn".index(gate) + 1) * size)
    with torch.no_grad():
        cell.rnn.weight_ih_l0[rows] = 0
        cell.rnn.bias_ih_l0[rows] = 0
        cell.rnn.bias_hh_l0[rows] = bias
        cell.rnn.weight_hh_l0[rows] = recurrent * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("name", ["gru_variational", "gru_zoneout"])
def test_initial_weights_are_grus(name: str) -> None:
    ours, theirs = make(name).state_dict(), make("gru").state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("name", "hparams", "noisy"),
    [
        ("gru_variational", {"p": 0.0}, True),
        ("gru_variational", {"p": 0.0, "untied": True}, True),
        ("gru_variational", {"p": 0.5}, False),
        ("gru_variational", {"p": 0.5, "untied": True}, False),
        ("gru_zoneout", {"zh": 0.0}, True),
        ("gru_zoneout", {"zh": 0.0}, False),
    ],
)
def test_without_its_noise_it_is_a_gru(name: str, hparams: dict[str, Any], noisy: bool) -> None:
    ours, theirs = make(name, **hparams), make("gru")
    theirs.load_state_dict(ours.state_dict())
    outcomes = []
    for cell in (ours, theirs):
        x, h = values(T, B, I).requires_grad_(), values(B, H, seed=2).requires_grad_()
        raw, (last,) = cell(x, (h,), noise() if noisy else None)
        loss = (raw * values(T, B, H, seed=3)).sum() + last.square().sum()
        outcomes.append([raw, last, *torch.autograd.grad(loss, [x, h, *cell.parameters()])])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def dropped(cell: Any, gate: str, step: int = 0) -> Tensor:
    """Returns which of h's units [B,H] a mask hides from one gate, read off the cell's outputs."""
    # r = 1, z = 0 and n = 0, but for the gate in question, which h_{t-1} = 1 moves if it is seen.
    set_gate(cell, "r", 0 if gate == "r" else 50, 3 if gate == "r" else 0)
    set_gate(cell, "z", 0 if gate == "z" else -50, 3 if gate == "z" else 0)
    set_gate(cell, "n", 1 if gate == "r" else 0, 3 if gate == "n" else 0)
    h = torch.ones(B, H, dtype=torch.float64)
    raw, _ = cell(torch.zeros(1, B, I, dtype=torch.float64), (h,), noise(step))
    hidden = {"r": torch.tanh(torch.tensor(0.5)), "z": torch.tensor(0.5), "n": torch.tensor(0.0)}
    return torch.isclose(raw[0], hidden[gate].double(), atol=1e-6)


def test_masks_are_shared_by_the_gates_unless_untied() -> None:
    tied, untied = make("gru_variational", p=0.5), make("gru_variational", p=0.5, untied=True)
    r, z, n = (dropped(tied, gate) for gate in "rzn")
    assert 0 < r.sum() < B * H
    assert torch.equal(r, z) and torch.equal(r, n)
    r, z, n = (dropped(untied, gate) for gate in "rzn")
    assert all(0 < hidden.sum() < B * H for hidden in (r, z, n))
    assert not torch.equal(r, z) and not torch.equal(r, n) and not torch.equal(z, n)


@pytest.mark.parametrize("untied", [False, True])
def test_a_mask_lasts_one_window_and_differs_between_columns(untied: bool) -> None:
    cell = make("gru_variational", p=0.5, untied=untied)
    first, second = dropped(cell, "n", step=0), dropped(cell, "n", step=1)
    assert not torch.equal(first, second)
    assert any(not torch.equal(first[0], column) for column in first[1:])
    # The cell still has n = tanh(3 h'): who is seen lives on in all steps, who is hidden never.
    h = torch.ones(B, H, dtype=torch.float64)
    raw, _ = cell(torch.zeros(T, B, I, dtype=torch.float64), (h,), noise(0))
    for step in raw:
        assert torch.equal(step.abs() < 1e-9, first)


@pytest.mark.parametrize("untied", [False, True])
def test_the_carry_is_not_masked(untied: bool) -> None:
    cell = make("gru_variational", p=0.9, untied=untied)
    set_gate(cell, "z", 50, 0)
    h = values(B, H)
    raw, _ = cell(values(T, B, I, seed=2), (h,), noise())
    torch.testing.assert_close(raw, h.expand(T, B, H), rtol=0, atol=1e-12)


@pytest.mark.parametrize("untied", [False, True])
def test_masks_preserve_the_expectation(untied: bool) -> None:
    columns, weight, p = 4000, 0.1, 0.3
    cell = make("gru_variational", p=p, untied=untied)
    set_gate(cell, "r", 50, 0)
    set_gate(cell, "z", -50, 0)
    set_gate(cell, "n", 0, weight)
    h = torch.ones(columns, H, dtype=torch.float64)
    raw, _ = cell(torch.zeros(1, columns, I, dtype=torch.float64), (h,), noise())
    error = weight * (p / (1 - p) / (columns * H)) ** 0.5
    assert abs(torch.atanh(raw).mean().item() - weight) < 5 * error


def test_zoneout_keeps_a_unit_or_takes_the_whole_step() -> None:
    columns, zh = 200, 0.3
    cell, plain = make("gru_zoneout", zh=zh), make("gru")
    h, x = values(columns, H), values(T, columns, I, seed=2)
    raw, _ = cell(x, (h,), noise())
    before = torch.cat([h[None], raw[:-1]])
    moved = torch.stack([plain(x[t : t + 1], (before[t],), None)[0][0] for t in range(T)])
    kept = raw == before
    torch.testing.assert_close(raw[~kept], moved[~kept], rtol=0, atol=1e-12)
    for axis in range(3):  # another draw for each step, column and unit
        first, *_, last = kept.unbind(axis)
        assert not torch.equal(first, last)
    error = (zh * (1 - zh) / kept.numel()) ** 0.5
    assert abs(kept.double().mean().item() - zh) < 5 * error


def test_zoneout_evaluates_with_its_expectation() -> None:
    columns, zh = 20_000, 0.3
    cell, plain = make("gru_zoneout", zh=zh), make("gru")
    x, h = values(T, B, I), values(B, H, seed=2)
    raw, (last,) = cell(x, (h,), None)
    for t in range(T):
        moved, _ = plain(x[t : t + 1], (h,), None)
        h = zh * h + (1 - zh) * moved[0]
        torch.testing.assert_close(raw[t], h, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, h, rtol=0, atol=1e-12)

    x, h = values(1, 1, I).expand(1, columns, I), values(1, H, seed=2).expand(columns, H)
    noisy, expected = cell(x, (h,), noise())[0][0], cell(x, (h,), None)[0][0]
    error = noisy.std(0) / columns**0.5
    assert torch.all((noisy.mean(0) - expected.mean(0)).abs() < 5 * error)


@pytest.mark.parametrize(
    "spellings",
    [
        [("lstm_variational", {"p": 0.4}), ("gru_variational", {"p": 0.4}),
         ("rnn_variational", {"p": 0.4})],
        [("lstm_zoneout", {"zc": 0.0, "zh": 0.4}), ("gru_zoneout", {"zh": 0.4})],
        [("lstm_zoneout", {"zc": 0.4, "zh": 0.0}), ("qrnn", {"zoneout": 0.4})],
    ],
)  # fmt: skip
def test_equal_noise_has_equal_names(spellings: list[tuple[str, dict[str, Any]]]) -> None:
    """So that the cells, trained in one repetition, share its draws."""
    asked = []

    class Listening:
        def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
            asked.append((name, shape, p))
            return noise().mask(name, shape, p)

    for name, hparams in spellings:
        cell = make(name, **hparams)
        cell(values(T, B, I), cell.initial_state(B), Listening())
    assert len(asked) == len(spellings) and len(set(asked)) == 1, asked


def some(mask: str, new: str) -> dict[str, Any]:
    """Returns the arguments of one mode of `gru`."""
    masks = {"none": None, "tied": (2, 4), "untied": (3, 2, 4)}
    shape = masks[mask]
    chosen: dict[str, Any] = {"mask": None, "new": None}
    if shape is not None:
        chosen["mask"] = (values(*shape, seed=4) > 0).double() * 2
    if new == "drawn":
        chosen["new"] = (values(3, 2, 4, seed=5) > 0).double()
    elif new == "expected":
        chosen["new"] = torch.tensor(0.7).double().expand(3, 2, 4)
    return chosen


@pytest.mark.parametrize("mask", ["none", "tied", "untied"])
@pytest.mark.parametrize("new", ["all", "drawn", "expected"])
def test_gradients_of_the_loop(mask: str, new: str) -> None:
    inputs = [values(3, 2, 12), values(2, 4), values(12, 4), values(12)]  # T, B, H = 3, 2, 4
    mode = some(mask, new)
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: gru(*given, **mode), inputs)
    # A state that needs no gradient (the usual case in training) changes no other gradient.
    weight = values(3, 2, 4, seed=6)
    whole = torch.autograd.grad((gru(*inputs, **mode) * weight).sum(), inputs)
    inputs[1] = inputs[1].detach()
    rest = torch.autograd.grad(
        (gru(*inputs, **mode) * weight).sum(), [inputs[0], inputs[2], inputs[3]]
    )
    for one, other in zip((whole[0], whole[2], whole[3]), rest, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "hparams", "message"),
    [
        ("gru_variational", {"p": 1.0}, "p must be at least 0 and below 1, but is 1.0"),
        ("gru_variational", {"p": -0.1}, "p must be at least 0 and below 1, but is -0.1"),
        ("gru_zoneout", {"zh": 1.0}, "zh must be at least 0 and below 1, but is 1.0"),
        ("gru_zoneout", {"zh": float("nan")}, "zh must be at least 0 and below 1, but is nan"),
    ],
)
def test_bad_rates(name: str, hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(name, **hparams)


@pytest.mark.parametrize("name", ["gru_variational", "gru_zoneout"])
def test_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        cell = load_class(CELLS[name])(I, H)
    assert all(parameter.is_meta for parameter in cell.parameters())
