"""What normalisation promises: of layer norm in lstm and gru, and of batch norm in lstm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.config import expand, load_grid, override
from bench.plugins import find, load_class
from tests.oracles import ORACLES
from tests.parts import part

_norm = part("_norm", "lstm_batchnorm")
OVER_BATCH, OVER_UNITS, BatchNormSteps = _norm.OVER_BATCH, _norm.OVER_UNITS, _norm.BatchNormSteps
NormLSTM = part("_norm_lstm", "lstm_batchnorm").NormLSTM
LayerNormGRU = part("gru_layernorm", "gru_layernorm").LayerNormGRU

T, B, I, H = 5, 4, 6, 8  # noqa: E741
LAYER_NORM = ["lstm_layernorm", "gru_layernorm"]
NORMALISED = [*LAYER_NORM, "lstm_batchnorm"]


def build(name: str, **hparams: Any) -> Any:
    torch.manual_seed(1)
    return load_class(find()["cell"][name])(I, H, **hparams).double()


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state_of(cell: Any, columns: int = B) -> tuple[Tensor, ...]:
    """A state that is not zero."""
    sizes = enumerate(cell.initial_state(columns))
    return tuple(normal(*s.shape, seed=10 + k).to(s.dtype) for k, s in sizes)


def raw_of(cell: Any, x: Tensor, state: tuple[Tensor, ...] | None = None) -> Tensor:
    raw: Tensor = cell(x, state or state_of(cell, x.shape[1]), None)[0]
    return raw.detach()


def scale(cell: Any, name: str, factor: float, rows: slice = slice(None)) -> None:
    with torch.no_grad():
        getattr(cell, name)[rows] *= factor


@pytest.mark.parametrize("weight", ["w_ih", "w_hh"])
@pytest.mark.parametrize("name", LAYER_NORM)
def test_layer_norm_does_not_see_the_scale_of_a_weight(name: str, weight: str) -> None:
    cell, x = build(name), normal(T, B, I)
    before = raw_of(cell, x)
    scale(cell, weight, 1e3)  # from here on the 1e-5 beside the variance is nothing
    large = raw_of(cell, x)
    scale(cell, weight, 3)
    torch.testing.assert_close(raw_of(cell, x), large, rtol=0, atol=1e-9)
    torch.testing.assert_close(before, large, rtol=0, atol=1e-2)
    scale(cell, weight.replace("w", "gain"), 3)  # the gain is what sets the scale
    assert (raw_of(cell, x) - large).abs().max() > 0.1


def test_layer_norm_takes_together_what_the_paper_takes_together() -> None:
    """One gate's rows change the others' share of the variance, if they are normalised with it."""
    x = normal(T, B, I)
    for name, rows, changes in [
        ("lstm_layernorm", slice(0, H), True),  # i, with f, g and o
        ("gru_layernorm", slice(0, H), True),  # r, with z
        ("gru_layernorm", slice(0, 2 * H), False),  # r and z, without n
        ("gru_layernorm", slice(2 * H, None), False),  # n alone
    ]:
        cell = build(name)
        scale(cell, "w_hh", 1e3)
        before = raw_of(cell, x)
        scale(cell, "w_hh", 3, rows)
        gap = float((raw_of(cell, x) - before).abs().max())
        assert gap > 0.01 if changes else gap < 1e-9, (name, rows)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYER_NORM)
def test_layer_norm_of_a_column_is_its_own(name: str, training: bool) -> None:
    cell, x = build(name).train(training), normal(T, B, I)
    state = state_of(cell)
    alone = raw_of(cell, x[:, 2:3], tuple(s[2:3] for s in state))
    torch.testing.assert_close(raw_of(cell, x, state)[:, 2:3], alone, rtol=0, atol=1e-12)


def test_initial_values() -> None:
    for name in LAYER_NORM:
        for key, p in build(name).named_parameters():
            if not key.startswith("w_"):
                assert (p == (1 if key.startswith("gain") else 0)).all(), f"{name}.{key}"
    cell = build("lstm_batchnorm")
    for gain in (cell.gain_ih, cell.gain_hh, cell.gain_c):
        torch.testing.assert_close(gain.detach(), torch.full_like(gain, 0.1), atol=1e-7, rtol=0)
    for biased, value in [(build("lstm_layernorm", forget_bias=2.0), 2), (cell, 1)]:
        wanted = torch.tensor([0, value, 0, 0]).repeat_interleave(H)
        assert torch.equal(biased.bias.detach(), wanted.double())
    for name in NORMALISED:
        cell = build(name)
        for weight in (cell.w_ih, cell.w_hh):
            assert 0.9 * H**-0.5 < weight.abs().max() <= H**-0.5


@pytest.mark.parametrize(
    ("name", "hparams", "says"),
    [
        ("lstm_batchnorm", {"gain": 0.0}, "gain must be above 0, but is 0.0"),
        ("lstm_batchnorm", {"gain": -0.1}, "gain must be above 0, but is -0.1"),
        ("lstm_batchnorm", {"gain": float("nan")}, "gain must be finite, but is nan"),
        ("lstm_batchnorm", {"forget_bias": float("inf")}, "forget_bias must be finite, but is inf"),
        ("lstm_layernorm", {"forget_bias": float("nan")}, "forget_bias must be finite, but is nan"),
    ],
)
def test_bad_hyper_parameters(name: str, hparams: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}$"):
        build(name, **hparams)


@pytest.mark.parametrize("name", NORMALISED)
def test_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        cell = load_class(find()["cell"][name])(I, H)
    tensors = [*cell.parameters(), *cell.buffers()]
    assert tensors and all(t.is_meta for t in tensors)


def running(cell: Any) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in cell.named_buffers()}


def trained(columns: int = B, windows: int = 5) -> Any:
    """A batch norm whose running averages are no longer 0 and 1."""
    cell = build("lstm_batchnorm").train()
    for k in range(windows):
        cell(3 + normal(T, columns, I, seed=k), state_of(cell, columns), None)
    return cell


def test_running_averages_are_weights_that_move_in_training_only() -> None:
    cell, x = build("lstm_batchnorm"), normal(T, B, I)
    assert not any(b.requires_grad for b in cell.buffers())
    assert set(running(cell)) <= set(cell.state_dict())
    before = running(cell)
    raw_of(cell.eval(), x)
    assert all(torch.equal(before[k], b) for k, b in cell.named_buffers())
    raw_of(cell.train(), x)
    assert not any(torch.equal(before[k], b) for k, b in cell.named_buffers())
    once = running(cell)
    cell.load_state_dict({**cell.state_dict(), **before})
    raw_of(cell, x)
    assert all(torch.equal(once[k], b) for k, b in cell.named_buffers())


def test_running_averages_by_hand() -> None:
    cell, x = build("lstm_batchnorm").train(), normal(T, B, I)
    h, c = state_of(cell)
    raw, _, memory = cell(x, (h, c), None)
    inputs = {
        "ih": x @ cell.w_ih.T,
        "hh": torch.cat([h[None], raw[:-1]]) @ cell.w_hh.T,
        "c": memory,
    }
    for name, values in inputs.items():
        flat = values.detach().flatten(0, 1)
        mean = flat.sum(0) / (T * B)
        var = ((flat - mean) ** 2).sum(0) / (T * B)
        moved = running(cell)
        torch.testing.assert_close(moved[f"mean_{name}"], 0.1 * mean)
        torch.testing.assert_close(moved[f"var_{name}"], 0.9 + 0.1 * var)


def test_running_averages_converge_even_with_two_columns() -> None:
    """Averaged over steps, the biased variance of two columns would be half of the true one."""
    cell = build("lstm_batchnorm").train()
    deviation = torch.linspace(0.5, 2, I, dtype=torch.float64)
    state = cell.initial_state(2)
    for k in range(80):
        _, state, _ = cell(1 + deviation * normal(100, 2, I, seed=k), state, None)
        state = tuple(s.detach() for s in state)
    w = cell.w_ih.detach()
    torch.testing.assert_close(cell.mean_ih, w.sum(1), rtol=0, atol=0.1)
    torch.testing.assert_close(cell.var_ih, (w * deviation).square().sum(1), rtol=0.15, atol=0)


def test_with_many_columns_evaluation_is_as_training() -> None:
    cell, state = build("lstm_batchnorm", gain=0.5), None
    for k in range(80):  # the averages begin far off: 0.9^80 of the way remains
        state = state or cell.initial_state(500)
        x = normal(T, 500, I, seed=k)
        start, (_, state, _) = state, cell.train()(x, state, None)
        state = tuple(s.detach() for s in state)
    in_training, in_evaluation = raw_of(cell, x, start), raw_of(cell.eval(), x, start)
    gap = (in_training - in_evaluation).abs().mean() / in_training.std()
    assert gap < 0.06


def test_evaluation_after_training_equals_the_loop() -> None:
    """With running averages that are not 0 and 1, and while training goes on before backward."""
    cell, state, gradients = trained().eval(), state_of(trained()), []
    for forward in (lambda x: ORACLES["lstm_batchnorm"](cell, x, state, None)[0],
                    lambda x: cell(x, state, None)[0]):  # fmt: skip
        x = normal(T, B, I).requires_grad_()
        raw = forward(x)
        before = running(cell)
        raw_of(cell.train(), normal(T, B, I))
        grads = torch.autograd.grad(raw.square().sum(), [x, *cell.parameters()])
        cell.eval().load_state_dict({**cell.state_dict(), **before})
        gradients.append([raw, *grads])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_columns_meet_in_training_only() -> None:
    cell, x = trained(), normal(T, B, I)
    assert type(cell).mixes_batch
    state, other = state_of(cell), normal(T, B, I)
    other[:, 1] += 1
    ours = [column for column in range(B) if column != 1]
    for training in (True, False):
        cell.train(training)
        gap = (raw_of(cell, x, state) - raw_of(cell, other, state))[:, ours].abs().max()
        assert gap > 1e-3 if training else gap == 0
    alone = raw_of(cell, x[:, 2:3], tuple(s[2:3] for s in state))
    torch.testing.assert_close(raw_of(cell, x, state)[:, 2:3], alone, rtol=0, atol=1e-12)


def test_training_does_not_see_later_inputs() -> None:
    cell, x = build("lstm_batchnorm").train(), normal(T, B, I)
    other = x.clone()
    other[3:] += normal(T, B, I, seed=9)[3:]
    gap = (raw_of(cell, x) - raw_of(cell, other)).abs().amax((1, 2))
    assert (gap[:3] == 0).all() and (gap[3:] > 1e-3).all()


def test_batch_norm_of_a_single_value_is_finite() -> None:
    cell = build("lstm_batchnorm").train()
    for x in (normal(1, 1, I), normal(T, 1, I)):
        raw, (h, c), _ = cell(x, state_of(cell, 1), None)
        (raw.sum() + h.sum() + c.sum()).backward()
        tensors = [raw, h, c, *cell.buffers(), *(p.grad for p in cell.parameters())]
        assert all(torch.isfinite(t).all() for t in tensors)


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [normal(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes)]


@pytest.mark.parametrize("norm", [OVER_UNITS, OVER_BATCH])
def test_gradients_of_the_lstm_loop(norm: Any) -> None:
    t, b, h = 3, 4, 3
    inputs = leaves((t, b, 4 * h), (b, h), (b, h), (4 * h, h), (4 * h,), (h,), (h,))

    def outputs(*args: Tensor) -> tuple[Tensor, Tensor]:
        raw, memory, *_ = NormLSTM.apply(*args, norm)
        return raw, memory

    assert torch.autograd.gradcheck(outputs, inputs)
    raw, memory = outputs(*inputs)
    for loss in (raw.sum(), memory.sum()):  # one of the two gradients is missing
        assert torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)


def test_gradients_of_the_other_functions() -> None:
    t, b, h = 3, 4, 3
    shapes = [(t, b, 2 * h), (t, b, h), (b, h), (2 * h, h), (h, h), (2 * h,), (h,), (h,)]
    assert torch.autograd.gradcheck(LayerNormGRU.apply, leaves(*shapes))
    steps = leaves((t, b, h), (h,), (h,))
    assert torch.autograd.gradcheck(lambda *args: BatchNormSteps.apply(*args)[0], steps)


def test_batch_norm_of_few_columns_is_skipped() -> None:
    grid = override(load_grid("quick"), ["cell=lstm,lstm_batchnorm", "batch_size=1,3,4", "nhid=8"])
    expansion = expand(grid, find())
    trained = {t.batch_size for t in expansion.trials if t.cell == "lstm_batchnorm"}
    assert trained == {4}
    says = "batch norm over fewer than 4 columns has exploding gradients"
    assert {(cell, why) for cell, _, why in expansion.skipped} == {("lstm_batchnorm", says)}


def test_a_state_keeps_only_its_own_window_alive() -> None:
    """Not the buffers of the backward pass: of each series of steps there is one storage."""
    cell, x = build("lstm_layernorm"), normal(T, B, I)
    for state in cell(x, state_of(cell), None)[1]:
        assert state.untyped_storage().nbytes() == T * B * H * state.element_size()
