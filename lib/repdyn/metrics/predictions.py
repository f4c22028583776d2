"""How far predicted probabilities can be trusted, and how alike the errors of several predictors are."""

from __future__ import annotations

import numpy as np
import torch

from repdyn import _checks

__all__ = ["calibration_error", "error_correlation"]


def calibration_error(probabilities: object, labels: object, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, over ``bins`` equal intervals.

    ``probabilities`` (N, classes), rows that sum to one; ``labels`` (N,), integers that index the columns. The
    confidence of an item is its highest probability; the intervals (0, 1/bins], ..., (1 - 1/bins, 1] of confidence have
    equal width and count by the items in them. An honest predictor does not get zero from few items: the gap of a bin
    with n items is of the order of 1 / sqrt(n).

    Raises ``ValueError`` for shapes that do not fit, rows that do not sum to one, and labels out of range.
    Source: Naeini et al. (2015), Guo et al. (2017), whose number of bins is the default.
    """
    bins = _checks.integer("bins", bins, 1)
    p = _array(probabilities)
    if p.ndim != 2 or not len(p):
        raise ValueError(f"probabilities must be (N, classes) with N > 0, got {p.shape}")
    if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(1), 1, atol=1e-4)):
        raise ValueError("probabilities must be non-negative rows that sum to 1: pass a softmax, not logits")
    y = _checks.class_labels(labels, len(p), p.shape[1]).cpu().numpy()
    confidence, right = p.max(1), p.argmax(1) == y
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)  # of each bin, times its items
    return float(np.abs(gaps).sum() / len(p))


def error_correlation(correct: object) -> float:
    """Mean correlation of the errors of two of P predictors, over all pairs: 1 when they fail on the same items.

    ``correct`` (P, N) says which of N items each gets right, P at least 2. 0 is what independent predictors have.

    Raises ``ValueError`` for other shapes, and for a predictor that is always right or always wrong, whose errors
    correlate with nothing.
    """
    right = _array(correct)
    if right.ndim != 2 or len(right) < 2:
        raise ValueError(f"correct must be (P, N) with P >= 2, got {right.shape}")
    if (right.std(1) == 0).any():
        raise ValueError("correct has a predictor that is always right or always wrong: leave it out")
    return float(np.corrcoef(right)[np.triu_indices(len(right), 1)].mean())


def _array(values: object) -> np.ndarray:
    """In float64: a tensor on any device, or what numpy makes an array of, lists of tensors included."""
    if torch.is_tensor(values):
        values = values.detach().cpu().double()  # numpy has no bfloat16
    return np.asarray(values, dtype=np.float64)
