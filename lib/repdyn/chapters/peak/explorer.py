"""The exact CSNR on a grid of (d, delta, K, sigma), and the explorer that shows it on a static page.

One pass serves all K: the number of classes is only an exponent in the quadrature. Stored are not the curves but what
is smooth in log sigma, the signal that is lost and the leak into the other classes. A coarse grid and cubics then give
the curve, corners included.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple, TypeVar

import numpy as np
from IPython.display import HTML
from scipy import special

from repdyn.theory import _quadrature

__all__ = ["Sweep", "explorer", "lift", "maxima", "sweep"]

TAIL = 1e-9  # probability left out: about 1e-7 in the CSNR, a quarter of the time of 1e-16
FLOOR = 1e-7  # losses and leaks below this do not show beside 1
UNIT = 2.5e-4  # resolution of the embedded logarithms, in decades

Number = TypeVar("Number", float, np.ndarray)


class Sweep(NamedTuple):
    """log loss and log leak, (d, delta, K, sigma), on their four axes.

    With gain = (zeta - xi) / xi, the numerator of the CSNR is (1 + gain)^2 / (1 + loss) times what it is at gain 0,
    the denominator 1 + leak times.
    """

    d: np.ndarray
    delta: np.ndarray
    K: np.ndarray
    sigma: np.ndarray
    noisy_input: bool
    log_loss: np.ndarray
    log_leak: np.ndarray


def sweep(
    d: Sequence[int], delta: Sequence[float], K: Sequence[int], sigma: np.ndarray, noisy_input: bool = False
) -> Sweep:
    """Loss and leak of the optimal denoiser for all combinations; ``sigma`` must be in equal steps of its logarithm.

    ``csnr.exact`` gives more digits, one combination at a time.
    """
    dims, deltas, classes, levels = (np.asarray(axis) for axis in (d, delta, K, sigma))
    logs = [[[_loss_and_leak(s, dim, classes, eps, noisy_input) for s in levels] for eps in deltas] for dim in dims]
    loss, leak = np.log(np.maximum(np.moveaxis(np.array(logs), 3, 0), FLOOR))
    return Sweep(dims, deltas, classes, levels, noisy_input, np.moveaxis(loss, 2, 3), np.moveaxis(leak, 2, 3))


def _loss_and_leak(sigma: float, d: int, K: np.ndarray, delta: float, noisy_input: bool) -> np.ndarray:
    """Loss and leak at one noise level, (2, len(K)), with the quadrature of ``csnr.exact`` and fewer digits."""
    alpha, beta = (1.0 + sigma**2, delta**2 + sigma**2) if noisy_input else (1.0, delta**2)
    c = (1.0 - delta**2) / (2.0 * (1.0 + sigma**2) * (delta**2 + sigma**2))
    gain = _gain(sigma, delta)
    tail = TAIL / (1.0 + gain) ** 2
    reach = -np.log(tail)
    lowest, highest = c * beta * _quadrature.support(d, tail)
    certain = highest + np.log(K.max()) + reach
    s = np.arange(lowest - np.log(reach), certain + reach, _quadrature.STEP)
    other = _quadrature.transforms(s, _quadrature.energy(c * beta, d, tail, np.inf))
    true = _quadrature.transforms(s, _quadrature.energy(c * alpha, d, tail, certain))
    wins = special.chdtrc(d + 2, certain / (c * alpha))
    all_lose = _quadrature.STEP * other[0] ** (K[:, None] - 1)  # (K, s)
    rivals_lose = _quadrature.STEP * true[0] * other[0] ** (K[:, None] - 2)
    first, second = wins + all_lose @ true[1], wins + all_lose @ true[2]
    loss = (2.0 * gain * (1.0 - first) + gain**2 * (1.0 - second)) / (1.0 + 2.0 * gain * first + gain**2 * second)
    return np.array([loss, 2.0 * gain * (rivals_lose @ other[1]) + gain**2 * (rivals_lose @ other[2])])


def _gain(sigma: Number, delta: Number) -> Number:
    """(zeta - xi) / xi."""
    return (1.0 - delta**2) / delta**2 * (sigma**2 / (1.0 + sigma**2))


def lift(found: Sweep, sigma: np.ndarray) -> np.ndarray:
    """log of the CSNR over its value 1 / ((K - 1) delta^2) at sigma = 0, (d, delta, K, len(sigma)).

    Between the points of the grid this is the curve that the browser draws.
    """
    delta = found.delta[:, None, None]
    loss, leak = (_interpolate(np.log(found.sigma), logs, np.log(sigma)) for logs in (found.log_loss, found.log_leak))
    # With a noisy input one factor 1 + gain goes into the energies: alpha / beta = 1 / (delta^2 (1 + gain)).
    factors = 1.0 if found.noisy_input else 2.0
    return factors * np.log1p(_gain(sigma, delta)) - np.log1p(np.exp(loss)) - np.log1p(np.exp(leak))


def _interpolate(x: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubics on a uniform grid, along the last axis, with slopes from differences."""
    near = np.gradient(values, axis=-1)
    slopes = near - np.gradient(np.gradient(near, axis=-1), axis=-1) / 6.0  # correct to fourth order
    position = (at - x[0]) / (x[1] - x[0])
    i = np.clip(position.astype(int), 0, len(x) - 2)
    t = position - i
    left = values[..., i] * (1 + 2 * t) + slopes[..., i] * t
    right = values[..., i + 1] * (3 - 2 * t) - slopes[..., i + 1] * (1 - t)
    return left * (1 - t) ** 2 + right * t**2


def maxima(found: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Place and height of each curve's maximum, sigma and lift, both (d, delta, K), by parabolas on a fine grid.

    Where a curve falls from the start, sigma and lift are 0.
    """
    fine = np.geomspace(found.sigma[0], found.sigma[-1], 20 * (len(found.sigma) - 1) + 1)
    values = lift(found, fine)
    near = np.abs(np.arange(len(fine)) - 20 * values[..., ::20].argmax(-1)[..., None]) < 20  # of the highest point
    top = np.where(near, values, -np.inf).argmax(-1)
    inside = np.clip(top, 1, len(fine) - 2)
    below, here, above = (np.take_along_axis(values, (inside + k)[..., None], -1)[..., 0] for k in (-1, 0, 1))
    shift = 0.5 * (below - above) / (below - 2.0 * here + above)
    sigma = fine[inside] * (fine[1] / fine[0]) ** shift
    return np.where(top > 0, sigma, 0.0), np.where(top > 0, here + 0.25 * (above - below) * shift, 0.0)


def explorer(clean: Sweep, noisy: Sweep, start: dict[str, float]) -> HTML:
    """Sliders for d, K and delta over the exact curves and Theorem 2, in plain HTML with the values inside.

    ``clean`` and ``noisy`` share their axes; ``start`` holds the first ``d``, ``K``, ``delta``, which must be on them.
    """
    data = {name: getattr(clean, name).tolist() for name in ("d", "delta", "K")}
    data |= {"sigma": clean.sigma.round(9).tolist(), "unit": UNIT, "start": start}
    for name, found in (("clean", clean), ("noisy", noisy)):
        sigma, height = maxima(found)
        peaks = np.stack([sigma.ravel(), height.ravel() / np.log(10.0)], axis=1).round(5).tolist()
        data[name] = {"loss": _packed(found.log_loss), "leak": _packed(found.log_leak), "peaks": peaks}
    template = resources.files("repdyn").joinpath("assets/explorer.html").read_text(encoding="utf-8")
    return HTML(template.replace("__DATA__", json.dumps(data, separators=(",", ":"))))


def _packed(logs: np.ndarray) -> str:
    """Logarithms in decades, as base64 of 16-bit integers in steps of UNIT."""
    steps = np.rint(logs / np.log(10.0) / UNIT)
    if np.abs(steps).max() > 32767:
        raise ValueError("the leak does not fit into 16 bits: pass larger delta, or raise UNIT")
    return base64.b64encode(steps.astype("<i2").tobytes()).decode()
