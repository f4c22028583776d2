"""Noise levels: the paper's grid, EDM's sampling grid, and DDPM's time steps on the sigma axis."""

from __future__ import annotations

from typing import overload

import numpy as np

__all__ = ["PAPER_SIGMAS", "VP_TIMES", "ddpm_alpha_bar", "ddpm_sigma", "ddpm_timestep", "edm_sigmas", "vp_sigma"]

#: The ten noise levels at which Li et al. (2025) read features (appendix A.3).
PAPER_SIGMAS: tuple[float, ...] = (0.002, 0.008, 0.023, 0.060, 0.140, 0.296, 0.585, 1.088, 1.923, 3.257)

#: The range of the continuous time of :func:`vp_sigma`, as 1000 even steps.
VP_TIMES: np.ndarray = np.linspace(1e-5, 1, 1000)


def edm_sigmas(num: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """EDM's grid of ``num`` noise levels, falling from ``sigma_max`` to ``sigma_min``, even in sigma^(1/rho).

    The paper's ten levels are the ten smallest of ``edm_sigmas(18)``.

    Equation: ``eq-edm-grid``. Source: Karras et al. (2022), equation 5.
    """
    if num < 2:
        raise ValueError(f"num must be at least 2, got {num}")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got sigma_min={sigma_min}, sigma_max={sigma_max}")
    ramp = np.linspace(0, 1, num)
    return (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def ddpm_alpha_bar(num_steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """Cumulative product of 1 - beta_t for DDPM's linear schedule, (num_steps,), falling from near 1.

    Entry ``t`` belongs to time step ``t``, counted from 0. Source: Ho et al. (2020).
    """
    if num_steps < 1 or not 0 < beta_min <= beta_max < 1:
        raise ValueError(
            f"need num_steps >= 1 and 0 < beta_min <= beta_max < 1, got {num_steps}, {beta_min}, {beta_max}"
        )
    return np.cumprod(1 - np.linspace(beta_min, beta_max, num_steps))


@overload
def ddpm_sigma(timestep: int, alpha_bar: np.ndarray) -> float: ...
@overload
def ddpm_sigma(timestep: np.ndarray, alpha_bar: np.ndarray) -> np.ndarray: ...
def ddpm_sigma(timestep: int | np.ndarray, alpha_bar: np.ndarray) -> float | np.ndarray:
    """Noise level of a DDPM time step: sigma_t = sqrt(1 - alpha_bar_t) / sqrt(alpha_bar_t).

    A DDPM sees ``sqrt(alpha_bar_t) (x_0 + sigma_t eps)``; dividing its input by ``sqrt(alpha_bar_t)`` puts it on the
    sigma axis.

    Equation: ``eq-ddpm-sigma``. Source: Song et al. (2021), Karras et al. (2022).
    """
    timestep = np.asarray(timestep)
    if (timestep < 0).any() or (timestep >= len(alpha_bar)).any():
        raise ValueError(f"timestep must lie in 0..{len(alpha_bar) - 1}")
    sigma = np.sqrt((1 - alpha_bar[timestep]) / alpha_bar[timestep])
    return float(sigma) if sigma.ndim == 0 else sigma


@overload
def ddpm_timestep(sigma: float, alpha_bar: np.ndarray) -> int: ...
@overload
def ddpm_timestep(sigma: np.ndarray, alpha_bar: np.ndarray) -> np.ndarray: ...
def ddpm_timestep(sigma: float | np.ndarray, alpha_bar: np.ndarray) -> int | np.ndarray:
    """Time step whose noise level is nearest to ``sigma`` in log sigma."""
    sigma = np.asarray(sigma, dtype=float)
    if not (np.isfinite(sigma) & (sigma > 0)).all():
        raise ValueError("sigma must be positive and finite")
    grid = np.log(ddpm_sigma(np.arange(len(alpha_bar)), alpha_bar))
    nearest = np.abs(np.log(sigma)[..., None] - grid).argmin(-1)
    return int(nearest) if nearest.ndim == 0 else nearest


@overload
def vp_sigma(time: float, beta_d: float = ..., beta_min: float = ...) -> float: ...
@overload
def vp_sigma(time: np.ndarray, beta_d: float = ..., beta_min: float = ...) -> np.ndarray: ...
def vp_sigma(time: float | np.ndarray, beta_d: float = 19.9, beta_min: float = 0.1) -> float | np.ndarray:
    """Noise level at a time in (0, 1] of DDPM's schedule made continuous, sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1).

    Source: Song et al. (2021); Karras et al. (2022), table 1.
    """
    time = np.asarray(time, dtype=float)
    if not ((time > 0) & (time <= 1)).all():
        raise ValueError("time must lie in (0, 1]")
    sigma = np.sqrt(np.expm1(0.5 * beta_d * time**2 + beta_min * time))
    return float(sigma) if sigma.ndim == 0 else sigma
