"""Window lengths, the trigger of averaging, the running mean."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bench.config import Trial
from bench.schedule import LONGEST, SHORTEST, Average, stalled, window_lengths


def lengths(bptt: int = 70, seed: int = 1, epoch: int = 0, count: int = 20_000) -> np.ndarray:
    return np.array(list(itertools.islice(window_lengths(bptt, seed, epoch), count)))


def test_lengths_are_a_pure_function_of_seed_and_epoch() -> None:
    one, other = window_lengths(70, 1, 0), window_lengths(70, 1, 0)
    assert [(next(one), next(other)) for _ in range(50)] == [(n, n) for n in lengths(count=50)]
    assert not np.array_equal(lengths(count=50), lengths(count=50, epoch=1))
    assert not np.array_equal(lengths(count=50), lengths(count=50, seed=2))


def test_lengths_are_distributed_as_awds() -> None:
    drawn = lengths()
    short = drawn < 52  # 35 + 3.5 standard deviations, 70 - 3.5
    assert short.mean() == pytest.approx(0.05, abs=0.006)
    # int() cuts half a step on average.
    assert drawn[~short].mean() == pytest.approx(69.5, abs=0.2)
    assert drawn[~short].std() == pytest.approx(5, abs=0.15)
    assert drawn[short].mean() == pytest.approx(34.5, abs=0.7)
    assert drawn[short].std() == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("bptt", [1, 4, 10, 35])
def test_lengths_have_ends(bptt: int) -> None:
    drawn = lengths(bptt)
    assert drawn.min() >= SHORTEST and drawn.max() <= bptt + LONGEST
    if bptt == 10:
        assert drawn.min() == SHORTEST, "two standard deviations down: it is met"


@pytest.mark.parametrize(
    ("history", "nonmono", "expected"),
    [
        ([5.0], 1, False),
        ([5.0, 6.0], 1, False),  # one epoch older is not more than one
        ([5.0, 6.0, 5.5], 1, True),
        ([5.0, 4.0, 4.5], 1, False),  # better than what is more than one epoch older
        ([5.0, 4.0, 3.9, 4.1], 1, True),
        ([5.0, 4.0, 4.0], 1, False),
        ([4.0, 5.0, 5.0, 5.0, 5.0, 5.0], 5, False),
        ([4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0], 5, True),
        ([4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 4.0], 5, False),  # above, not equal
    ],
)
def test_averaging_begins_as_in_awds_code(
    history: list[float], nonmono: int, expected: bool
) -> None:
    assert stalled(history, nonmono) is expected


def test_the_mean_is_that_of_the_steps_since_it_was_made() -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = [
        torch.nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64)),
        torch.nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64)),
    ]
    average = Average(parameters)
    seen: list[list[torch.Tensor]] = []
    for _ in range(7):
        with torch.no_grad():
            for p in parameters:
                p.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
        average.update()
        seen.append([p.detach().clone() for p in parameters])
        if len(seen) == 1:
            assert all(map(torch.equal, average.values, seen[0])), "not the weights before"
    for n in range(2):
        mean = torch.stack([step[n] for step in seen]).mean(0)
        torch.testing.assert_close(average.values[n], mean, rtol=0, atol=1e-14)


def test_means_are_in_place_for_a_while_and_keep_the_memory() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    average = Average([parameter])
    average.values[0].fill_(2)
    address = parameter.data_ptr()
    with pytest.raises(KeyError), average.in_place():
        assert parameter.tolist() == [2, 2, 2] and parameter.data_ptr() == address
        raise KeyError
    assert parameter.tolist() == [1, 1, 1] and parameter.data_ptr() == address
    assert average.values[0].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("optimizer", "unread"), [("sgd", ["nonmono"]), ("nt-asgd", ["lr_decay", "min_lr"])]
)
def test_what_the_optimizer_does_not_read_makes_no_second_trial(
    optimizer: str, unread: list[str]
) -> None:
    for name, value in {"nonmono": 4, "lr_decay": 3, "min_lr": 0.001}.items():
        plain = Trial.model_validate({"optimizer": optimizer})
        other = Trial.model_validate({"optimizer": optimizer, name: value})
        assert (plain == other) == (name in unread)


def test_monte_carlo_can_be_switched_off_again() -> None:
    assert Trial.model_validate({"eval_mc": "none"}).eval_mc is None
