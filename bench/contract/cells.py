"""What every cell must hold to; one function a rule. See `bench.api` for the rules in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import State
from bench.model import LanguageModel
from bench.noise import SiteNoise, WindowNoise

MakeCell = Callable[[int, int], nn.Module]
T, B, I, H = 6, 3, 8, 12  # noqa: E741 - the axis letters of the contract
TOLERANCE = 1e-9


def shapes(make: MakeCell) -> None:
    """x [T,B,I] gives raw [T,B,H], and the new state has the shapes of the initial one."""
    for steps, columns in ((T, B), (1, B), (T, 1), (1, 1)):
        cell = _double(make)
        x = _input(steps, columns)
        state = cell.initial_state(columns)  # type: ignore[operator]
        raw, after, memory = _call(cell, x, state, _noise())
        _same_shape("raw", raw, (steps, columns, H))
        if memory is not None:
            _same_shape("memory", memory, (steps, columns, H))
        assert raw.dtype == x.dtype, f"raw is {raw.dtype} although x is {x.dtype}"
        assert isinstance(state, tuple), "initial_state must return a tuple of tensors"
        before = [tuple(s.shape) for s in state]
        now = [tuple(s.shape) for s in after]
        assert before == now, f"the state's shapes change from {before} to {now}"
        assert all(s[0] == columns for s in before), f"states must be [B, *], not {before}"


def memory_flag(make: MakeCell) -> None:
    """forward returns the memory if, and only if, the class says `memory = True`."""
    cell = _double(make)
    out = cell(_input(), cell.initial_state(B), None)  # type: ignore[operator]
    promised = bool(getattr(cell, "memory", False))
    assert len(out) == (3 if promised else 2), (
        f"memory = {promised}, but forward returns {len(out)} values"
    )


def two_calls_equal_one(make: MakeCell) -> None:
    """In evaluation one call over 2T steps equals two calls over T: memory is in the state."""
    cell = _double(make).eval()
    x = _input(2 * T)
    state = cell.initial_state(B)  # type: ignore[operator]
    whole, last, _ = _call(cell, x, state, None)
    first, middle, _ = _call(cell, x[:T], state, None)
    second, end, _ = _call(cell, x[T:], middle, None)
    _close("raw over 2T", whole, torch.cat([first, second]))
    for one, other in zip(last, end, strict=True):
        _close("the last state", one, other)


def keeps_nothing(make: MakeCell) -> None:
    """A call in between, on other text, changes nothing: no tensor is kept between calls."""
    cell = _double(make).eval()
    x = _input()
    state = cell.initial_state(B)  # type: ignore[operator]
    before, _, _ = _call(cell, x, state, None)
    _call(cell, _input(seed=5), state, None)
    after, _, _ = _call(cell, x, state, None)
    _close("raw", before, after)


def no_future(make: MakeCell) -> None:
    """A later input does not change an earlier output."""
    cell = _double(make).eval()
    x = _input()
    other = x.clone()
    other[T // 2 :] += 1
    state = cell.initial_state(B)  # type: ignore[operator]
    one, _, _ = _call(cell, x, state, None)
    two, _, _ = _call(cell, other, state, None)
    _close(f"raw before step {T // 2}, whose input changed,", one[: T // 2], two[: T // 2])
    assert not torch.equal(one[T // 2 :], two[T // 2 :]), "the output ignores its input"


def no_column_leak(make: MakeCell) -> None:
    """One column's input does not change another's output (in training, unless mixes_batch)."""
    cell = _double(make)
    modes = (False,) if getattr(cell, "mixes_batch", False) else (False, True)
    for training in modes:
        cell.train(training)
        noise = _noise() if training else None
        x = _input()
        other = x.clone()
        other[:, 1] += 1
        state = cell.initial_state(B)  # type: ignore[operator]
        one, end, _ = _call(cell, x, state, noise)
        two, other_end, _ = _call(cell, other, state, noise)
        for column in (0, 2):
            what = f"of column {column}, when column 1's input changed,"
            _close(f"raw {what}", one[:, column], two[:, column])
            for a, b in zip(end, other_end, strict=True):
                _close(f"the state {what}", a[column], b[column])


def gradients(make: MakeCell) -> None:
    """Every parameter, and the input, gets a finite gradient; inputs are not changed in place."""
    cell = _double(make).train()
    x = _input().requires_grad_()
    copy = x.detach().clone()
    first = cell.initial_state(B)  # type: ignore[operator]
    copies = [s.detach().clone() for s in first]
    _, state, _ = _call(cell, x, first, _noise())  # so that the state is not zero
    for a, b in zip(first, copies, strict=True):
        assert torch.equal(a, b), "forward changes its state in place"
    raw, after, _ = _call(cell, x, tuple(s.detach() for s in state), _noise())
    loss = raw.square().mean() + sum(s.square().mean() for s in after)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(x.detach(), copy), "forward changes its input in place"
    for name, parameter in [("x", x), *cell.named_parameters()]:
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def randomness_from_noise(make: MakeCell) -> None:
    """Equal noise gives equal output, whatever torch's global generator is at."""
    for training in (True, False):
        outputs = []
        for seed in (1, 2):
            cell = _double(make).train(training)
            torch.manual_seed(seed)
            state = cell.initial_state(B)  # type: ignore[operator]
            outputs.append(_call(cell, _input(), state, _noise())[0])
        _close("raw under two global seeds", *outputs)


def silent_without_noise(make: MakeCell) -> None:
    """noise None means no randomness, in training mode too (statistics apart)."""
    cell = _double(make)
    if getattr(cell, "mixes_batch", False) or any(True for _ in cell.buffers()):
        return
    state = cell.initial_state(B)  # type: ignore[operator]
    evaluated, _, _ = _call(cell.eval(), _input(), state, None)
    trained, _, _ = _call(cell.train(), _input(), state, None)
    _close("raw without noise, in training and evaluation,", evaluated, trained)


def asks_noise_once(make: MakeCell) -> None:
    """One call asks `noise` for a name at most once: asked again, it gives the same mask."""

    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def mask(self, name: str, shape: tuple[int, ...], p: float) -> Tensor:
            self.asked.append(name)
            return _noise().mask(name, shape, p)

    for training in (True, False):
        cell, counting = _double(make).train(training), Counting()
        _call(cell, _input(), cell.initial_state(B), counting)  # type: ignore[operator]
        for name in counting.asked:
            times = counting.asked.count(name)
            assert times == 1, (
                f"one forward call asks noise for {name!r} {times} times, and gets the same mask"
            )


def own_initialisation(make: MakeCell) -> None:
    """A layer's initial weights do not depend on the layers before it."""
    first: list[nn.Module] = []

    def wasteful(size_in: int, size_out: int) -> nn.Module:
        if not first:
            torch.rand(1234)  # another cell in layer 0 would draw other numbers
            first.append(make(size_in, size_out))
            return first[0]
        return make(size_in, size_out)

    one, two = _stack(make), _stack(wasteful)
    for a, b in zip(one.cells[1].parameters(), two.cells[1].parameters(), strict=True):
        assert torch.equal(a, b), "layer 1's initial weights depend on what layer 0 drew"


def state_dict_round_trip(make: MakeCell) -> None:
    """A new cell with the old one's state_dict gives the same output."""
    torch.manual_seed(1)
    one = make(I, H).double().eval()
    torch.manual_seed(2)
    two = make(I, H).double().eval()
    two.load_state_dict(one.state_dict())
    state = one.initial_state(B)  # type: ignore[operator]
    _close(
        "raw after loading the state_dict",
        _call(one, _input(), state, None)[0],
        _call(two, _input(), state, None)[0],
    )


def plain_twin(make: MakeCell) -> None:
    """`plain()`, where offered, is the same cell."""
    cell = _double(make).eval()
    plain = getattr(cell, "plain", None)
    if plain is None:
        return
    state = cell.initial_state(B)  # type: ignore[operator]
    _close(
        "raw of plain()",
        _call(cell, _input(), state, None)[0],
        _call(plain().eval(), _input(), state, None)[0],
    )


CHECKS: tuple[Callable[[MakeCell], None], ...] = (
    shapes,
    memory_flag,
    two_calls_equal_one,
    keeps_nothing,
    no_future,
    no_column_leak,
    gradients,
    randomness_from_noise,
    silent_without_noise,
    asks_noise_once,
    own_initialisation,
    state_dict_round_trip,
    plain_twin,
)


def _double(make: MakeCell) -> nn.Module:
    torch.manual_seed(1)
    return make(I, H).double()


def _input(steps: int = T, columns: int = B, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, columns, I, generator=generator, dtype=torch.float64)


def _noise() -> SiteNoise:
    return WindowNoise(7, "train", 0, torch.device("cpu"), torch.float64).at("layer0")


def _call(cell: nn.Module, x: Tensor, state: State, noise: Any) -> tuple[Tensor, State, Any]:
    out = cell(x, state, noise)
    assert isinstance(out, tuple) and len(out) in (2, 3), (
        f"{inspect.getfile(type(cell))}: forward must return (raw, state)"
    )
    return out[0], out[1], out[2] if len(out) == 3 else None


def _stack(make: MakeCell) -> LanguageModel:
    return LanguageModel(
        make,
        vocab_size=5,
        emsize=I,
        nhid=I,
        nlayers=2,
        tied=True,
        dropout=0,
        dropouti=0,
        dropouth=0,
        seed=1,
    )


def _same_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    assert tuple(tensor.shape) == shape, f"{name} is {list(tensor.shape)} instead of {list(shape)}"


def _close(what: str, one: Tensor, other: Tensor) -> None:
    gap = float((one - other).detach().abs().max())
    assert gap <= TOLERANCE, f"{what} differs by {gap:.3g}"
