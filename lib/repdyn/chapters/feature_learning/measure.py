"""How the balance of signal and noise depends on N SNR^2: measured by training, and computed without."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from repdyn import _checks
from repdyn.chapters.feature_learning.dynamics import Descent, train_classifier, train_denoiser
from repdyn.chapters.feature_learning.two_patch import TwoPatchModel
from repdyn.records import sweeps

__all__ = ["Exponent", "TwoPatchConfig", "exponent", "measure", "stationary_ratio", "switch"]


def stationary_ratio(n_snr2: float, strength: float, width: int) -> float:
    """Signal alignment over noise alignment at which a quadratic denoiser is stationary, for D far above N and width.

    Assumes exactly orthogonal noise patches of one length, and neurons that share their part in the span of the data
    and are otherwise alike. Then the loss depends on three numbers, and this minimises it. It tends to n_snr2 / 2 for
    a ``strength`` of 0, to 1 for a large one.

    Raises ``ValueError`` for numbers that are not positive. Equation: ``eq-feature-learning-reduced``.
    """
    width = _checks.integer("width", width, 1)
    for name, value in (("n_snr2", n_snr2), ("strength", strength)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")

    def loss(numbers: np.ndarray) -> float:
        """At the shared part's inner products with a signal and a noise patch, and the length of the private parts."""
        signal, noise, private = numbers
        shared = (2 * signal**2 / n_snr2 + noise**2) / strength**2  # squared length of the part in the span
        own, other = shared + (width - 1) / width * private**2, shared - private**2 / width  # the Gram matrix
        total = 0.0
        for mean in (signal, noise):
            second = (mean**2 + own) ** 2
            total += own * (second + 4 * mean**2 * own + 2 * own**2)
            total += (width - 1) * other * (second + 4 * mean**2 * other + 2 * other**2)
            total -= 4 * math.sqrt(width) * mean * own
        return total

    small = 0.3 * min(1.0, strength)
    start = [small * n_snr2 / (2 + n_snr2), small * 2 / (2 + n_snr2), 0.3]
    found = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})
    return float(found.x[0] / found.x[1])


class Exponent(NamedTuple):
    """A fitted power, with its 95 % confidence interval, and its standard deviation between seeds."""

    value: float
    low: float
    high: float
    between_seeds: float


def exponent(x: np.ndarray, ratios: np.ndarray) -> Exponent:
    """Power of ``x`` (Q,) that the ``ratios`` (Q, seeds) follow: a straight line through the mean logarithms.

    The interval is Student's, from the scatter of the means about the line, and so includes what is no power law. Runs
    of one seed share their noise patches at all ``x``, which moves them up or down together: ``between_seeds``, the
    standard deviation of the seeds' own slopes, can be far smaller.

    Raises ``ValueError`` for shapes that do not fit, fewer than three points, or numbers that are not positive.
    """
    x, ratios = np.asarray(x, dtype=float), np.asarray(ratios, dtype=float)
    if ratios.ndim != 2 or ratios.shape[1] < 2 or x.shape != ratios.shape[:1] or len(x) < 3:
        raise ValueError(f"x must be (Q,) with Q > 2, ratios (Q, seeds) with seeds > 1, got {x.shape}, {ratios.shape}")
    if not ((x > 0).all() and (ratios > 0).all()):
        raise ValueError("x and ratios must be positive: the fit is in logarithms")
    log_x, log_y = np.log(x), np.log(ratios)
    line = stats.linregress(log_x, log_y.mean(1))
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    slopes = np.polyfit(log_x, log_y, 1)[0]  # (seeds,)
    return Exponent(float(line.slope), float(line.slope - half), float(line.slope + half), float(slopes.std(ddof=1)))


def switch(n_snr2: np.ndarray, ratios: np.ndarray) -> tuple[float, float]:
    """Where ``ratios`` (Q,) cross one, interpolated in logarithms between points ``n_snr2`` (Q,), and the slope there.

    Raises ``ValueError`` unless they cross from below exactly once.
    """
    x, y = np.log(n_snr2), np.log(ratios)
    (places,) = np.nonzero((y[:-1] < 0) & (y[1:] >= 0))
    if len(places) != 1 or y[0] >= 0 or y[-1] < 0:
        raise ValueError("ratios must cross one from below exactly once: widen n_snr2")
    i = places[0]
    slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    return float(np.exp(x[i] - y[i] / slope)), float(slope)


@dataclass(frozen=True)
class TwoPatchConfig:
    """A sweep: denoisers at every (strength, n_snr2), classifiers at every (start, n_snr2), ``seeds`` runs of each."""

    n_snr2: tuple[float, ...] = (0.1, 0.32, 1.0, 3.2, 10.0)
    """Numbers of samples times SNR^2."""
    strengths: tuple[float, ...] = (0.1, 5.0)
    """Of the denoisers' data: length of the mean noise patch over the noise level. Classifiers see data of strength
    one."""
    starts: tuple[float, ...] = (1e-2, 1e-4, 1e-6)
    """Of the classifiers: standard deviation of the initial weights. Denoisers have that of ``descent``."""
    D: int = 8000
    """Numbers in a patch."""
    descent: Descent = field(default_factory=Descent)
    """How both networks are trained, and on how many samples."""
    seeds: int = 3
    """Runs at every point, with seeds from 0 on."""


def measure(
    config: TwoPatchConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """Train on every point of a sweep and read off the balance.

    Returns nested lists. Ratios of alignments are logarithms to base ten: ``denoiser`` (strength, n_snr2, seed), where
    the denoiser is stationary; ``theory`` (strength, n_snr2), the same by :func:`stationary_ratio`; ``classifier``
    (start, n_snr2, seed), where the classifier stops, and its ``accuracy``. ``residual`` is the largest entry of any of
    the denoisers' last gradients. Classifiers see data of strength one: a scale changes nothing but the units of the
    weights. With ``cache``, a folder, finished trainings are kept there.
    """
    kinds = (("denoiser", config.strengths), ("classifier", config.starts))
    points = [
        _Point(config, kind, value, n_snr2, seed)
        for kind, values in kinds
        for value in values
        for n_snr2 in config.n_snr2
        for seed in range(config.seeds)
    ]
    runs = sweeps.run(_trained, points, cache=cache, progress=progress, desc="two patches")
    found = {point[1:]: run for point, run in zip(points, runs, strict=True)}

    def read(kind: str, values: tuple[float, ...], what: str) -> list[list[list[float]]]:
        seeds = range(config.seeds)
        return [[[found[kind, value, q, seed][what] for seed in seeds] for q in config.n_snr2] for value in values]

    return {
        "denoiser": read("denoiser", config.strengths, "ratio"),
        "theory": [
            [math.log10(stationary_ratio(q, s, config.descent.width)) for q in config.n_snr2] for s in config.strengths
        ],
        "residual": max(run["residual"] for point, run in zip(points, runs, strict=True) if point.kind == "denoiser"),
        "classifier": read("classifier", config.starts, "ratio"),
        "accuracy": read("classifier", config.starts, "accuracy"),
    }


class _Point(NamedTuple):
    """One training: of a 'denoiser' on data of strength ``value``, or of a 'classifier' from a start of that size."""

    config: TwoPatchConfig
    kind: str
    value: float
    n_snr2: float
    seed: int


def _trained(point: _Point, _folder: Path | None) -> dict[str, float | None]:
    config, descent = point.config, point.config.descent
    strength = point.value if point.kind == "denoiser" else 1.0
    model = TwoPatchModel.with_numbers(point.n_snr2, strength, num=descent.num, D=config.D, sigma=descent.sigma)
    if point.kind == "denoiser":
        run = train_denoiser(model, descent, point.seed)
    else:
        run = train_classifier(model, replace(descent, start=point.value), point.seed)
    return {"ratio": math.log10(run.ratio), "residual": run.residual, "accuracy": run.accuracy}
