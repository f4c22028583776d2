"""The Frechet distance between Gaussians, its bias with few samples, and its closed form for posterior means."""

from __future__ import annotations

import numpy as np

from repdyn import _checks

__all__ = ["frechet_bias", "frechet_from_moments", "frechet_of_posterior"]


def frechet_from_moments(mean_a: object, covariance_a: object, mean_b: object, covariance_b: object) -> float:
    """||m_a - m_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) from means (D,) and covariances (D, D), in float64.

    Of features of images, FID if they are Inception's. With few samples it is biased upwards (:func:`frechet_bias`):
    compare equal numbers only. The last trace is the sum of the singular values of S_a^(1/2) S_b^(1/2), which exist for
    covariances of any rank.

    Raises ``ValueError`` for shapes that do not fit, and covariances that are not symmetric, positive and finite.
    Source: Dowson and Landau (1982); Heusel et al. (2017), equation 6.

    Equation: ``eq-frechet``
    """
    mean_a, mean_b = np.asarray(mean_a, dtype=np.float64), np.asarray(mean_b, dtype=np.float64)
    if mean_a.ndim != 1 or mean_a.shape != mean_b.shape:
        raise ValueError(f"mean_a and mean_b must both be (D,), got {mean_a.shape} and {mean_b.shape}")
    root_a = _square_root("covariance_a", covariance_a, len(mean_a))
    root_b = _square_root("covariance_b", covariance_b, len(mean_a))
    overlap = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
    difference = mean_a - mean_b
    value = difference @ difference + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap
    return max(float(value), 0.0)


def frechet_bias(covariance: object, num_a: int, num_b: int) -> float:
    """Expected squared distance of ``num_a`` and ``num_b`` samples of one Gaussian of ``covariance`` (D, D).

    To first order in 1 / num: (1 / num_a + 1 / num_b) (5/4 sum_i l_i + 1/2 sum_ij l_i l_j / (l_i + l_j)) with the
    eigenvalues l_i. For D equal ones that is D (D + 5) / 4 of them: the square of D is why an embedding of thousands of
    features needs tens of thousands of images.

    Raises ``ValueError`` for a matrix that is no covariance, and numbers that are not positive integers.

    Equation: ``eq-frechet-bias``
    """
    covariance = np.asarray(covariance, dtype=np.float64)
    size = len(covariance) if covariance.ndim == 2 else 1
    _square_root("covariance", covariance, size)
    rates = [1 / _checks.integer(name, num, 1) for name, num in (("num_a", num_a), ("num_b", num_b))]
    values = np.linalg.eigvalsh(covariance).clip(min=0.0)
    sums = np.add.outer(values, values)
    means = np.divide(np.multiply.outer(values, values), sums, out=np.zeros_like(sums), where=sums > 0)
    return float(sum(rates) * (1.25 * values.sum() + 0.5 * means.sum()))


def frechet_of_posterior(variances: object, sigma: object, *, noisy_input: bool = True) -> float | np.ndarray:
    """Squared distance between a Gaussian of ``variances`` (D,) along its axes and its posterior means at ``sigma``.

    sum_i l_i (1 - (l_i / (l_i + sigma^2))^(1/2))^2; with a clean input the shrinkage has power 1, not 1/2. ``sigma`` is
    a float or an array, in the units of the data, and so is the result.

    Raises ``ValueError`` for variances or a sigma that are negative or not finite.

    Equation: ``eq-frechet-posterior``
    """
    l = np.asarray(variances, dtype=np.float64)  # noqa: E741
    if l.ndim != 1 or not (np.isfinite(l) & (l >= 0)).all():
        raise ValueError(
            "variances must be a vector of finite, non-negative numbers: pass the covariance's eigenvalues"
        )
    s = _checks.sigma_array(sigma)[..., None]
    shrinkage = np.divide(l, l + s**2, out=np.ones(np.broadcast_shapes(l.shape, s.shape)), where=l + s**2 > 0)
    value = (l * (1 - shrinkage ** (0.5 if noisy_input else 1.0)) ** 2).sum(-1)
    return value if value.ndim else float(value)


def _square_root(name: str, covariance: object, size: int) -> np.ndarray:
    """Symmetric square root, without the eigenvalues that are zero but for rounding."""
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.shape != (size, size) or not np.isfinite(covariance).all():
        raise ValueError(f"{name} must be finite, of shape ({size}, {size}), got {covariance.shape}")
    values, vectors = np.linalg.eigh(covariance)
    tolerance = 10 * size * np.finfo(np.float64).eps * np.abs(values).max()
    if values[0] < -1e-6 * np.abs(values).max() or not np.allclose(covariance, covariance.T, rtol=1e-6):
        raise ValueError(f"{name} must be symmetric without negative eigenvalues, got one of {values[0]:.2e}")
    return vectors * np.sqrt(np.where(values > tolerance, values, 0.0)) @ vectors.T
