"""Bootstrap counts and rank correlation, against an explicit resampling and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr

from repdyn.metrics.resampling import (
    height_above_ends,
    interval,
    peak_height,
    resample_counts,
    spearman,
    unrelated_peaks,
)


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
    assert spearman(x[:2], [5, 7]) == pytest.approx(1) and spearman([2, 1], [5, 7]) == pytest.approx(-1)


@pytest.mark.parametrize(("a", "b"), [(np.ones(3), np.ones(4)), (np.ones(1), np.ones(1)), (1.0, 2.0)])
def test_what_is_no_pair_of_curves_is_refused(a: object, b: object) -> None:
    with pytest.raises(ValueError, match="a and b"):
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
    with pytest.raises(ValueError, match="levels"):
        unrelated_peaks(2, 10, 0)


# ------------------------------------------------------------------------------------------------- height of a peak


def test_heights_against_the_percentile_bootstrap_of_scipy() -> None:
    """Guards the resampling itself: ends, pairing and percentiles, with another library's draws."""
    values = np.random.default_rng(0).gamma(2.0, size=(3, 80)) + np.array([[0.0], [0.6], [0.1]])  # a score an item
    ends = values[1] - values[[0, 2]]

    def heights(counts: np.ndarray) -> np.ndarray:
        return counts @ ends.T / 80

    found = height_above_ends(heights, 80, 7, num_resamples=4000, level=0.9, seed=3)
    assert found.index == 7
    for i, (height, ours) in enumerate(
        ((found.above_left, found.left_interval), (found.above_right, found.right_interval))
    ):
        assert height == pytest.approx(ends[i].mean(), rel=1e-12)
        theirs = bootstrap((ends[i],), np.mean, n_resamples=4000, confidence_level=0.9, method="percentile", rng=0)
        assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.15 * ends[i].std() / 80**0.5)


def test_the_defaults_are_what_the_records_were_made_with() -> None:
    """Guards the numbers of resamples and the level of every interval that the book shows."""
    scores = np.random.default_rng(0).random((3, 40)) + np.array([[0.5], [0.8], [0.6]])
    assert peak_height(scores, 1) == peak_height(scores, 1, num_resamples=2000, level=0.95, seed=0)
    ends = scores[1] - scores[[0, 2]]
    assert height_above_ends(lambda counts: counts @ ends.T / 40, 40, 1) == peak_height(scores, 1)
    draws = np.random.default_rng(1).standard_normal(1000)
    assert interval(draws) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=1e-12)


def test_level_and_number_of_resamples_are_passed_on() -> None:
    """Guards that an interval is that of the resamples asked for, at the level asked for, draw by draw."""
    correct = (np.random.default_rng(0).random((3, 40)) < np.array([[0.5], [0.8], [0.6]])).astype(float)
    peak = peak_height(correct, 1, num_resamples=30, level=0.6, seed=5)
    rng = np.random.default_rng(5)
    drawn = np.array([rng.integers(0, 40, 40) for _ in range(30)])  # (30, 40)
    means = (correct[1] - correct[[0, -1]])[:, drawn].mean(2)  # (2, 30)
    assert peak.left_interval == pytest.approx(tuple(np.quantile(means[0], [0.2, 0.8])), rel=1e-12)
    assert peak.right_interval == pytest.approx(tuple(np.quantile(means[1], [0.2, 0.8])), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"level": 1.0}, "level"), ({"level": 0.0}, "level"), ({"num_resamples": 0}, "num_resamples")],
)
def test_intervals_of_nothing_are_refused(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        peak_height(np.eye(3), 1, **options)
    with pytest.raises(ValueError, match="num must"):
        height_above_ends(lambda counts: counts, 0, 1)
