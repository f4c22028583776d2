"""Calibration and the correlation of errors, on few items by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repdyn.metrics import calibration_error, error_correlation


def test_an_interval_of_confidence_holds_its_upper_end() -> None:
    """Guards the edges of the intervals: (0, 1/2] and (1/2, 1]."""
    p = np.array([[0.5, 0.5], [0.6, 0.4]])
    assert calibration_error(p, [0, 1], bins=2) == pytest.approx((0.5 + 0.6) / 2)
    assert calibration_error(p, [0, 1], bins=1) == pytest.approx(abs(0.5 - 0.6) / 2)
    assert calibration_error([[1.0, 0.0], [0.95, 0.05]], [0, 1], bins=10) == pytest.approx(0.95 / 2)
    above = [[1.00005, 0.0], [0.95, 0.05]]  # by rounding: it counts in the last interval too
    assert calibration_error(above, [0, 0], bins=10) == pytest.approx((0.05 - 0.00005) / 2, rel=1e-6)


def test_fifteen_intervals_unless_told_otherwise() -> None:
    """Guards the default, which is that of the literature."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 300)
    labels = (p.cumsum(1) > rng.random((300, 1))).argmax(1)
    assert calibration_error(p, labels) == calibration_error(p, labels, bins=15) != calibration_error(p, labels, 16)
    assert calibration_error(torch.tensor([[0.75, 0.25]]).bfloat16(), torch.tensor([0])) == 0.25


def test_what_is_no_probability_is_refused() -> None:
    """Guards each part of the check by itself."""
    for rows in ([[1.5, -0.5]], [[np.nan, 1.0]], [[0.5, 0.6]], [[0.5, 0.5 + 1.5e-4]]):
        with pytest.raises(ValueError, match="probabilities"):
            calibration_error(rows, [0])
    assert calibration_error([[0.5, 0.5 + 5e-5]], [1], bins=1) == pytest.approx(0.5, abs=1e-3), "single precision"
    with pytest.raises(ValueError, match="probabilities"):
        calibration_error(np.zeros((0, 2)), [])


def test_pairs_of_predictors_count_once_and_none_with_itself() -> None:
    """Guards which correlations are averaged: P (P - 1) / 2 of them."""
    correct = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]).bool()
    assert error_correlation(correct) == pytest.approx((0 + 1 + 0) / 3, abs=1e-12)
    assert error_correlation([[1, 1, 0, 0], [0, 0, 1, 1]]) == pytest.approx(-1)
    for wrong in ([1, 0, 1], [[1, 0, 1]], [[1, 0], [1, 1]]):
        with pytest.raises(ValueError, match="correct"):
            error_correlation(wrong)
