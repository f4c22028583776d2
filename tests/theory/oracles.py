"""Slow and independent routes to what repdyn computes: dense linear algebra, direct integrals, many digits.

Nothing here is imported from repdyn. ``python tests/theory/oracles.py`` recomputes the table of references.
"""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
from scipy.special import gammaincc, logsumexp, softmax
from scipy.stats import multivariate_normal


class DenseMixture:
    """A Gaussian mixture with n x n covariances, as in a textbook."""

    def __init__(self, bases, delta, weights=None):
        self.projectors = [np.asarray(U, dtype=np.float64) @ np.asarray(U, dtype=np.float64).T for U in bases]
        self.n, self.K = len(self.projectors[0]), len(self.projectors)
        self.weights = np.full(self.K, 1.0 / self.K) if weights is None else np.asarray(weights, dtype=np.float64)
        eye = np.eye(self.n)
        self.covariances = [P + delta**2 * (eye - P) for P in self.projectors]

    def log_joint(self, x, sigma):
        noise = sigma**2 * np.eye(self.n)
        normals = [multivariate_normal(np.zeros(self.n), C + noise) for C in self.covariances]
        return np.stack([np.atleast_1d(normal.logpdf(x)) for normal in normals], axis=1) + np.log(self.weights)

    def log_density(self, x, sigma):
        return logsumexp(self.log_joint(x, sigma), axis=1)

    def class_posterior(self, x, sigma):
        return softmax(self.log_joint(x, sigma), axis=1)

    def posterior_mean(self, x, sigma):
        noise = sigma**2 * np.eye(self.n)
        means = [np.linalg.solve(C + noise, x.T).T @ C for C in self.covariances]
        return np.einsum("bk,kbn->bn", self.class_posterior(x, sigma), np.stack(means))

    def frozen_energies(self, sigma, k=0):
        """Weights and mean energies in each subspace and outside all, with weights frozen at the mean exponents.

        The denoiser becomes a matrix M, and E ||P M x_0||^2 = tr(P M C_k M^T P). The exponent has both its terms.
        """
        C, eye = self.covariances[k], np.eye(self.n)
        xi = np.linalg.eigvalsh(C).min() / (np.linalg.eigvalsh(C).min() + sigma**2)
        zeta = 1.0 / (1.0 + sigma**2)
        inside = np.array([np.trace(P @ C) for P in self.projectors])
        outside = np.array([np.trace((eye - P) @ C) for P in self.projectors])
        weights = softmax((zeta * inside + xi * outside) / (2.0 * sigma**2))
        M = sum(w * (zeta * P + xi * (eye - P)) for w, P in zip(weights, self.projectors, strict=True))
        complement = eye - sum(self.projectors)
        energies = [np.trace(P @ M @ C @ M.T @ P) for P in [*self.projectors, complement]]
        return weights, np.array(energies[:-1]), energies[-1]


def _chi2_nodes(scale, d, width, top):
    """Nodes and probabilities of scale chi^2_d in the extended precision of the machine, on panels in X^(1/2)."""
    points, weights = np.polynomial.legendre.leggauss(20)
    points, weights = points.astype(np.longdouble), weights.astype(np.longdouble)
    high = min(math.sqrt(top), math.sqrt(scale) * (math.sqrt(d) + 11.0))
    low = math.sqrt(scale) * max(0.0, math.sqrt(d) - 11.0)
    if high <= low:
        return np.zeros((2, 0), dtype=np.longdouble)
    step = min(0.5 * math.sqrt(scale), width / (2.0 * high))
    edges = np.linspace(low, high, math.ceil((high - low) / step) + 1).astype(np.longdouble)
    half = 0.5 * np.diff(edges)[:, None]
    root = (edges[:-1, None] + half * (points + 1.0)).ravel()
    r2 = root**2 / np.longdouble(scale)
    with mp.workdps(30):
        constant = np.longdouble(mp.nstr((1 - mp.mpf(d) / 2) * mp.log(2) - mp.loggamma(mp.mpf(d) / 2), 25))
    log_density = (d - 1) * 0.5 * np.log(r2) - 0.5 * r2 + constant - 0.5 * np.log(np.longdouble(scale))
    return root**2, (half * weights).ravel() * np.exp(log_density)


def two_class_csnr(sigma, d, delta, noisy_input=False):
    """The exact CSNR for K = 2, as the double integral over the two energies of a logistic function."""
    s2, d2 = np.longdouble(sigma) ** 2, np.longdouble(delta) ** 2
    zeta, xi = 1 / (1 + s2), d2 / (d2 + s2)
    alpha, beta = (1 + s2, d2 + s2) if noisy_input else (np.longdouble(1), d2)
    c = (1 - d2) / (2 * (1 + s2) * (d2 + s2))
    other, q = _chi2_nodes(float(c * beta), d, 2.0, np.inf)
    top = float(other.max()) + 75.0
    true, p = _chi2_nodes(float(c * alpha), d, 2.0, top)
    signal = noise = np.longdouble(0)
    for chunk in range(0, len(true), 400):
        x, px = true[chunk : chunk + 400, None], p[chunk : chunk + 400]
        w_l = 1 / (1 + np.exp(x - other))
        signal += (px * x[:, 0]) @ (((xi + (zeta - xi) * (1 - w_l)) ** 2) @ q)
        noise += px @ (((xi + (zeta - xi) * w_l) ** 2) @ (q * other))
    half = top / (2.0 * float(c * alpha))  # with more energy than this all weight is on the true class
    beyond, beyond_plain = (np.longdouble(gammaincc(d / 2 + tilt, half)) for tilt in (1, 0))
    return float((signal + zeta**2 * c * alpha * d * beyond) / (noise + xi**2 * c * beta * d * beyond_plain))


def laplace_csnr(sigma, d, K, delta, noisy_input=False):
    """The exact CSNR for any K from w^m = e^(mA) int t^(m-1) e^(-t e^A) e^(-tS) dt and Laplace transforms.

    In the extended precision of the machine, in u = log t on Gauss-Legendre panels.
    """
    s2, d2 = np.longdouble(sigma) ** 2, np.longdouble(delta) ** 2
    zeta, xi = 1 / (1 + s2), d2 / (d2 + s2)
    alpha, beta = (1 + s2, d2 + s2) if noisy_input else (np.longdouble(1), d2)
    c = (1 - d2) / (2 * (1 + s2) * (d2 + s2))
    other = _chi2_nodes(float(c * beta), d, 2.0, np.inf)
    top = float(other[0].max()) + math.log(K) + 60.0
    true = _chi2_nodes(float(c * alpha), d, 2.0, top)
    points, weights = np.polynomial.legendre.leggauss(20)
    edges = np.arange(-top - 60.0, 6.0 - float(other[0].min()), 2.0).astype(np.longdouble)
    u, du = (edges[:, None] + 1.0 + points).ravel(), np.tile(weights, len(edges))
    (phi_k, k1, k2), (phi_l, l1, l2) = ((_laplace(u, *nodes)) for nodes in (true, other))
    others, rest = du * phi_l ** (K - 1), du * phi_k * phi_l ** (K - 2)
    wins = np.longdouble(gammaincc(d / 2 + 1, top / (2.0 * float(c * alpha)))) * c * alpha * d
    gain = zeta - xi
    signal = xi**2 * c * alpha * d + 2 * xi * gain * (k1 @ others + wins) + gain**2 * (k2 @ others + wins)
    noise = xi**2 * c * beta * d + 2 * xi * gain * (l1 @ rest) + gain**2 * (l2 @ rest)
    return float(signal / noise / (K - 1))


def _laplace(u, x, p):
    """E[e^(-z)], E[X z e^(-z)] and E[X z^2 e^(-z)] for z = e^(u + X), at each u."""
    result = np.zeros((3, len(u)), dtype=np.longdouble)
    for chunk in range(0, len(u), 200):
        z = np.exp(np.minimum(u[chunk : chunk + 200, None] + x, 8.0))
        terms = p * np.exp(-z)
        result[:, chunk : chunk + 200] = terms.sum(1), (terms * x * z).sum(1), (terms * x * z * z).sum(1)
    return result


def _mp_nodes(scale, d, top, points):
    """Nodes of X = scale chi^2_d below ``top`` with its probabilities and e^X, in mpmath's precision."""
    half_d, high = mp.mpf(d) / 2, min(top, scale * (mp.sqrt(d) + 12) ** 2)
    low = scale * max(mp.mpf(0), mp.sqrt(d) - 12) ** 2
    if high <= low:
        return []
    panels = int(mp.ceil(max((high - low) / 2, 2 * (mp.sqrt(high / scale) - mp.sqrt(low / scale)))))
    roots = [mp.sqrt(low) + (mp.sqrt(high) - mp.sqrt(low)) * i / panels for i in range(panels + 1)]
    while max(b * b - a * a for a, b in zip(roots, roots[1:])) > 2:
        roots = [r for a, b in zip(roots, roots[1:]) for r in (a, (a + b) / 2)] + [roots[-1]]
    nodes = []
    for a, b in zip(roots, roots[1:]):
        for point, weight in points:
            root = (a + b) / 2 + (b - a) / 2 * point
            x = root**2
            log_p = (half_d - 1) * mp.log(x / scale) - x / (2 * scale) - half_d * mp.log(2) - mp.loggamma(half_d)
            nodes.append((x, (b - a) / 2 * weight * 2 * root / scale * mp.exp(log_p), mp.exp(x)))
    return nodes


def _legendre(order):
    points, _ = np.polynomial.legendre.leggauss(order)
    refined = [mp.findroot(lambda z: mp.legendre(order, z), mp.mpf(float(p))) for p in points]
    slope = [order * (z * mp.legendre(order, z) - mp.legendre(order - 1, z)) / (z * z - 1) for z in refined]
    return [(z, 2 / ((1 - z * z) * dz**2)) for z, dz in zip(refined, slope, strict=True)]


def laplace_csnr_mp(sigma, d, K, delta, noisy_input=False, digits=25, order=16):
    """``laplace_csnr`` in mpmath, with ``digits`` digits: minutes."""
    with mp.workdps(digits):
        s2, d2, points = mp.mpf(sigma) ** 2, mp.mpf(delta) ** 2, _legendre(order)
        zeta, xi = 1 / (1 + s2), d2 / (d2 + s2)
        alpha, beta = (1 + s2, d2 + s2) if noisy_input else (mp.mpf(1), d2)
        c = (zeta - xi) / (2 * s2)
        other = _mp_nodes(c * beta, d, mp.inf, points)
        top = other[-1][0] + mp.log(K) + 60
        true = _mp_nodes(c * alpha, d, top, points)
        sums = [mp.mpf(0)] * 4
        low, high = -top - 60, mp.mpf(5) - other[0][0]
        panels = int(mp.ceil((high - low) / 2))
        for i in range(panels):
            for point, weight in points:
                u = low + (high - low) * (i + (point + 1) / 2) / panels
                measure, t = weight * (high - low) / panels / 2, mp.exp(u)
                phi_k, k1, k2 = _laplace_mp(t, true)
                phi_l, l1, l2 = _laplace_mp(t, other)
                others, rest = phi_l ** (K - 1), phi_k * phi_l ** (K - 2)
                for j, term in enumerate((k1 * others, k2 * others, l1 * rest, l2 * rest)):
                    sums[j] += measure * term
        beyond = c * alpha * d * mp.gammainc(mp.mpf(d) / 2 + 1, top / (2 * c * alpha), regularized=True)
        gain = zeta - xi
        signal = xi**2 * c * alpha * d + 2 * xi * gain * (sums[0] + beyond) + gain**2 * (sums[1] + beyond)
        noise = xi**2 * c * beta * d + 2 * xi * gain * sums[2] + gain**2 * sums[3]
        return float(signal / noise / (K - 1))


def _laplace_mp(t, nodes):
    """E[e^(-t e^X)], E[X t e^X e^(-t e^X)], E[X (t e^X)^2 e^(-t e^X)]."""
    phi = first = second = mp.mpf(0)
    for x, p, e in nodes:
        z = t * e
        if z < 70:
            term = p * mp.exp(-z)
            phi += term
            first += term * x * z
            second += term * x * z * z
    return phi, first, second


def distance_to_peak(curve, t, step=4e-3):
    """Newton's step to where the slope of ``curve`` vanishes, with differences of the sixth order."""
    values = curve(t + step * np.arange(-3, 4))
    slope = values @ np.array([-1, 9, -45, 0, 45, -9, 1]) / (60 * step)
    curvature = values @ np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * step**2)
    return -slope / curvature


# (K, d, delta, sigma, noisy_input), chosen where the exact CSNR is hard: two scales, rare events, many classes.
CORNERS = [
    (3, 5, 0.2, 0.7, False),
    (3, 5, 0.1, 0.4364, False),
    (1000, 1, 0.01, 0.05, False),
    (1000, 5, 0.01, 0.3, False),
    (1000, 32, 0.1, 1.0, False),
    (10, 2, 0.01, 1e-4, False),
    (10, 64, 0.01, 0.03, True),
    (1000, 4, 0.5, 0.5, True),
    (1000, 256, 0.1, 1.8, False),
    (1000, 256, 0.01, 1.0, False),
]

if __name__ == "__main__":
    for corner in CORNERS:
        K, d, delta, sigma, noisy_input = corner
        print(f"    {corner}: {laplace_csnr_mp(sigma, d, K, delta, noisy_input)!r},", flush=True)
