"""What makes a recurrent highway network, and what makes the NAS cell."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class
from tests.oracles import ORACLES
from tests.parts import part

CELLS = find()["cell"]
Highway, Tree = part("_rhn", "rhn").Highway, part("_nas", "nas").Tree
T, B, I, H = 5, 3, 4, 6  # noqa: E741


def make(name: str, **hparams: Any) -> Any:
    torch.manual_seed(1)
    return load_class(CELLS[name])(I, H, **hparams).double()


def noise() -> SiteNoise:
    return WindowNoise(7, "train", 3, torch.device("cpu"), torch.float64).at("layer0")


def random(*shape: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class OneMask:
    """Gives the same mask to every question, and notes the questions."""

    def __init__(self, mask: Tensor) -> None:
        self.given, self.asked = mask, list[tuple[tuple[int, ...], float]]()

    def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
        self.asked.append((shape, p))
        return self.given.expand(shape)


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("noisy", [True, False])
def test_rhn_of_any_depth_equals_its_loop(depth: int, noisy: bool) -> None:
    cell = make("rhn", depth=depth)
    x, s = random(T, B, I).requires_grad_(), random(B, H, seed=3).requires_grad_()
    grads = []
    for forward in (cell, lambda *args: ORACLES["rhn"](cell, *args)):
        raw = forward(x, (s,), noise() if noisy else None)[0]
        loss = (raw * random(T, B, H, seed=4)).sum()
        grads.append([raw, *torch.autograd.grad(loss, [x, s, *cell.parameters()])])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_rhn_asks_for_one_mask_a_window_and_column() -> None:
    asked = OneMask(torch.ones(H, dtype=torch.float64))
    cell = make("rhn", p=0.4)
    cell(random(T, B, I), cell.initial_state(B), asked)
    assert asked.asked == [((B, H), 0.4)]
    means = [cell(random(T, B, I), (random(B, H),), given)[0] for given in (asked, None)]
    assert torch.equal(*means)  # without noise the mask is its mean, 1
    silent = OneMask(torch.ones(H, dtype=torch.float64))
    cell = make("rhn", p=0)
    cell(random(T, B, I), cell.initial_state(B), silent)
    assert silent.asked == []


def test_rhn_drops_a_unit_at_every_step_and_in_every_micro_layer() -> None:
    cell = make("rhn", depth=4)
    mask = torch.ones(H, dtype=torch.float64)
    mask[1] = 0
    raw, _ = cell(random(T, B, I), (random(B, H),), OneMask(mask))
    raw.square().sum().backward()
    assert not cell.w.grad[:, :, 1].any()
    assert cell.w.grad.abs().amax((0, 1)).count_nonzero() == H - 1
    assert cell.w.grad.abs().amax((1, 2)).count_nonzero() == 4


def test_rhn_never_drops_what_it_carries() -> None:
    cell = make("rhn")
    nothing = OneMask(torch.zeros(H, dtype=torch.float64))
    x, s = random(T, B, I), random(B, H)
    before, _ = cell(x, (s,), nothing)
    with torch.no_grad():
        cell.w += 1
    after, _ = cell(x, (s,), nothing)
    torch.testing.assert_close(before, after, rtol=0, atol=0)  # no product sees a state
    assert not torch.allclose(before, cell(x, (s + 1,), nothing)[0])  # the carry does


def test_rhn_with_closed_gates_passes_its_state_unchanged() -> None:
    cell = make("rhn")
    with torch.no_grad():
        cell.b[:, H:] = -1e4
    s = random(B, H).requires_grad_()
    raw, (end,) = cell(random(T, B, I), (s,), noise())
    assert torch.equal(raw, s.detach().expand(T, B, H))
    (grad,) = torch.autograd.grad(end.sum(), s)
    assert torch.equal(grad, torch.ones_like(s))


def test_rhn_reads_its_input_in_the_first_micro_layer_only() -> None:
    cell = make("rhn", depth=3)
    with torch.no_grad():
        cell.b[0, H:] = -1e4
    one, _ = cell(random(T, B, I), (random(B, H),), None)
    two, _ = cell(random(T, B, I, seed=5), (random(B, H),), None)
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])  # the other micro-layers do work


@pytest.mark.parametrize("depth", [1, 8])
def test_rhn_begins_with_the_transform_gate_nearly_closed(depth: int) -> None:
    assert (make("rhn", depth=depth).b[:, H:] == -2).all()
    aware = make("rhn", depth=depth, depth_aware=True).b[:, H:]
    torch.testing.assert_close(aware, torch.full_like(aware, -2 - math.log(depth)))
    carried = (1 - torch.sigmoid(aware)).prod(0)  # of the state, by a whole step
    torch.testing.assert_close(
        carried, torch.full_like(carried, 1 / (1 + math.exp(-2))), rtol=0, atol=0.01
    )
    assert not make("rhn", depth=depth).b[:, :H].any()


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_rhn_gradient(depth: int, masked: bool) -> None:
    inputs = [random(3, 2, 6), random(2, 3), random(depth, 6, 3), random(depth - 1, 6)]
    mask = 2.0 * (random(2, 3, seed=9) > 0) if masked else None
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: Highway.apply(*args, mask), tuple(inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_nas_gradient(bias: bool) -> None:
    inputs = [random(3, 2, 24), random(2, 3), random(2, 3, seed=3), random(24, 3), random(24)]
    for tensor in inputs:
        tensor.requires_grad_()
    if bias:
        assert torch.autograd.gradcheck(Tree.apply, tuple(inputs))
    else:
        assert torch.autograd.gradcheck(lambda *args: Tree.apply(*args, None), tuple(inputs[:4]))


@pytest.mark.parametrize("output", [0, 1])
def test_nas_gradient_of_one_output_alone(output: int) -> None:
    # Autograd then hands None for the other one to the backward pass.
    inputs = [random(3, 2, 24), random(2, 3), random(2, 3, seed=3), random(24, 3), random(24)]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: Tree.apply(*args)[output], tuple(inputs))


@pytest.mark.parametrize("hidden_size", [30, 300])
@pytest.mark.parametrize(
    ("name", "hparams", "share"),
    [
        ("nas", {}, 1),
        ("rhn", {}, 1 / 3),
        ("rhn", {"depth": 10}, 1 / 3),
        ("rhn", {"depth": 1, "transform_bias": 0}, 1 / 3),
    ],
)
def test_a_layer_passes_small_inputs_on(
    name: str, hparams: dict[str, Any], share: float, hidden_size: int
) -> None:
    """Of the input's mean square a step begins with all or, like a plain tanh RNN, a third."""
    torch.manual_seed(1)
    cell = load_class(CELLS[name])(hidden_size, hidden_size, **hparams).double()
    x = 1e-3 * random(1, 50, hidden_size)
    raw = cell(x, cell.initial_state(50), None)[0]
    assert 0.85 < raw.square().mean() / x.square().mean() / share < 1.15


def test_nas_multiplies_in_one_block() -> None:
    """Without a recurrent part to multiply, the input of block 6 does nothing."""
    cell = make("nas")
    x = random(2, B, I)
    before, _, _ = cell(x, cell.initial_state(B), None)
    with torch.no_grad():
        cell.w_ih[6 * H : 7 * H] += 1
    after, _, _ = cell(x, cell.initial_state(B), None)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_nas_bias_is_on_the_recurrent_part() -> None:
    cell = make("nas", bias=True)
    x = random(1, B, I)
    outputs = []
    for shift in (0.0, 1.0):
        with torch.no_grad():
            cell.b[6 * H : 7 * H] = 1  # block 6 then sees its input even where m is 0
            cell.w_ih[6 * H : 7 * H] += shift
        outputs.append(cell(x, cell.initial_state(B), None)[0])
    assert not torch.equal(*outputs)
    assert "b" not in dict(make("nas").named_parameters())


def test_nas_memory_is_its_state() -> None:
    cell = make("nas")
    raw, (c, m), memory = cell(random(T, B, I), cell.initial_state(B), None)
    assert torch.equal(memory[-1], c)
    assert torch.equal(raw[-1], m)
    assert not torch.equal(c, m)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, but is 0"),
        ({"p": 1.5}, "p must be at least 0 and below 1, but is 1.5"),
        ({"p": -0.1}, "p must be at least 0 and below 1, but is -0.1"),
    ],
)
def test_rhn_refuses(hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make("rhn", **hparams)


@pytest.mark.parametrize("name", ["rhn", "nas"])
def test_builds_without_memory(name: str) -> None:
    with torch.device("meta"):
        cell = load_class(CELLS[name])(I, H)
    assert all(p.is_meta for p in cell.parameters())


@pytest.mark.parametrize(
    "hparams", [{"depth": 60}, {"transform_bias": 80.0}, {"transform_bias": -80.0}]
)
def test_rhn_starts_with_sane_weights_whatever_it_passes(hparams: dict[str, Any]) -> None:
    cell = make("rhn", **hparams).float()
    assert 0 < float(cell.w_ih.detach().abs().max()) <= 100 * H**-0.5
