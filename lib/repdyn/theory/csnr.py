"""The class signal-to-noise ratio (CSNR): how much of an estimate lies in the subspace of its own class.

``csnr`` measures it on the output of any denoiser. For the optimal denoiser of a noisy MoLRG with K mutually
orthogonal subspaces of equal dimension d and equal weights it depends on sigma, d, K and delta only, and two routes
give it: ``theorem2``, the paper's approximation, in which the class weights are those of the average energies; and
``exact``, which averages over the energies, by quadrature.

The functions of sigma take a float, an array or a tensor of any shape, in the units of the data, and return the same:
a float, a float64 array, a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from repdyn import _checks
from repdyn.theory._quadrature import softmax_moments

__all__ = ["Energies", "Peak", "class_confidence", "csnr", "exact", "exact_energies", "lemma1", "peak", "theorem2"]


class Energies(NamedTuple):
    """Mean squared norm of the estimate inside its own class's subspace, inside each other one, outside them all."""

    true_class: float | np.ndarray | torch.Tensor
    other_class: float | np.ndarray | torch.Tensor
    complement: float | np.ndarray | torch.Tensor


class Peak(NamedTuple):
    """Where the CSNR is largest, and how large."""

    sigma: float
    value: float


def csnr(x0_hat: object, labels: object, bases: object) -> float:
    """Measure the CSNR: E ||U_k^T x0_hat||^2 / E sum_{l != k} ||U_l^T x0_hat||^2, k the class of the sample.

    A ratio of two expectations, not an expectation of ratios. ``x0_hat`` (num, n) are estimates or features,
    ``labels`` (num,) integers in 0..K-1, ``bases`` K matrices (n, d_l) with orthonormal columns, not necessarily
    orthogonal to each other. Infinite when nothing lies in the other subspaces.

    Raises ``ValueError`` for wrong shapes, labels out of range, NaN, fewer than two bases, or bases not orthonormal.
    Source: Li et al., arXiv 2502.05743, Definition 1.

    Equation: ``eq-csnr``
    """
    frames = _checks.orthonormal_bases(bases)
    if len(frames) < 2:
        raise ValueError("bases must hold at least 2 classes, got 1: the CSNR compares a class with the others")
    x = _checks.samples("x0_hat", x0_hat, frames[0].shape[0]).detach().to(torch.float64)
    if len(x) == 0:
        raise ValueError("x0_hat must hold at least one sample, got none: pass some")
    labels = _checks.class_labels(labels, len(x), len(frames)).to(x.device)
    energies = torch.stack([(x @ frame.to(x.device)).square().sum(1) for frame in frames], dim=1)  # (num, K)
    own = torch.nn.functional.one_hot(labels, len(frames)).bool()
    signal, noise = energies[own].sum().item(), energies[~own].sum().item()
    if signal == noise == 0.0:
        raise ValueError("x0_hat has no component in any of the subspaces: the CSNR is 0 / 0, check the bases")
    return signal / noise if noise > 0.0 else float("inf")


def class_confidence(sigma: object, *, d: int, K: int, delta: float) -> tuple:
    """Class weights of the average energies, (w_plus, w_minus): of the true class and of each other one.

    w_plus = 1 / (1 + (K - 1) exp(-a)) with a = d (1 - delta^2)^2 / (2 (1 + sigma^2) (delta^2 + sigma^2)), and
    w_minus = (1 - w_plus) / (K - 1). This is softmax_l E[g_l(x_0)] for a clean input.

    Raises ``ValueError`` for arguments out of range, and for sigma = 0 when delta = 0.
    Source: Li et al., arXiv 2502.05743, the approximation before Lemma 1.

    Equation: ``eq-class-confidence``
    """
    d, K, delta = _model(d, K, delta)
    s = _checks.sigma_array(sigma, positive=delta == 0.0)
    advantage = d * (1.0 - delta**2) ** 2 / (2.0 * (1.0 + s**2) * (delta**2 + s**2))
    odds = np.exp(-advantage)  # of one other class against the true one
    return _like(sigma, 1.0 / (1.0 + (K - 1) * odds)), _like(sigma, odds / (1.0 + (K - 1) * odds))


def lemma1(sigma: object, *, n: int, d: int, K: int, delta: float) -> Energies:
    """Mean energies of the estimate from a clean input, under the weights of ``class_confidence``.

    E ||U_k^T x0_hat||^2 = d (xi + w_plus (zeta - xi))^2 for the true class, delta^2 d (xi + w_minus (zeta - xi))^2
    for each other class, (n - K d) delta^2 xi^2 outside all of them, with zeta = 1 / (1 + sigma^2) and
    xi = delta^2 / (delta^2 + sigma^2).

    Raises ``ValueError`` for arguments out of range, K d > n, and for sigma = 0 when delta = 0.
    Source: Li et al., arXiv 2502.05743, Lemma 1.

    Equation: ``eq-lemma1``
    """
    d, K, delta = _model(d, K, delta)
    if K * d > _checks.integer("n", n, 1):
        raise ValueError(f"n = {n} has no room for K * d = {K * d} dimensions: pass a larger n, or smaller K or d")
    s = _checks.sigma_array(sigma)
    w_plus, w_minus = class_confidence(s, d=d, K=K, delta=delta)
    zeta, xi = 1.0 / (1.0 + s**2), delta**2 / (delta**2 + s**2)
    true_class = d * (xi + w_plus * (zeta - xi)) ** 2
    other_class = delta**2 * d * (xi + w_minus * (zeta - xi)) ** 2
    complement = (n - K * d) * delta**2 * xi**2
    return Energies(*(_like(sigma, energy) for energy in (true_class, other_class, complement)))


def theorem2(sigma: object, *, d: int, K: int, delta: float) -> float | np.ndarray | torch.Tensor:
    """The paper's approximation of the CSNR of the optimal denoiser at a clean input.

    1 / ((K - 1) delta^2) * ((1 + sigma^2 / delta^2 h(w_plus)) / (1 + sigma^2 / delta^2 h(w_minus)))^2 with
    h(w) = (1 - delta^2) w + delta^2: the denoising rate sigma^2 / delta^2 grows with sigma, the class confidence
    w_plus falls. Close to ``exact`` at both ends, not at the peak.

    Raises ``ValueError`` for arguments out of range; delta must be positive.
    Source: Li et al., arXiv 2502.05743, Theorem 2.

    Equation: ``eq-theorem2``
    """
    d, K, delta = _model(d, K, delta, positive=True)
    s = _checks.sigma_array(sigma)
    w_plus, w_minus = class_confidence(s, d=d, K=K, delta=delta)
    denoising_rate = (s / delta) ** 2
    signal = 1.0 + denoising_rate * ((1.0 - delta**2) * w_plus + delta**2)
    noise = 1.0 + denoising_rate * ((1.0 - delta**2) * w_minus + delta**2)
    return _like(sigma, (signal / noise) ** 2 / ((K - 1) * delta**2))


def exact(
    sigma: object, *, d: int, K: int, delta: float, noisy_input: bool = False
) -> float | np.ndarray | torch.Tensor:
    """The CSNR of the optimal denoiser, without approximation: a two-dimensional quadrature.

    E[(xi + (zeta - xi) w_k)^2 E_k] / ((K - 1) E[(xi + (zeta - xi) w_l)^2 E_l]) with w = softmax(c E), independent
    energies E_k ~ alpha chi^2_d for the true class and E_l ~ beta chi^2_d for the others, and
    c = (zeta - xi) / (2 sigma^2). The input is clean, (alpha, beta) = (1, delta^2), or with ``noisy_input`` the noised
    sample, (alpha, beta) = (1 + sigma^2, delta^2 + sigma^2).

    Accurate to about 1e-12, relative. The time, some milliseconds a value, grows with d but not with K, and there is
    no n in it.

    Raises ``ValueError`` for arguments out of range; delta must be positive.

    Equation: ``eq-exact-csnr``
    """
    d, K, delta = _model(d, K, delta, positive=True)
    s = _checks.sigma_array(sigma)
    inside = [_exact_at(float(level), d, K, delta, noisy_input) for level in s.ravel()]
    values = [own / other / (K - 1) for own, other in inside]
    return _like(sigma, np.array(values, dtype=np.float64).reshape(s.shape))


def exact_energies(sigma: object, *, n: int, d: int, K: int, delta: float, noisy_input: bool = False) -> Energies:
    """Mean energies of the optimal denoiser's estimate, without approximation: what ``exact`` is the ratio of.

    E[(xi + (zeta - xi) w_k)^2 E_k] in the true class's subspace, E[(xi + (zeta - xi) w_l)^2 E_l] in each other one, and
    (n - K d) xi^2 delta^2 outside all of them, or with ``noisy_input`` (n - K d) xi^2 (delta^2 + sigma^2).

    Raises ``ValueError`` for arguments out of range and K d > n; delta must be positive.

    Equation: ``eq-exact-energies``
    """
    d, K, delta = _model(d, K, delta, positive=True)
    if K * d > _checks.integer("n", n, 1):
        raise ValueError(f"n = {n} has no room for K * d = {K * d} dimensions: pass a larger n, or smaller K or d")
    s = _checks.sigma_array(sigma)
    inside = [_exact_at(float(level), d, K, delta, noisy_input) for level in s.ravel()]
    xi = delta**2 / (delta**2 + s**2)
    own, other = (d * xi**2 * np.reshape(values, s.shape) for values in zip(*inside, strict=True))
    outside = (n - K * d) * xi**2 * (delta**2 + (s**2 if noisy_input else 0.0))
    return Energies(*(_like(sigma, energy) for energy in (own, other, outside)))


def _exact_at(s: float, d: int, K: int, delta: float, noisy_input: bool) -> tuple[float, float]:
    """Energies of the true class and of another at one noise level, both divided by d xi^2."""
    alpha, beta = (1.0 + s**2, delta**2 + s**2) if noisy_input else (1.0, delta**2)
    c = (1.0 - delta**2) / (2.0 * (1.0 + s**2) * (delta**2 + s**2))
    gain = (1.0 - delta**2) / delta**2 * (s**2 / (1.0 + s**2))  # (zeta - xi) / xi
    # The moments enter as gain w and (gain w)^2 beside 1: probabilities below this do not count.
    w = softmax_moments(c * alpha, c * beta, d, K, tail=1e-16 / (1.0 + gain) ** 2)
    signal = 1.0 + 2.0 * gain * w.true_first + gain**2 * w.true_second
    noise = 1.0 + 2.0 * gain * w.other_first + gain**2 * w.other_second
    return alpha * signal, beta * noise


def peak(*, d: int, K: int, delta: float, method: str = "exact", noisy_input: bool = False) -> Peak:
    """The noise level at which the CSNR is largest, and its value there.

    ``method`` is "exact" or "theorem2"; ``noisy_input`` is for "exact" only. A scan in log sigma brackets the maximum,
    then the maximum of a Chebyshev interpolant, twice, finds it to 1e-8 of sigma or better. With a noisy input the CSNR
    can fall from the start: then sigma is 0.

    Raises ``ValueError`` for arguments out of range, or another method.

    Equation: ``eq-peak``
    """
    d, K, delta = _model(d, K, delta, positive=True)
    if method not in ("exact", "theorem2"):
        raise ValueError(f"method must be 'exact' or 'theorem2', got {method!r}: pass one of them")
    if method == "theorem2" and noisy_input:
        raise ValueError("noisy_input must be False for method 'theorem2', which knows clean inputs only: use 'exact'")
    options = {"noisy_input": noisy_input} if method == "exact" else {}

    def ratio(sigma: np.ndarray | float) -> np.ndarray:
        return np.asarray({"exact": exact, "theorem2": theorem2}[method](sigma, d=d, K=K, delta=delta, **options))

    def curve(log_sigma: np.ndarray) -> np.ndarray:
        return np.log(ratio(np.exp(log_sigma)))

    # The CSNR turns where the odds are even, sigma^2 (1 + sigma^2) ~ d, at the latest.
    scan, step = np.linspace(np.log(0.01 * delta), np.log(10.0 * d**0.25), 49, retstep=True)
    top = int(np.argmax(curve(scan)))
    if top == 0:
        return Peak(0.0, 1.0 / ((K - 1) * delta**2))
    best = scan[top]
    for width in (step, 0.1 * step):
        best = _maximiser(curve, best - width, best + width)
    sigma = float(np.exp(best))
    return Peak(sigma, float(ratio(sigma)))


def _maximiser(curve: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    """The maximiser of a smooth curve with one maximum in an interval."""
    interpolant = np.polynomial.Chebyshev.interpolate(curve, 12, domain=[low, high])
    turns = interpolant.deriv().roots()
    turns = turns[np.abs(turns.imag) < 1e-6 * (high - low)].real
    candidates = np.append(turns[(turns >= low) & (turns <= high)], [low, high])
    return float(candidates[np.argmax(interpolant(candidates))])


def _model(d: int, K: int, delta: float, *, positive: bool = False) -> tuple[int, int, float]:
    """The parameters of a noisy MoLRG, checked."""
    return _checks.integer("d", d, 1), _checks.integer("K", K, 2), _checks.delta_in_range(delta, positive=positive)


def _like(sigma: object, values: np.ndarray) -> float | np.ndarray | torch.Tensor:
    """``values`` in the form of ``sigma``: a tensor for a tensor, a float for a number, an array otherwise."""
    if isinstance(sigma, torch.Tensor):
        dtype = sigma.dtype if sigma.is_floating_point() else torch.float64
        return torch.as_tensor(values, dtype=dtype, device=sigma.device)
    return values if np.ndim(values) else float(values)
