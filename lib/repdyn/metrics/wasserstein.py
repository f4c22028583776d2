"""The sliced Wasserstein distance between two sets of samples, through POT."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import ot
import torch

from repdyn import _checks

__all__ = ["SlicedWasserstein", "sliced_wasserstein"]


class SlicedWasserstein(NamedTuple):
    """A distance, and the standard error that comes from the random choice of its projections."""

    value: float
    error: float


def sliced_wasserstein(
    x: object, y: object, num_projections: int = 500, *, normalisation: str = "none", seed: int
) -> SlicedWasserstein:
    """Sliced 2-Wasserstein distance: root mean square, over random directions, of the distance of the projections.

    ``x`` (num_x, *shape) and ``y`` (num_y, *shape) are samples, in the same units, which are those of the value; each
    is flattened to n numbers. ``num_projections`` directions, at least 2, are uniform on the unit sphere.
    ``normalisation`` is 'none', or 'dimension' to multiply by sqrt(n), so that a mere shift has its own length at every
    n and images of different size compare. Two samples of one distribution have a positive distance, which falls with
    their number: compare with that of two halves of the data.

    Raises ``ValueError`` for samples of different shape, too few, or not finite, and another normalisation.
    Source: Bonneel et al. (2015), as implemented in POT (Flamary et al., 2021).
    """
    if normalisation not in ("none", "dimension"):
        raise ValueError(f"normalisation must be 'none' or 'dimension', got {normalisation!r}")
    num_projections = _checks.integer("num_projections", num_projections, 2)
    a, b = _rows("x", x), _rows("y", y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x and y must have samples of one size, got {a.shape[1]} and {b.shape[1]} numbers in each")
    rng = np.random.RandomState(_checks.integer("seed", seed, 0))  # what POT takes
    _, log = ot.sliced_wasserstein_distance(a, b, n_projections=num_projections, seed=rng, log=True)
    squares = log["projected_emds"]  # (num_projections,)
    value = math.sqrt(squares.mean())
    error = squares.std(ddof=1) / math.sqrt(num_projections) / (2 * value) if value > 0 else 0.0
    scale = math.sqrt(a.shape[1]) if normalisation == "dimension" else 1.0
    return SlicedWasserstein(scale * value, float(scale * error))


def _rows(name: str, samples: object) -> np.ndarray:
    samples = torch.as_tensor(samples)
    if samples.ndim < 2 or samples.numel() == 0:
        raise ValueError(f"{name} must be (num, *shape) with num > 0, got {tuple(samples.shape)}")
    rows = samples.detach().flatten(1).to("cpu", torch.float64)
    return _checks.samples(name, rows, rows.shape[1]).numpy()
