"""Masks are a pure function of (seed, purpose, step, site, name)."""

from __future__ import annotations

import pytest
import torch

from bench.noise import WindowNoise, stream
from bench.noise import mask as draw_mask

CPU = torch.device("cpu")


def mask(
    *,
    seed: int = 1,
    purpose: str = "train",
    step: int = 0,
    site: str = "layer0",
    name: str = "m",
    p: float = 0.4,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    return WindowNoise(seed, purpose, step, CPU, dtype).at(site).mask(name, (40, 50), p)


def test_the_same_key_gives_the_same_mask_whatever_else_was_drawn() -> None:
    first = mask()
    torch.rand(100)
    mask(name="another")
    assert torch.equal(first, mask())


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"purpose": "mc"}, {"step": 1}, {"site": "layer1"}, {"name": "n"}]
)
def test_each_part_of_the_key_gives_an_independent_mask(change: dict[str, object]) -> None:
    one, other = mask() > 0, mask(**change) > 0  # type: ignore[arg-type]
    agreement = float((one == other).float().mean())
    assert agreement == pytest.approx(0.4**2 + 0.6**2, abs=0.05)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.65, 0.999])
def test_values_and_expectation(p: float) -> None:
    m = WindowNoise(3, "train", 0, CPU, torch.float64).at("input").mask("m", (1000, 1000), p)
    assert set(m.unique().tolist()) <= {0.0, 1 / (1 - p)}
    assert float(m.mean()) == pytest.approx(1.0, abs=5 * (p / (1 - p) / 1e6) ** 0.5 + 1e-9)


def test_single_and_double_precision_drop_the_same_units() -> None:
    assert torch.equal(mask() > 0, mask(dtype=torch.float64) > 0)


def test_thread_count_does_not_matter() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = WindowNoise(1, "train", 0, CPU, torch.float32).at("a").mask("m", (999, 1001), 0.5)
        torch.set_num_threads(2)
        two = WindowNoise(1, "train", 0, CPU, torch.float32).at("a").mask("m", (999, 1001), 0.5)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_rates_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match="p must be"):
        mask(p=p)


def test_odd_sizes_and_neighbouring_units_are_independent() -> None:
    m = WindowNoise(5, "train", 0, CPU, torch.float32).at("a").mask("m", (200_001,), 0.5) > 0
    agreement = float((m[1:] == m[:-1]).float().mean())
    assert agreement == pytest.approx(0.5, abs=0.01)


def test_words_are_those_of_splitmix64() -> None:
    """By its definition in Python's whole numbers; the first two of seed 1234567 are published."""

    def splitmix64(seed: int, n: int) -> int:
        z = (seed + n * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    assert splitmix64(1234567, 1) == 6457827717110365317
    assert splitmix64(1234567, 2) == 3203168211198807973
    for key, p in ((1234567, 0.5), (2**63 - 1, 0.9), (0, 0.01)):
        drawn = []
        for n in range(1, 501):
            word = splitmix64(key, n)
            halves = word % 2**32, word >> 32  # as they lie in memory
            # A half with its top bit set is a negative number, below all others.
            drawn += [(half + 2**31) % 2**32 >= round(p * 2**32) for half in halves]
        found = draw_mask(key, (1000,), p, torch.empty(()))
        assert (found > 0).tolist() == drawn


def test_a_key_in_a_tensor_is_the_key() -> None:
    like = torch.empty((), dtype=torch.float64)
    key = torch.tensor(2**62 + 12345)
    assert torch.equal(draw_mask(key, (7, 9), 0.3, like), draw_mask(int(key), (7, 9), 0.3, like))


def test_streams_are_63_bits_and_pinned() -> None:
    # A change here changes every number of the project: it needs a new protocol.
    assert stream(0, "init", "input") == 3479745467977946306
    assert all(0 <= stream(seed, "x") < 2**63 for seed in range(100))
