"""Intervals and tests over repetitions: the repetition is the unit, all values are nll in nats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % t interval `mean ± half`, in the unit of the values.

    `half` is None where nothing is known of the spread (one value); `p` is the two-sided p value
    of "the mean is 0" for differences and None elsewhere; `n` counts values, pairs, or for `welch`
    the values of the smaller sample.
    """

    mean: float
    half: float | None
    n: int
    p: float | None = None

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half is None else self.mean + self.half


def mean_interval(values: Sequence[float]) -> Estimate:
    """Returns the mean of `values` with its t interval; ValueError if empty, NaN or infinite."""
    x = _checked(values)
    if len(x) == 1:
        return Estimate(float(x[0]), None, 1)
    half, _ = _t(0.0, _spread(x) / math.sqrt(len(x)), len(x) - 1)
    return Estimate(float(x.mean()), half, len(x))


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Returns the mean of `a[rep] - b[rep]` over the reps that both have, None if there is none.

    Repetitions share their random draws, so a difference within one rep loses the spread that
    both sides have in common. ValueError on NaN or infinite values in a complete pair.
    """
    reps = sorted(a.keys() & b.keys())
    if not reps:
        return None
    left, right = _checked([a[r] for r in reps]), _checked([b[r] for r in reps])
    d = left - right
    mean = float(d.mean())
    if len(d) == 1:
        return Estimate(mean, None, 1)
    # Differences of equal numbers carry the rounding of those numbers, not of their own size.
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    half, p = _t(mean, _spread(d, scale) / math.sqrt(len(d)), len(d) - 1)
    return Estimate(mean, half, len(d), p)


def welch(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Returns mean(a) - mean(b) of two independent samples whose variances may differ.

    Without a spread on one side (one value) there is no interval and no p. ValueError if one is
    empty, or holds NaN or infinity.
    """
    x, y = _checked(a), _checked(b)
    n, mean = min(len(x), len(y)), float(x.mean() - y.mean())
    if n == 1:
        return Estimate(mean, None, 1)
    vx, vy = _spread(x) ** 2 / len(x), _spread(y) ** 2 / len(y)
    df = float(len(x) + len(y) - 2)
    if vx + vy > 0:
        share = vx / (vx + vy)  # a ratio first: squares of tiny variances would underflow
        df = 1 / (share**2 / (len(x) - 1) + (1 - share) ** 2 / (len(y) - 1))
    half, p = _t(mean, math.sqrt(vx + vy), df)
    return Estimate(mean, half, n, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p values, in the order given: valid for the family as a whole."""
    p = _checked(p_values) if len(p_values) else np.empty(0)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    factors = np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(v) for v in adjusted]


def _checked(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    x = np.asarray(list(values), dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError("no values")
    if not np.isfinite(x).all():
        raise ValueError("NaN or infinity among the values: leave such runs out, and say so")
    return x


def _spread(x: np.ndarray[tuple[int], np.dtype[np.float64]], scale: float | None = None) -> float:
    """Standard deviation with n - 1; exactly 0 where only rounding of `scale` is left."""
    s = float(x.std(ddof=1))
    size = float(np.abs(x).max()) if scale is None else scale
    return 0.0 if s <= 4 * np.finfo(np.float64).eps * size else s


def _t(mean: float, se: float, df: float) -> tuple[float, float]:
    """Half-width of the t interval and two-sided p of `mean`.

    Without any spread the limit is taken: half-width 0, p = 1 for a mean of 0 and else 0.
    """
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(df, 0.5 + CONFIDENCE / 2)) * se
    if se == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    return half, float(2 * stdtr(df, -abs(mean) / se))
