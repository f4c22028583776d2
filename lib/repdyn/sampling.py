"""Samplers on the sigma axis, for any denoiser: Euler and Heun, deterministic or with noise put back on the way.

A deterministic sampler follows the probability-flow equation dx / dsigma = (x - D(x, sigma)) / sigma from a high noise
level to a low one. DDIM and DDPM's ancestral sampler are Euler steps with ``eta`` 0 and 1, on the levels of a DDPM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn._torch import evaluating
from repdyn.denoisers import Denoiser

__all__ = ["Churn", "State", "sample", "trajectory"]


class Churn(NamedTuple):
    """EDM's stochasticity: before each step the noise level is raised by a factor of at most 1 + ``amount`` / steps.

    The factor is at most sqrt(2), and 1 at levels outside ``sigma_min`` to ``sigma_max``; fresh noise of standard
    deviation ``noise`` makes up the difference. In the paper's names: S_churn, S_tmin, S_tmax, S_noise.

    Source: Karras et al. (2022), algorithm 2.
    """

    amount: float
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise: float = 1.0


class State(NamedTuple):
    """A batch on its way: ``x`` (batch, *shape) at noise level ``sigma``."""

    sigma: float
    x: Tensor


def sample(
    denoiser: Denoiser,
    start: Sequence[int] | Tensor,
    sigmas: Sequence[float] | np.ndarray,
    *,
    seed: int,
    method: str = "heun",
    eta: float = 0.0,
    churn: Churn | None = None,
    to_zero: bool = True,
) -> Tensor:
    """The last ``x`` of :func:`trajectory`, which takes the same arguments: samples (batch, *shape)."""
    for state in trajectory(denoiser, start, sigmas, seed=seed, method=method, eta=eta, churn=churn, to_zero=to_zero):
        last = state.x
    return last


@torch.no_grad()
def trajectory(
    denoiser: Denoiser,
    start: Sequence[int] | Tensor,
    sigmas: Sequence[float] | np.ndarray,
    *,
    seed: int,
    method: str = "heun",
    eta: float = 0.0,
    churn: Churn | None = None,
    to_zero: bool = True,
) -> Iterator[State]:
    """Sample, yielding the start and then the state after every step.

    ``start`` is x at the highest noise level (batch, *shape), or its shape, for noise of that level, drawn in float32
    on the denoiser's device. ``sigmas`` are falling noise levels, in the units of the data; a last step leads from the
    lowest to 0 unless ``to_zero`` is False. ``method`` is 'heun' (second order, two evaluations a step) or 'euler'.
    ``eta`` in 0..1, for 'euler', is the share of DDPM's noise that each step puts back: 0 is DDIM, 1 is DDPM's
    ancestral sampler. ``churn`` is EDM's way to do so. The same seed gives the same samples, on any device up to
    rounding. A module is run in evaluation mode.

    Raises ``ValueError`` for levels that do not fall or are not positive, a start that is not finite, and options
    outside their range or that exclude each other.
    Source: Karras et al. (2022), algorithms 1 and 2; Song, Meng and Ermon (2021), equation 12; Ho et al. (2020).
    """
    levels = _levels(sigmas, to_zero)
    _check(method, eta, churn)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    x = _start(denoiser, start, levels[0], generator)

    def noise() -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)

    with evaluating(denoiser):
        yield State(levels[0], x)
        for sigma, target in zip(levels, levels[1:]):
            if churn is not None:
                raised = sigma * (1 + _gain(churn, sigma, len(levels) - 1))
                if raised > sigma:
                    x = x + churn.noise * math.sqrt(raised**2 - sigma**2) * noise()
                sigma = raised
            fresh = eta * target * math.sqrt(1 - (target / sigma) ** 2) if eta else 0.0  # noise put back
            x = _step(denoiser, x, sigma, math.sqrt(target**2 - fresh**2), method)
            if fresh:
                x = x + fresh * noise()
            yield State(target, x)


def _step(denoiser: Denoiser, x: Tensor, sigma: float, target: float, method: str) -> Tensor:
    """One deterministic step from ``sigma`` to ``target``. Where that is 0, Heun's correction does not exist."""
    estimate = denoiser(x, sigma)
    if target == 0:
        return estimate
    slope = (x - estimate) / sigma
    moved = x + (target - sigma) * slope
    if method == "euler":
        return moved
    return x + (target - sigma) * (slope + (moved - denoiser(moved, target)) / target) / 2


def _gain(churn: Churn, sigma: float, steps: int) -> float:
    active = churn.sigma_min <= sigma <= churn.sigma_max
    return min(churn.amount / steps, math.sqrt(2) - 1) if active else 0.0


def _start(denoiser: Denoiser, start: Sequence[int] | Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    if isinstance(start, Tensor):
        if not start.is_floating_point() or not torch.isfinite(start).all():
            raise ValueError("start must hold finite floating-point numbers: pass x at the highest noise level")
        return start
    shape = [_checks.integer("start", length, 1) for length in start]
    parameters = denoiser.parameters() if isinstance(denoiser, nn.Module) else iter(())
    device = next(parameters, torch.empty(0)).device
    return sigma * torch.randn(shape, generator=generator).to(device)


def _levels(sigmas: Sequence[float] | np.ndarray, to_zero: bool) -> list[float]:
    levels = _checks.sigma_array(sigmas)
    if levels.ndim != 1 or len(levels) < 2 - to_zero or not (levels > 0).all() or not (np.diff(levels) < 0).all():
        raise ValueError(f"sigmas must be positive and fall from one to the next, got {sigmas!r}: pass edm_sigmas(18)")
    return levels.tolist() + [0.0] * to_zero


def _check(method: str, eta: float, churn: Churn | None) -> None:
    if method not in ("heun", "euler"):
        raise ValueError(f"method must be 'heun' or 'euler', got {method!r}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in 0..1, got {eta}: 0 is DDIM, 1 is DDPM")
    if eta and (method != "euler" or churn is not None):
        raise ValueError("eta is for method 'euler' without churn: pass eta=0, or method='euler' and churn=None")
    if churn is not None and not (churn.amount >= 0 and churn.noise >= 0 and churn.sigma_min <= churn.sigma_max):
        raise ValueError(f"churn needs amount >= 0, noise >= 0 and sigma_min <= sigma_max, got {churn}")
