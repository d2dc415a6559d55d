"""What defines the QRNN: its window, its poolings, its zoneout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.elementwise_cells import B, H, I, T, build, inputs, memory, noise, state_of
from tests.oracles.elementwise import qrnn


@pytest.mark.parametrize(
    ("hparams", "line"),
    [
        ({"window": 0}, "window must be at least 1, but is 0"),
        ({"zoneout": 1.5}, "zoneout must be at least 0 and below 1, but is 1.5"),
        ({"zoneout": 1.0}, "zoneout must be at least 0 and below 1, but is 1.0"),
        ({"zoneout": -0.1}, "zoneout must be at least 0 and below 1, but is -0.1"),
    ],
)
def test_qrnn_refuses(hparams: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}$"):
        build("qrnn", **hparams)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_qrnn_with_any_window_equals_its_loop(window: int, noisy: bool) -> None:
    cell = build("qrnn", window=window)
    x, state, given = inputs(T, B, I), state_of(cell), noise() if noisy else None
    raw, after, c = cell(x, state, given)
    for ours, theirs in zip((raw, *after, c), qrnn(cell, x, state, given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_sees_its_window(window: int, pooling: str) -> None:
    cell = build("qrnn", window=window, pooling=pooling, zoneout=0.0)
    with torch.no_grad():  # forget everything, so that only the window is left
        cell.weight[H : 2 * H] = 0
        cell.bias[H : 2 * H] = -1e4
    x, state = inputs(T, B, I), state_of(cell)
    before = cell(x, state, None)[0]
    t = 5
    for lag in range(window + 2):
        other = x.clone()
        other[t - lag] += 1
        change = (cell(other, state, None)[0][t] - before[t]).abs()
        assert (change.min() > 0) == (lag < window)
        assert (change.max() > 0) == (lag < window)


def test_qrnn_poolings_differ_as_defined() -> None:
    x = inputs(T, B, I)
    f, fo, ifo = (build("qrnn", pooling=p, zoneout=0.0) for p in ("f", "fo", "ifo"))
    with torch.no_grad():
        for cell in (f, fo):  # the first rows of all three are z, f, o
            cell.weight.copy_(ifo.weight[: len(cell.weight)])
            cell.bias.copy_(ifo.bias[: len(cell.bias)])
        ifo.weight[3 * H :] = -ifo.weight[H : 2 * H]  # i = 1 - f
        ifo.bias[3 * H :] = -ifo.bias[H : 2 * H]
    state = state_of(f)
    (h_f, _, c_f), (h_fo, _, c_fo), (h_ifo, _, c_ifo) = (c(x, state, None) for c in (f, fo, ifo))
    assert torch.equal(h_f, c_f)
    torch.testing.assert_close(c_fo, c_f, rtol=0, atol=1e-12)
    torch.testing.assert_close(c_ifo, c_f, rtol=0, atol=1e-12)
    torch.testing.assert_close(h_ifo, h_fo, rtol=0, atol=1e-12)
    with torch.no_grad():
        fo.bias[2 * H :], fo.weight[2 * H :] = 1e4, 0.0  # o = 1
        ifo.bias[3 * H :] = -1e4  # i = 0
    assert torch.equal(fo(x, state, None)[0], c_fo)
    assert (memory(ifo, x, state).abs() <= state[0].abs()).all()


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_zoneout_keeps_channels_and_does_not_rescale(pooling: str) -> None:
    cell, sure = (build("qrnn", pooling=pooling, zoneout=p) for p in (0.4, 0.0))
    x = inputs(1, 2000, I)
    state = state_of(cell, 2000)
    c = memory(cell, x, state, noise())[0]
    kept = c == state[0]
    assert abs(kept.double().mean() - 0.4) < 0.02
    # A zoned-out channel is exactly the one before, another one exactly what it is without zoneout.
    torch.testing.assert_close(c[~kept], memory(sure, x, state)[0][~kept], rtol=0, atol=1e-12)
    # Each step draws anew.
    c = memory(cell, x.expand(3, -1, -1), state, noise())
    assert ((c[0] == state[0]) != (c[1] == c[0])).any()
    almost = build("qrnn", pooling=pooling, zoneout=1 - 1e-9)
    start = state_of(almost)
    assert torch.equal(memory(almost, inputs(T, B, I), start, noise())[-1], start[0])


@pytest.mark.parametrize("pooling", ["fo", "ifo"])
def test_qrnn_without_noise_takes_the_expectation(pooling: str) -> None:
    cell = build("qrnn", pooling=pooling, zoneout=0.3)
    one = [s[:1] for s in state_of(cell)]
    x, columns = inputs(1, 1, I), 40_000
    many = tuple(s.expand(columns, -1).contiguous() for s in one)
    drawn = memory(cell, x.expand(1, columns, I), many, noise())[0]
    expected = memory(cell, x, tuple(one))[0, 0]
    error = (drawn.mean(0) - expected) / (drawn.std(0) / math.sqrt(columns))
    assert error.abs().max() < 4
    update = memory(build("qrnn", pooling=pooling, zoneout=0.0), x, tuple(one))[0, 0]
    torch.testing.assert_close(expected, 0.3 * one[0][0] + 0.7 * update, rtol=0, atol=1e-12)


def test_qrnn_without_zoneout_asks_no_noise() -> None:
    cell = build("qrnn", zoneout=0.0)
    cell(inputs(T, B, I), state_of(cell), object())
