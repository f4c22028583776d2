"""Bootstrap counts and rank correlation, against an explicit resampling and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from repdyn.metrics.resampling import interval, resample_counts, spearman, unrelated_peaks


def test_counts_are_those_of_items_drawn_with_replacement() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    counts = resample_counts(50, 4000, 1)
    assert counts.shape == (4000, 50) and (counts.sum(1) == 50).all() and (counts >= 0).all()
    # Of N items drawn N times a share of (1 - 1/N)^N is never drawn, and a mean spreads as s / sqrt(N).
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.005)
    means = counts @ values / 50
    assert means.std() == pytest.approx(values.std() / 50**0.5, rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / 50**0.5 / 4000**0.5)
    np.testing.assert_array_equal(counts, resample_counts(50, 4000, 1))
    assert not np.array_equal(counts, resample_counts(50, 4000, 2))
    assert resample_counts(50, 0, 1).shape == (0, 50)


def test_spearman_is_scipys_with_ties_and_broadcast() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (3, 1, 10)).astype(float), rng.standard_normal((4, 10))
    found = spearman(a, b)
    assert found.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert found[i, j] == pytest.approx(spearmanr(a[i, 0], b[j]).statistic, abs=1e-12)


def test_spearman_sees_order_only() -> None:
    x = np.array([0.1, 0.5, 0.2, 0.9])
    assert spearman(x, np.exp(5 * x)) == pytest.approx(1) and spearman(x, -x) == pytest.approx(-1)
    assert spearman(x, np.ones(4)) == 0


@pytest.mark.parametrize(("a", "b"), [(np.ones(3), np.ones(4)), (np.ones(1), np.ones(1)), (1.0, 2.0)])
def test_what_is_no_pair_of_curves_is_refused(a: object, b: object) -> None:
    with pytest.raises(ValueError, match="a and b must share a last axis of 2 or more"):
        spearman(a, b)


def test_interval_covers_what_it_says() -> None:
    draws = np.random.default_rng(0).standard_normal((200_000, 2)) * [1, 3]
    low, high = interval(draws, 0.9)
    np.testing.assert_allclose([low, high], [[-1.645, -4.935], [1.645, 4.935]], rtol=0.02)


def test_unrelated_peaks_against_all_cases_of_three_levels() -> None:
    """With three levels a peak is at either end (one order) or in the middle (two): enumerate the pairs."""
    orders = [([3, 2, 1], 1 / 3), ([1, 3, 2], 1 / 6), ([2, 3, 1], 1 / 6), ([1, 2, 3], 1 / 3)]
    expected: dict[float, float] = {}
    for a, p in orders:
        for b, q in orders:
            rho = round(float(spearmanr(a, b).statistic), 6)
            expected[rho] = expected.get(rho, 0) + p * q
    found = unrelated_peaks(3, 20_000, 0).round(6)
    assert set(np.unique(found)) == set(expected)
    for rho, probability in expected.items():
        assert (found == rho).mean() == pytest.approx(probability, abs=0.015)
    with pytest.raises(ValueError, match="levels must be at least 3, got 2"):
        unrelated_peaks(2, 10, 0)
