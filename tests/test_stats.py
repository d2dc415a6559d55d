"""bench.stats against tabulated values, scipy's own tests, and the degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats


@pytest.mark.parametrize(
    ("n", "times_s"), [(2, 8.985), (3, 2.484), (5, 1.242), (8, 0.836), (10, 0.715)]
)
def test_half_width_in_units_of_s_is_the_tabulated_one(n: int, times_s: float) -> None:
    values = np.random.default_rng(n).normal(4.0, 0.1, n)
    got = stats.mean_interval(values.tolist())
    assert got.half is not None
    assert got.half / values.std(ddof=1) == pytest.approx(times_s, abs=6e-4)
    assert got.mean == pytest.approx(values.mean())
    assert (got.low, got.high) == (got.mean - got.half, got.mean + got.half)
    assert got.p is None


def test_one_value_has_no_interval() -> None:
    got = stats.mean_interval([4.2])
    assert got == stats.Estimate(4.2, None, 1)
    assert got.low is None and got.high is None
    assert stats.paired({0: 1.0}, {0: 0.5}) == stats.Estimate(0.5, None, 1)
    assert stats.welch([1.0], [0.5, 0.6]).half is None
    assert stats.welch([1.0], [0.5, 0.6]).p is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_infinity_and_nothing_are_refused(bad: float) -> None:
    for values in ([1.0, bad], []):
        with pytest.raises(ValueError, match=r"NaN|no values"):
            stats.mean_interval(values)
    with pytest.raises(ValueError, match="NaN"):
        stats.paired({0: 1.0, 1: bad}, {0: 1.0, 1: 2.0})
    with pytest.raises(ValueError, match="NaN"):
        stats.welch([1.0, 2.0], [bad, 1.0])
    # A bad value outside the complete pairs is nobody's business here.
    assert stats.paired({0: 1.0, 1: bad}, {0: 1.0}) == stats.Estimate(0.0, None, 1)


def test_paired_by_hand_on_complete_pairs_only() -> None:
    # differences 0.1, 0.2, 0.3: mean 0.2, s = 0.1, t = 3.4641 with 2 degrees, p = 0.0742
    a = {0: 1.1, 1: 2.2, 2: 3.3, 7: 99.0}
    b = {0: 1.0, 1: 2.0, 2: 3.0, 5: -99.0}
    got = stats.paired(a, b)
    assert got is not None and got.half is not None and got.p is not None
    assert got.n == 3 and got.mean == pytest.approx(0.2)
    assert got.half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert got.p == pytest.approx(0.0742, abs=5e-5)
    assert stats.paired({0: 1.0}, {1: 1.0}) is None
    assert stats.paired({}, {}) is None


def test_no_spread_at_all() -> None:
    assert stats.mean_interval([0.1 + 0.2, 0.3, 0.3]).half == 0.0
    same = stats.paired({0: 4.1, 1: 4.2}, {0: 4.1, 1: 4.2})
    assert same == stats.Estimate(0.0, 0.0, 2, 1.0)
    # 4.1 - 4.0 and 4.2 - 4.1 differ by rounding only: that is no spread to divide by
    shifted = stats.paired({0: 4.1, 1: 4.2}, {0: 4.0, 1: 4.1})
    assert shifted is not None
    assert (shifted.half, shifted.p) == (0.0, 0.0)
    assert stats.welch([1.0, 1.0], [1.0, 1.0]) == stats.Estimate(0.0, 0.0, 2, 1.0)
    one_sided = stats.welch([1.0, 1.0, 1.0], [1.0, 2.0])
    assert one_sided.half == pytest.approx(12.7062 * 0.5, rel=1e-5)  # all spread, so df, from b


def test_same_as_scipy() -> None:
    import scipy.stats

    rng = np.random.default_rng(7)
    a, b = rng.normal(4.5, 0.02, 5), rng.normal(4.45, 0.05, 8)
    ours, theirs = stats.welch(a.tolist(), b.tolist()), scipy.stats.ttest_ind(a, b, equal_var=False)
    ends = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert [ours.low, ours.high] == pytest.approx([ends.low, ends.high])
    assert ours.n == 5

    pair = stats.paired(dict(enumerate(a)), dict(enumerate(b)))
    theirs = scipy.stats.ttest_rel(a, b[:5])
    ends = theirs.confidence_interval(0.95)
    assert pair is not None and pair.p == pytest.approx(theirs.pvalue)
    assert [pair.low, pair.high] == pytest.approx([ends.low, ends.high])


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


_nll = st.floats(0.0, 20.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(_nll, min_size=1, max_size=8), st.lists(_nll, min_size=1, max_size=8))
def test_signs_and_ranges(a: list[float], b: list[float]) -> None:
    one = stats.mean_interval(a)
    assert min(a) - 1e-9 <= one.mean <= max(a) + 1e-9
    assert (one.half is None) == (len(a) == 1)
    there, back = stats.welch(a, b), stats.welch(b, a)
    assert there.mean == -back.mean and there.p == pytest.approx(back.p)
    pair = stats.paired(dict(enumerate(a)), dict(enumerate(b)))
    assert pair is not None and pair.n == min(len(a), len(b))
    for got in (there, pair):
        assert got.p is None or 0.0 <= got.p <= 1.0
        assert got.half is None or got.half >= 0.0
