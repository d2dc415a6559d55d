"""What makes the unitary cells: a recurrent matrix that keeps every length, and modReLU."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.plugins import find, load_class
from tests.oracles import ORACLES
from tests.parts import part

CELLS = find()["cell"]
Evolution, real = part("_unitary", "eunn").Evolution, part("_unitary", "eunn").real
CASES = [("urnn", {}), ("eunn", {}), ("eunn", {"capacity": 6})]


def make(name: str, hidden_size: int = 8, seed: int = 1, **hparams: Any) -> Any:
    torch.manual_seed(seed)
    return load_class(CELLS[name])(3, hidden_size, **hparams).double()


def random(*shape: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def trained(cell: Any, lr: float = 100.0) -> Any:
    """Takes a few steps of SGD that would ruin any matrix not unitary by construction."""
    optimizer = torch.optim.SGD(cell.parameters(), lr=lr)
    before = cell.matrix().detach()
    for step in range(3):
        optimizer.zero_grad()
        raw, _ = cell(random(7, 4, 3, seed=step), cell.initial_state(4), None)
        (raw - 1).square().mean().backward()
        optimizer.step()
    assert (cell.matrix() - before).abs().max() > 0.1
    return cell


@pytest.mark.parametrize(("name", "hparams"), CASES)
@pytest.mark.parametrize("hidden_size", [2, 4, 6, 14, 16])
def test_matrix_is_unitary(name: str, hparams: dict[str, Any], hidden_size: int) -> None:
    w = make(name, hidden_size, **hparams).matrix()
    n = hidden_size // 2
    assert w.shape == (n, n)
    torch.testing.assert_close(w.mH @ w, torch.eye(n) + 0j * w.real, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "hparams"), CASES)
@pytest.mark.parametrize("after_training", [False, True])
def test_length_is_kept_over_a_thousand_steps(
    name: str, hparams: dict[str, Any], after_training: bool
) -> None:
    cell = make(name, **hparams)
    if after_training:
        trained(cell)
    with torch.no_grad():
        cell.b.zero_()  # modReLU then changes nothing
    z = random(4, 8)
    raw, _ = cell(torch.zeros(1000, 4, 3, dtype=torch.float64), (z,), None)
    torch.testing.assert_close(raw.norm(dim=2), z.norm(dim=1).expand(1000, 4), rtol=1e-6, atol=0)
    assert not torch.allclose(raw[-1], z)


@pytest.mark.parametrize(("name", "hparams"), CASES)
@pytest.mark.parametrize("hidden_size", [6, 10])
def test_equals_its_loop_with_every_bias(
    name: str, hparams: dict[str, Any], hidden_size: int
) -> None:
    """At first b is 0, where modReLU is the identity: here it is not."""
    cell = make(name, hidden_size, **hparams)
    n = hidden_size // 2
    with torch.no_grad():
        cell.b.copy_(random(n))
    x, z = random(6, 4, 3).requires_grad_(), random(4, hidden_size, seed=3).requires_grad_()
    results = []
    for forward in (cell, lambda *args: ORACLES[name](cell, *args)):
        raw = forward(x, (z,), None)[0]
        loss = (raw * random(6, 4, hidden_size, seed=4)).sum()
        results.append([raw, *torch.autograd.grad(loss, [x, z, *cell.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_real_matrix_does_what_the_complex_one_does() -> None:
    w, z = torch.complex(random(3, 3), random(3, 3, seed=3)), torch.complex(random(3), random(3))
    after = w @ z
    torch.testing.assert_close(
        real(w) @ torch.cat([z.real, z.imag]), torch.cat([after.real, after.imag])
    )


def modrelu(z: Tensor, b: Tensor) -> Tensor:
    """One step from nothing, without a recurrent matrix."""
    return Evolution.apply(z[None], torch.zeros_like(z), torch.zeros(z.shape[1], z.shape[1]), b)[0]


def test_modrelu_changes_the_length_and_keeps_the_direction() -> None:
    z = torch.tensor([[3.0, 0.3, 4.0, 0.4]])  # 3 + 4i, of length 5, and 0.3 + 0.4i, of length 0.5
    for b, lengths in ((-1.0, (4.0, 0.0)), (1.0, (6.0, 1.5)), (0.0, (5.0, 0.5))):
        first, second = lengths
        expected = torch.tensor([[0.6 * first, 0.6 * second, 0.8 * first, 0.8 * second]])
        torch.testing.assert_close(modrelu(z, torch.full((2,), b)), expected)


@pytest.mark.parametrize("b", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modrelu_has_a_finite_gradient_at_zero(b: float, dtype: torch.dtype) -> None:
    z = torch.zeros(2, 2, 4, dtype=dtype, requires_grad=True)
    start = torch.zeros(2, 4, dtype=dtype, requires_grad=True)
    bias = torch.full((2,), b, dtype=dtype, requires_grad=True)
    raw = Evolution.apply(z, start, torch.eye(4, dtype=dtype), bias)
    assert torch.equal(raw, torch.zeros_like(raw))
    for grad in torch.autograd.grad(raw.sum(), (z, start, bias)):
        assert grad.isfinite().all()


def test_recurrence_gradient() -> None:
    inputs = [random(4, 2, 6), random(2, 6, seed=3), random(6, 6, seed=4), random(3, seed=5)]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(Evolution.apply, tuple(inputs))


def test_eunn_reaches_more_matrices_with_more_capacity() -> None:
    """The dimensions that W can move in: all n^2 of the unitary matrices from capacity n on."""

    def dimensions(capacity: int) -> int:
        cell = make("eunn", 8, capacity=capacity)
        angles = (cell.even, cell.odd, cell.omega)

        def matrix(*values: Tensor) -> Tensor:
            names = ("even", "odd", "omega")
            w = torch.func.functional_call(
                Matrix(cell), {f"cell.{k}": v for k, v in zip(names, values, strict=True)}, ()
            )
            return torch.stack([w.real, w.imag])

        jacobian = torch.autograd.functional.jacobian(matrix, angles)
        return int(torch.linalg.matrix_rank(torch.cat([j.reshape(32, -1) for j in jacobian], 1)))

    assert dimensions(2) < dimensions(4) == 16


class Matrix(nn.Module):
    """A module whose forward is another one's `matrix`."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self) -> Tensor:
        return self.cell.matrix()


@pytest.mark.parametrize("name", ["urnn", "eunn"])
@pytest.mark.parametrize("hidden_size", [40, 400])
def test_input_is_not_lost_in_the_first_step(name: str, hidden_size: int) -> None:
    """A small V would let modReLU turn off all units: each has about the input's own size."""
    torch.manual_seed(1)
    cell = load_class(CELLS[name])(hidden_size, hidden_size).double()
    x = random(1, 50, hidden_size)
    raw, _ = cell(x, cell.initial_state(50), None)
    assert 0.9 < raw.std() / x.std() < 1.4


def test_urnn_keeps_its_permutation_with_its_weights() -> None:
    one, other = make("urnn", 40), make("urnn", 40, seed=2)
    assert sorted(one.permutation.tolist()) == list(range(20))
    assert not torch.equal(one.permutation, other.permutation)
    assert "permutation" in one.state_dict()
    before = one.permutation.clone()
    trained(one)
    assert torch.equal(one.permutation, before)


@pytest.mark.parametrize(
    ("name", "hidden_size", "hparams", "message"),
    [
        ("eunn", 8, {"capacity": 3}, "capacity must be even, but is 3"),
        ("eunn", 8, {"capacity": 0}, "capacity must be at least 2, but is 0"),
        ("eunn", 7, {}, "hidden_size must be even (a real and an imaginary part for each complex "),
        ("urnn", 7, {}, "hidden_size must be even (a real and an imaginary part for each complex "),
    ],
)
def test_refuses(name: str, hidden_size: int, hparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make(name, hidden_size, **hparams)


@pytest.mark.parametrize(("name", "hparams"), CASES)
def test_builds_without_memory(name: str, hparams: dict[str, Any]) -> None:
    with torch.device("meta"):
        cell = load_class(CELLS[name])(3, 8, **hparams)
    assert all(p.is_meta for p in [*cell.parameters(), *cell.buffers()])
