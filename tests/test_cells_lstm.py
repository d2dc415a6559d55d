"""What defines each variant of the LSTM, seen in its outputs and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class

T, B, I, H = 7, 3, 5, 6  # noqa: E741 - the axis letters of the contract
CELLS = find()["cell"]
OWN_LOOP = [
    ("lstm_variational", {}),
    ("lstm_variational", {"untied": True}),
    ("lstm_recurrent_dropout", {}),
    ("lstm_recurrent_dropout", {"per": "sequence"}),
    ("lstm_zoneout", {}),
]
WEIGHT_DROPPED = [("lstm_weightdrop", "lstm"), ("gru_weightdrop", "gru")]
ALMOST_ONE = 1 - 1e-9  # of the few hundred draws in a test none is kept


def make(name: str, size: int = H, **hparams: Any) -> Any:
    torch.manual_seed(1)
    return load_class(CELLS[name])(I, size, **hparams).double().train()


def noise(step: int = 0) -> SiteNoise:
    return WindowNoise(7, "train", step, torch.device("cpu"), torch.float64).at("layer0")


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def start(cell: nn.Module, columns: int = B) -> tuple[Tensor, ...]:
    """A state that is not zero, unlike in every column."""
    zeros = cell.initial_state(columns)  # type: ignore[operator]
    return tuple(normal(k + 1, *s.shape)[k].to(s) for k, s in enumerate(zeros))


@pytest.mark.parametrize(("name", "plain"), [*((n, "lstm") for n, _ in OWN_LOOP), *WEIGHT_DROPPED])
def test_initial_weights_are_those_of_the_plain_cell(name: str, plain: str) -> None:
    ours, theirs = make(name).state_dict(), make(plain).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("name", "hparams", "plain"),
    [
        ("lstm_variational", {"p": 0.0}, "lstm"),
        ("lstm_variational", {"p": 0.0, "untied": True}, "lstm"),
        ("lstm_recurrent_dropout", {"p": 0.0}, "lstm"),
        ("lstm_zoneout", {"zc": 0.0, "zh": 0.0}, "lstm"),
        ("lstm_weightdrop", {"wdrop": 0.0}, "lstm"),
        ("gru_weightdrop", {"wdrop": 0.0}, "gru"),
    ],
)
def test_at_rate_zero_it_is_the_plain_cell(name: str, hparams: Any, plain: str) -> None:
    cell, other = make(name, **hparams), make(plain)
    raw, state, *memory = cell(normal(T, B, I), start(cell), noise())
    expected, expected_state = other(normal(T, B, I), start(cell), None)
    torch.testing.assert_close(raw, expected)
    torch.testing.assert_close(state, expected_state)
    for m in memory:
        torch.testing.assert_close(m[-1], expected_state[1])


@pytest.mark.parametrize(("name", "hparams"), [*OWN_LOOP, ("lstm_weightdrop", {})])
def test_two_windows_draw_different_masks(name: str, hparams: Any) -> None:
    cell = make(name, **hparams)
    one, two = (cell(normal(T, B, I), start(cell), noise(step))[0] for step in (0, 1))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("name", "hparams", "message"),
    [
        ("lstm_variational", {"p": 1.0}, "p must be at least 0 and below 1, but is 1.0"),
        ("lstm_recurrent_dropout", {"p": -0.1}, "p must be at least 0 and below 1, but is -0.1"),
        ("lstm_zoneout", {"zc": 1.5}, "zc must be at least 0 and below 1, but is 1.5"),
        ("lstm_zoneout", {"zh": 1.0}, "zh must be at least 0 and below 1, but is 1.0"),
        ("lstm_weightdrop", {"wdrop": 1.0}, "wdrop must be at least 0 and below 1, but is 1.0"),
        ("gru_weightdrop", {"wdrop": -1.0}, "wdrop must be at least 0 and below 1, but is -1.0"),
    ],
)
def test_a_rate_out_of_range_is_an_error(name: str, hparams: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(name, **hparams)


@pytest.mark.parametrize("name", [*dict(OWN_LOOP), *dict(WEIGHT_DROPPED)])
def test_it_is_built_without_memory(name: str) -> None:
    with torch.device("meta"):
        cell = load_class(CELLS[name])(I, H)
    assert all(parameter.is_meta for parameter in cell.parameters())


# Zoneout.


def test_zoneout_near_one_keeps_the_state() -> None:
    cell = make("lstm_zoneout", zc=ALMOST_ONE, zh=ALMOST_ONE)
    h, c = start(cell)
    for source in (noise(), None):
        raw, _, memory = cell(normal(T, B, I), (h, c), source)
        torch.testing.assert_close(raw, h.expand_as(raw))
        torch.testing.assert_close(memory, c.expand_as(memory))


def test_zoneout_of_c_leaves_the_new_h_alone() -> None:
    """The first h is the plain LSTM's: it reads the new c, not the c that was kept."""
    cell, plain = make("lstm_zoneout", zc=ALMOST_ONE, zh=0.0), make("lstm")
    h, c = start(cell)
    raw, _, memory = cell(normal(T, B, I), (h, c), noise())
    torch.testing.assert_close(raw[0], plain(normal(T, B, I), (h, c), None)[0][0])
    torch.testing.assert_close(memory, c.expand_as(memory))


def test_zoneout_of_h_leaves_c_alone() -> None:
    cell, plain = make("lstm_zoneout", zc=0.0, zh=ALMOST_ONE), make("lstm")
    h, c = start(cell)
    raw, _, memory = cell(normal(1, B, I), (h, c), noise())
    torch.testing.assert_close(memory[0], plain(normal(1, B, I), (h, c), None)[1][1])
    torch.testing.assert_close(raw[0], h)


def test_zoneout_in_evaluation_is_the_expectation() -> None:
    cell, plain = make("lstm_zoneout", zc=0.4, zh=0.3).eval(), make("lstm")
    h, c = start(cell)
    raw, _, memory = cell(normal(1, B, I), (h, c), None)
    _, (new_h, new_c) = plain(normal(1, B, I), (h, c), None)
    torch.testing.assert_close(memory[0], 0.4 * c + 0.6 * new_c)
    torch.testing.assert_close(raw[0], 0.3 * h + 0.7 * new_h)


def test_zoneout_draws_for_each_step_and_for_c_and_h_by_themselves() -> None:
    cell = make("lstm_zoneout", zc=0.4, zh=0.3)
    h, c = start(cell, 1000)
    raw, _, memory = cell(normal(3, 1000, I), (h, c), noise())
    c_kept = (memory == torch.cat([c[None], memory[:-1]])).double()
    h_kept = (raw == torch.cat([h[None], raw[:-1]])).double()
    shares = [c_kept.mean((1, 2)), h_kept.mean((1, 2)), (c_kept * h_kept).mean((1, 2))]
    for share, expected in zip(shares, (0.4, 0.3, 0.12), strict=True):
        # 0.03 is four standard deviations of a share of 6,000 draws.
        assert (share - expected).abs().max() < 0.03
    for kept, z in ((c_kept, 0.4), (h_kept, 0.3)):
        assert abs((kept[0] * kept[1]).mean() - z * z) < 0.03


# Variational dropout. A probe: with recurrent weights into one gate alone, the unit matrix, that
# gate's input is m * h_{t-1}, and can be told from the outputs.


def variational_masks(cell: Any, columns: int = B, step: int = 0) -> Tensor:
    """Returns the masks [4,T,B,H] that gates i, f, g, o saw."""
    h, c = start(cell, columns)
    w_ih, w_hh, b_ih, b_hh = cell.parameters()
    seen = []
    for k in range(4):
        with torch.no_grad():
            for parameter in (w_ih, w_hh, b_ih, b_hh):
                parameter.zero_()
            w_hh[k * H : (k + 1) * H] = torch.eye(H)
            b_ih[2 * H : 3 * H] = 0.5
            raw, _, memory = cell(torch.zeros(T, columns, I).double(), (h, c), noise(step))
        h_before, c_before = torch.cat([h[None], raw[:-1]]), torch.cat([c[None], memory[:-1]])
        half, g = 0.5, torch.tensor(0.5).double().tanh()  # the gates that see nothing
        if k == 0:
            pre = ((memory - half * c_before) / g).logit()
        elif k == 1:
            pre = ((memory - half * g) / c_before).logit()
        elif k == 2:
            pre = ((memory - half * c_before) / half).atanh() - 0.5
        else:
            pre = (raw / memory.tanh()).logit()
        seen.append(pre / h_before)
    return torch.stack(seen)


@pytest.mark.parametrize("untied", [False, True])
def test_variational_masks(untied: bool) -> None:
    masks = variational_masks(make("lstm_variational", p=0.4, untied=untied), columns=40)
    kept = masks > 0.5
    torch.testing.assert_close(masks, kept.double() / 0.6, atol=1e-6, rtol=0)
    assert (kept == kept[:, :1]).all(), "constant in time"
    assert len(kept[0, 0].unique(dim=0)) > 20, "its own for each column"
    for k in (1, 2, 3):
        assert torch.equal(kept[0], kept[k]) != untied


@pytest.mark.parametrize("untied", [False, True])
def test_variational_masks_have_mean_one(untied: bool) -> None:
    masks = variational_masks(make("lstm_variational", p=0.4, untied=untied), columns=600)
    torch.testing.assert_close(masks[:, 0].mean((1, 2)), torch.ones(4).double(), atol=0.05, rtol=0)


# Recurrent dropout. With no weights all gates are known, and the mask can be told from c.


def candidate_masks(cell: Any, columns: int) -> Tensor:
    """Returns the masks [T,B,H] on the candidate."""
    h, c = start(cell, columns)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.rnn.bias_ih_l0[2 * H : 3 * H] = 0.5
        _, _, memory = cell(torch.zeros(T, columns, I).double(), (h, c), noise())
    candidate = 0.5 * torch.tensor(0.5).double().tanh()
    masks: Tensor = (memory - 0.5 * torch.cat([c[None], memory[:-1]])) / candidate
    return masks


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_recurrent_dropout_masks(per: str) -> None:
    masks = candidate_masks(make("lstm_recurrent_dropout", p=0.4, per=per), columns=600)
    kept = masks > 0.5
    torch.testing.assert_close(masks, kept.double() / 0.6, atol=1e-6, rtol=0)
    torch.testing.assert_close(masks.mean((1, 2)), torch.ones(T).double(), atol=0.05, rtol=0)
    assert len(kept[0].unique(dim=0)) > 20, "its own for each column"
    both = (kept[0] & kept[1]).double().mean().item()
    assert both == pytest.approx(0.6 if per == "sequence" else 0.36, abs=0.05)
    assert torch.equal(kept, kept[:1].expand_as(kept)) == (per == "sequence")


def test_recurrent_dropout_never_erases_the_memory() -> None:
    """With every candidate dropped, c is still forgotten by the gate alone."""
    cell = make("lstm_recurrent_dropout", p=ALMOST_ONE)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    h, c = start(cell)
    _, _, memory = cell(normal(T, B, I), (h, c), noise())
    halves = 0.5 ** torch.arange(1, T + 1).double().view(T, 1, 1)
    torch.testing.assert_close(memory, c * halves)


# Weight drop.


@pytest.mark.parametrize(("name", "plain"), WEIGHT_DROPPED)
def test_weight_drop_starts_with_the_second_step(name: str, plain: str) -> None:
    cell, other = make(name), make(plain)
    zeros = cell.initial_state(B)
    ours = cell(normal(T, B, I), zeros, noise())[0]
    theirs = other(normal(T, B, I), zeros, None)[0]
    torch.testing.assert_close(ours[0], theirs[0])
    assert ((ours - theirs)[1].abs() > 1e-6).all()


@pytest.mark.parametrize(("name", "plain"), WEIGHT_DROPPED)
def test_weight_drop_is_one_mask_for_all_steps_and_columns(name: str, plain: str) -> None:
    """A weight gets a gradient if, and only if, its mask keeps it; others would at some step."""
    cell = make(name, size=40, wdrop=0.4)
    before = [p.detach().clone() for p in cell.parameters()]
    cell(normal(T, B, I), start(cell), noise())[0].square().sum().backward()
    after = list(cell.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    dropped = cell.rnn.weight_hh_l0.grad == 0
    assert dropped.double().mean().item() == pytest.approx(0.4, abs=0.04)
    assert len(dropped.unique(dim=0)) == len(dropped), "its own for each weight"
    assert all((p.grad != 0).all() for p in (cell.rnn.weight_ih_l0, cell.rnn.bias_hh_l0))


def test_weight_drop_keeps_the_expected_product() -> None:
    """Over many windows the input of the output gate, W h, has the plain cell's mean."""
    cell = make("lstm_weightdrop", wdrop=0.4)
    h, c = start(cell)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter[: 3 * H] = 0
        seen = []
        for step in range(300):
            _, (new_h, new_c) = cell(torch.zeros(1, B, I).double(), (h, c), noise(step))
            seen.append((new_h / new_c.tanh()).logit())
        _, (plain_h, plain_c) = cell(torch.zeros(1, B, I).double(), (h, c), None)
    seen_all, expected = torch.stack(seen), (plain_h / plain_c.tanh()).logit()
    error = (seen_all.mean(0) - expected).abs()
    assert (error < 4.5 * seen_all.std(0) / 300**0.5).all()
