"""How sure a curve is: test items drawn again and again, and the rank correlation of curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from repdyn import _checks

__all__ = [
    "PeakHeight",
    "height_above_ends",
    "interval",
    "peak_height",
    "resample_counts",
    "spearman",
    "unrelated_peaks",
]


def resample_counts(num: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of ``num`` items is drawn in each bootstrap resample: (resamples, num), float64, rows sum to num.

    A sum over a resample is then a matrix product with the items' values, for many values at once.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, num))
    for row in counts:
        row[:] = np.bincount(rng.integers(0, num, num), minlength=num)
    return counts


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis, ties sharing their mean rank; other axes broadcast.

    0 where one of the two is constant: then there is no order to agree with. Raises ``ValueError`` when the last axes
    differ or have fewer than two entries.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape[-1:] != b.shape[-1:] or a.ndim == 0 or a.shape[-1] < 2:
        raise ValueError(f"a and b must share a last axis of 2 or more, got {a.shape} and {b.shape}: pass curves")
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (rankdata(a, axis=-1), rankdata(b, axis=-1)))
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), norm, out=np.zeros(norm.shape), where=norm > 0)


def interval(resampled: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis: (low, high), each of the shape of the other axes."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def unrelated_peaks(levels: int, draws: int, seed: int) -> np.ndarray:
    """Rank correlations (draws,) of pairs of curves over ``levels`` that have one peak each and nothing else in common.

    A curve rises to a peak at a random level and falls from it; how the two flanks interleave is random too. This is
    what a correlation must exceed before it says more than that both curves have a peak somewhere. Raises
    ``ValueError`` for fewer than three levels.
    """
    if levels < 3:
        raise ValueError(f"levels must be at least 3, got {levels}: a peak needs two sides")
    rng = np.random.default_rng(seed)

    def curves() -> np.ndarray:
        """Curves (draws, levels) that rise to a level drawn evenly and fall from it."""
        values = np.sort(rng.random((draws, levels)), axis=1)
        order = rng.permuted(np.tile(np.arange(levels - 1), (draws, 1)), axis=1)  # who of the others goes where
        peak = rng.integers(0, levels, draws)
        found = np.empty((draws, levels))
        for row, value, places, top in zip(found, values, order, peak, strict=True):
            left, right = np.sort(places[:top]), np.sort(places[top:])[::-1]
            row[:] = np.concatenate([value[left], value[-1:], value[right]])
        return found

    return spearman(curves(), curves())


class PeakHeight(NamedTuple):
    """Height of a curve's peak above its two ends, each with a bootstrap interval, and where the peak is."""

    index: int  # type: ignore[assignment]  # the peak's place; a tuple's own index() is not needed here
    above_left: float
    left_interval: tuple[float, float]
    above_right: float
    right_interval: tuple[float, float]


def height_above_ends(
    heights: Callable[[np.ndarray], np.ndarray],
    num: int,
    index: int,
    *,
    num_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PeakHeight:
    """How far any score at noise level ``index`` stands above that at the lowest and the highest one, with intervals.

    ``heights`` takes counts (B, num), how often each of ``num`` test items is in each of B sets, and returns (B, 2),
    how far the score of each set stands above that at the lowest level and above that at the highest. Items are drawn
    ``num_resamples`` times, by :func:`resample_counts` from ``seed``, with the peak's place kept; intervals are
    percentiles that hold a share ``level``.

    Raises ``ValueError`` for a level outside (0, 1), no items or no resamples.
    """
    num, num_resamples = _checks.integer("num", num, 1), _checks.integer("num_resamples", num_resamples, 1)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}: pass the share that an interval holds, such as 0.95")
    above = heights(np.ones((1, num)))[0]  # (2,), of the test set itself
    low, high = interval(heights(resample_counts(num, num_resamples, seed)), level)
    left, right = ((float(low[i]), float(high[i])) for i in range(2))
    return PeakHeight(index, float(above[0]), left, float(above[1]), right)


def peak_height(
    correct: np.ndarray, index: int | None = None, *, num_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> PeakHeight:
    """How far the best noise level stands above the lowest and the highest one, in accuracy: :func:`height_above_ends`.

    ``correct`` (S, N) says for S noise levels, in rising order, which of N items were classified correctly (0 or 1, or
    a mean over seeds). ``index`` is the best level, chosen on other items; by default it is the best on ``correct``
    itself, which flatters a flat curve: the highest of several equals stands above the rest by luck. An interval above
    zero on both sides is what the book calls unimodal.

    Raises ``ValueError`` for another shape, fewer than three levels, and what :func:`height_above_ends` refuses.
    """
    correct = np.asarray(correct, dtype=np.float64)
    if correct.ndim != 2 or correct.shape[0] < 3:
        raise ValueError(f"correct must be (S, N) with S >= 3 noise levels, got {correct.shape}")
    index = int(correct.mean(1).argmax()) if index is None else index
    ends, num = correct[index] - correct[[0, -1]], correct.shape[1]  # (2, N)
    return height_above_ends(
        lambda counts: counts @ ends.T / num, num, index, num_resamples=num_resamples, level=level, seed=seed
    )
