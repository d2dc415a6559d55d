"""The schedules of AWD-LSTM: how long each window is, and when averaging begins."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.noise import stream

SHORTEST = 5
LONGEST = 20
"""Steps above `bptt` at which a drawn length is cut: four standard deviations."""


def window_lengths(bptt: int, seed: int, epoch: int) -> Iterator[int]:
    """Yields the lengths of an epoch's windows, without end.

    Merity et al. 2017, arXiv 1708.02182, as in their code: around `bptt` with probability 0.95,
    else around bptt / 2, each from a normal distribution with standard deviation 5, cut to whole
    steps and at least 5. New here is an upper end of bptt + 20, for a window's memory grows with
    its length: it is met about once in 30,000 windows. A pure function of (seed, epoch).
    """
    draws = random.Random(stream(seed, "windows", epoch))
    while True:
        center = bptt if draws.random() < 0.95 else bptt / 2
        yield min(max(SHORTEST, int(draws.gauss(center, 5))), bptt + LONGEST)


def stalled(history: Sequence[float], nonmono: int) -> bool:
    """Returns whether averaging begins after the last of these valid nlls, one per epoch.

    The non-monotone trigger of NT-ASGD as in awd-lstm-lm: the last one is above the best of those
    that are more than `nonmono` epochs older.
    """
    earlier = history[:-1]
    return len(earlier) > nonmono and history[-1] > min(earlier[: len(earlier) - nonmono])


class Average:
    """The running mean of parameters over the steps since it was made (Polyak averaging).

    Plain means, no decay: torch's ASGD with lambd 0 and t0 0, but for the first step, which that
    one forgets. Buffers are no part of it.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are after a step."""
        self.steps += 1
        torch._foreach_lerp_(self.values, self.parameters, 1 / self.steps)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """In this context the parameters are the means, and the means the parameters.

        By value: a parameter keeps its memory, which fused kernels hold on to.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        kept = [p.detach().clone() for p in self.parameters]
        torch._foreach_copy_(self.parameters, self.values)
        self.values = kept
