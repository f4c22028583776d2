"""Moments of a softmax weight over independent chi-squared energies, by quadrature.

The softmax weight of class l is a probability: w_l = P(class l has the largest X_j + G_j), where X_j is the energy of
class j in units of the exponent and the G_j are independent standard Gumbel variables. Conditioning on the largest
value s makes the other classes independent of each other, which leaves one integral over s of products of

    F_X(s) = E[exp(-e^(X - s))]                    the distribution function of X + G,
    p_X,m(s) = E[e^(m (X - s)) exp(-e^(X - s))]    its density for m = 1, and what gives w^m for m = 2

(s = -log t turns these into the Laplace transforms of e^X). Everything is positive, so that nothing cancels; the
functions of s are smooth on a scale of about one however concentrated or spread out X is, which is why a plain
trapezoid rule in s and Gauss-Legendre panels in X reach rounding. The cost depends neither on n nor on K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

__all__ = ["SoftmaxMoments", "softmax_moments"]

STEP = 0.25  # of the trapezoid rule in s, whose error is about exp(-pi^2 / STEP)
PANEL = 3.0  # widest panel in X
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)  # of each panel


class SoftmaxMoments(NamedTuple):
    """E[X w] / E[X] and E[X w^2] / E[X], of the true class and of another, each with its own energy X and weight w."""

    true_first: float
    true_second: float
    other_first: float
    other_second: float


class _Energy(NamedTuple):
    """Nodes of X = scale chi^2_d with their probabilities, under that law and with the density times X / E[X]."""

    x: np.ndarray
    plain: np.ndarray
    weighted: np.ndarray


def softmax_moments(true_scale: float, other_scale: float, d: int, K: int, tail: float) -> SoftmaxMoments:
    """Energy-weighted moments of w = softmax(X) for K independent energies X.

    X = true_scale chi^2_d for one class and other_scale chi^2_d for the other K - 1. Probabilities below ``tail``
    are left out, which bounds the absolute error.
    """
    reach = -np.log(tail)  # the kernels live on -log(reach) < s - X < reach
    other_low, other_high = other_scale * support(d, tail)
    certain = other_high + np.log(K) + reach  # with more energy than this the true class wins
    other, true = energy(other_scale, d, tail, np.inf), energy(true_scale, d, tail, certain)
    s = np.arange(other_low - np.log(reach), certain + reach, STEP)

    other_cdf, other_first, other_second = transforms(s, other)
    true_cdf, true_first, true_second = transforms(s, true)
    wins = special.chdtrc(d + 2, certain / true_scale) if true_scale > 0.0 else 0.0
    all_lose, rivals_lose = other_cdf ** (K - 1), true_cdf * other_cdf ** (K - 2)
    return SoftmaxMoments(
        wins + STEP * np.sum(true_first * all_lose),
        wins + STEP * np.sum(true_second * all_lose),
        STEP * np.sum(other_first * rivals_lose),
        STEP * np.sum(other_second * rivals_lose),
    )


def support(d: int, tail: float) -> np.ndarray:
    """Where chi^2_d, and chi^2_{d+2}, have all but ``tail`` of their probability."""
    return 2.0 * np.array([special.gammaincinv(d / 2, tail), special.gammainccinv(d / 2 + 1, tail)])


def energy(scale: float, d: int, tail: float, top: float) -> _Energy:
    """Nodes and probabilities of scale chi^2_d below ``top``, from the density of r = sqrt(chi^2_d)."""
    low, high = np.sqrt(support(d, tail))
    r, width = _panels(0.0, low, high)
    total = np.sum(width * _density(r, d))  # more accurate than the gamma function, and a power K of it is taken
    cut = np.sqrt(top / scale) if scale * high**2 > top else high
    r, width = _panels(scale, low, max(low, cut))
    plain = width * _density(r, d) / total
    return _Energy(scale * r**2, plain, plain * r**2 / d)


def _density(r: np.ndarray, d: int) -> np.ndarray:
    """Density of chi_d, but for a factor: r^(d-1) exp(-r^2 / 2). No singularity at 0, and as wide for every d."""
    return np.exp((d - 1) * np.log(r / np.sqrt(d)) - 0.5 * (r**2 - d))


def _panels(scale: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on panels of equal width in r + scale r^2 / PANEL.

    So none is wider than 1 in r, the scale of the density, or than PANEL in X = scale r^2, the scale of the kernels.
    """
    first, last = (r + scale * r**2 / PANEL for r in (low, high))
    edges = np.linspace(first, last, int(np.ceil(last - first)) + 1)
    edges = 2.0 * edges / (1.0 + np.sqrt(1.0 + 4.0 * scale / PANEL * edges))  # back to r
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    return (middle + half * NODES).ravel(), (half * WEIGHTS).ravel()


def transforms(s: np.ndarray, energy: _Energy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[G] under the plain law, E[e^z G] and E[e^2z G] under the weighted one, with z = X - s and G = exp(-e^z)."""
    rate = np.exp(np.minimum(energy.x - s[:, None], 7.0))  # (len(s), nodes); exp(-e^7) is 0
    kernel = np.exp(-rate)
    cdf = kernel @ energy.plain
    kernel *= rate
    first = kernel @ energy.weighted
    kernel *= rate
    return cdf, first, kernel @ energy.weighted
