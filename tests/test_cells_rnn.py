"""What makes a simple RNN variational, an IRNN or orthogonal, and that its gradient is right."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from bench.noise import SiteNoise, WindowNoise
from bench.plugins import find, load_class
from tests.parts import part

CELLS = find()["cell"]
rnn = part("_rnn", "rnn_variational").rnn
T, B, I, H = 7, 5, 4, 6  # noqa: E741


def make(name: str, size_in: int = I, size: int = H, **hparams: Any) -> Any:
    torch.manual_seed(3)
    return load_class(CELLS[name])(size_in, size, **hparams).double()


def noise(step: int = 0) -> SiteNoise:
    return WindowNoise(7, "train", step, torch.device("cpu"), torch.float64).at("layer0")


def values(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


# --- variational -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnn_variational", "rnn_relu"])
def test_initial_weights_are_the_tanh_rnns(name: str) -> None:
    ours, theirs = make(name).state_dict(), make("rnn_tanh").state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("p", "noisy"), [(0.0, True), (0.5, False)])
def test_variational_without_its_noise_is_a_tanh_rnn(p: float, noisy: bool) -> None:
    ours, theirs = make("rnn_variational", p=p), make("rnn_tanh")
    outcomes = []
    for cell in (ours, theirs):
        x, h = values(T, B, I).requires_grad_(), values(B, H, seed=2).requires_grad_()
        raw, (last,) = cell(x, (h,), noise() if noisy else None)
        loss = (raw * values(T, B, H, seed=3)).sum() + last.square().sum()
        outcomes.append([raw, last, *torch.autograd.grad(loss, [x, h, *cell.parameters()])])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def own_unit_only(p: float, weight: float) -> Any:
    """Returns an RNN with h_t = tanh(weight * mask * h_{t-1})."""
    cell = make("rnn_variational", p=p)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.rnn.weight_hh_l0.copy_(weight * torch.eye(H))
    return cell


def test_a_mask_lasts_one_window_and_differs_between_columns() -> None:
    cell, h = own_unit_only(p=0.5, weight=3.0), zeros(B, H) + 1
    hidden = cell(zeros(T, B, I), (h,), noise(0))[0] == 0
    other = cell(zeros(T, B, I), (h,), noise(1))[0] == 0
    assert 0 < hidden[0].sum() < B * H
    assert all(torch.equal(hidden[0], step) for step in hidden)
    assert any(not torch.equal(hidden[0, 0], column) for column in hidden[0, 1:])
    assert not torch.equal(hidden, other)


def test_masks_preserve_the_expectation() -> None:
    columns, weight, p = 4000, 0.1, 0.3
    cell = own_unit_only(p, weight)
    raw, _ = cell(zeros(1, columns, I), (zeros(columns, H) + 1,), noise())
    error = weight * (p / (1 - p) / (columns * H)) ** 0.5
    assert abs(torch.atanh(raw).mean().item() - weight) < 5 * error


# --- rectified linear ------------------------------------------------------------------------


def test_relu_is_positively_homogeneous() -> None:
    cell = make("rnn_relu")
    with torch.no_grad():
        cell.rnn.bias_ih_l0.zero_()
        cell.rnn.bias_hh_l0.zero_()
    x, h = values(T, B, I), values(B, H, seed=2).abs()
    raw, _ = cell(x, (h,), None)
    tripled, _ = cell(3 * x, (3 * h,), None)
    assert raw.min() == 0 and raw.max() > 0
    torch.testing.assert_close(tripled, 3 * raw, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_irnn_starts_as_a_scaled_identity(scale: float) -> None:
    cell = make("irnn", 64, 48, scale=scale)
    w_ih, w_hh, b_ih, b_hh = cell.parameters()
    assert torch.equal(w_hh, scale * torch.eye(48, dtype=torch.float64))
    assert not b_ih.any() and not b_hh.any()
    error = 0.001 / (2 * w_ih.numel()) ** 0.5
    assert abs(w_ih.std().item() - 0.001) < 5 * error


def test_irnn_keeps_its_state_and_adds_its_input() -> None:
    h = values(B, H).abs()
    kept, _ = make("irnn")(zeros(100, B, I), (h,), None)
    assert torch.equal(kept, h.expand(100, B, H))
    halved, _ = make("irnn", scale=0.5)(zeros(3, B, I), (h,), None)
    torch.testing.assert_close(halved[-1], h / 8, rtol=1e-12, atol=0)
    cell, x = make("irnn"), values(T, B, I)
    summed, _ = cell(x, (h + 1,), None)
    sums = h + 1 + (x @ cell.rnn.weight_ih_l0.T).cumsum(0)
    torch.testing.assert_close(summed, sums, rtol=0, atol=1e-12)


# --- orthogonal ------------------------------------------------------------------------------


def apart_from_orthogonal(q: Tensor) -> float:
    q = q.detach().double()
    return float((q.T @ q - torch.eye(len(q))).abs().max())


@pytest.mark.parametrize("size", [100, 101])
def test_orthogonal_starts_with_rotations_of_planes(size: int) -> None:
    q = make("rnn_orthogonal", I, size).recurrent()
    blocks = torch.block_diag(
        *[torch.ones(2, 2)] * (size // 2), *[torch.ones(1, 1)] * (size % 2)
    ).bool()
    assert apart_from_orthogonal(q) < 1e-14
    assert not q[~blocks].any() and q.diagonal().min() > 0
    angles = torch.acos(q.diagonal()[: size // 2 * 2 : 2])
    assert angles.max() < torch.pi / 2
    error = torch.pi / 2 / (12 * len(angles)) ** 0.5  # of the mean of a uniform draw
    assert abs(angles.mean().item() - torch.pi / 4) < 5 * error
    if size % 2:
        assert q[-1, -1] == 1


def test_orthogonal_has_as_many_numbers_as_an_orthogonal_matrix() -> None:
    cell = make("rnn_orthogonal")
    assert sum(p.numel() for p in cell.parameters()) == H * I + H * (H - 1) // 2 + H
    single = make("rnn_orthogonal", I, 1)
    assert single.recurrent().tolist() == [[1.0]]


def test_weight_decay_draws_the_matrix_to_the_identity() -> None:
    cell = make("rnn_orthogonal")
    before = (cell.recurrent() - torch.eye(H)).norm().item()
    cell.skew.data.mul_(0.5)
    assert 0 < (cell.recurrent() - torch.eye(H)).norm().item() < before
    cell.skew.data.zero_()
    assert torch.equal(cell.recurrent(), torch.eye(H, dtype=torch.float64))


@pytest.mark.parametrize("act", ["tanh", "modrelu"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_stays_orthogonal_in_training(act: str, dtype: torch.dtype, tolerance: float) -> None:
    cell = make("rnn_orthogonal", 32, 64, act=act).to(dtype)
    start = cell.recurrent().detach()
    x, target = values(T, B, 32).to(dtype), values(T, B, 64, seed=2).to(dtype)
    optimizer = torch.optim.SGD(cell.parameters(), lr=20.0)
    for _ in range(30):
        optimizer.zero_grad()
        raw, _ = cell(x, cell.initial_state(B), None)
        (raw - target).square().mean().backward()
        nn.utils.clip_grad_norm_(cell.parameters(), 0.25)
        optimizer.step()
        assert apart_from_orthogonal(cell.recurrent()) < tolerance
    assert (cell.recurrent().detach() - start).norm() > 1  # it did move


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_a_thousand_linear_steps_keep_every_norm(dtype: torch.dtype, tolerance: float) -> None:
    # modReLU with b = 0 is the identity: with no input the cell is h Q^1000.
    cell = make("rnn_orthogonal", I, 64, act="modrelu").to(dtype)
    with torch.no_grad():
        cell.skew.add_(values(*cell.skew.shape).to(dtype))  # far from the start
        h = values(B, 64, seed=2).to(dtype)
        raw, _ = cell(torch.zeros(1000, B, I, dtype=dtype), (h,), None)
    ratios = raw.double().norm(dim=-1) / h.double().norm(dim=-1)
    assert (raw[-1] - h).abs().max() > 0.1
    assert (ratios - 1).abs().max() < tolerance


def test_float32_is_orthogonal_at_full_size() -> None:
    cell = load_class(CELLS["rnn_orthogonal"])(1, 650)
    cell.skew.data.add_(values(*cell.skew.shape).float())
    assert apart_from_orthogonal(cell.recurrent()) < 1e-5


def test_modrelu_shrinks_by_its_threshold_and_keeps_the_sign() -> None:
    a = torch.tensor([[-3.0, -1.0, -0.5, 0.5, 1.0, 3.0]], dtype=torch.float64)
    raw = rnn(a[None], zeros(1, 6), zeros(6, 6), "modrelu", threshold=zeros(6) - 1)
    assert raw[0, 0].tolist() == [-2.0, 0.0, 0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.5])
def test_modrelu_at_zero_has_finite_gradients(threshold: float) -> None:
    cell = make("rnn_orthogonal", act="modrelu")
    cell.bias.data.fill_(threshold)
    x = zeros(T, B, I).requires_grad_()
    raw, _ = cell(x, cell.initial_state(B), None)
    assert not raw.any()
    gradients = torch.autograd.grad((raw - 1).square().sum(), [x, *cell.parameters()])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


# --- all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["tanh", "modrelu"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_the_loop(act: Literal["tanh", "modrelu"], masked: bool) -> None:
    mask = (values(B, H, seed=4) > 0).double() * 2 if masked else None
    inputs = [values(T, B, H), values(B, H), values(H, H)]
    if act == "modrelu":
        inputs.append(values(H, seed=5) / 4)

    def loop(x: Tensor, h: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        raw: Tensor = rnn(x, h, w, act, mask=mask, threshold=b)
        return raw

    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(loop, inputs)
    # A state that needs no gradient (the usual case in training) changes no other gradient.
    weight = values(T, B, H, seed=6)
    whole = torch.autograd.grad((loop(*inputs) * weight).sum(), inputs)
    inputs[1] = inputs[1].detach()
    rest = torch.autograd.grad((loop(*inputs) * weight).sum(), [inputs[0], *inputs[2:]])
    for one, other in zip((whole[0], *whole[2:]), rest, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "hparams", "message"),
    [
        ("rnn_variational", {"p": 1.0}, "p must be at least 0 and below 1, but is 1.0"),
        ("irnn", {"scale": 0.0}, "scale must be above 0 and at most 1, but is 0.0"),
        ("irnn", {"scale": 1.5}, "scale must be above 0 and at most 1, but is 1.5"),
        ("irnn", {"scale": float("nan")}, "scale must be above 0 and at most 1, but is nan"),
    ],
)
def test_bad_hyper_parameters(name: str, hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(name, **hparams)


@pytest.mark.parametrize("name", ["rnn_variational", "rnn_relu", "irnn", "rnn_orthogonal"])
def test_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        cell = load_class(CELLS[name])(I, H)
    assert all(parameter.is_meta for parameter in cell.parameters())
