"""Argument checks shared by the theory modules: one ``ValueError`` that names the argument and says what to do."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import torch

SIGMA_MAX = 1e75  # sigma**4 is still a float64
DELTA_MIN = 1e-50  # and so is sigma**4 / delta**2


def integer(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # whether it is one is asked here
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}: pass a whole number") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}: pass a larger one")
    return number


def delta_in_range(delta: float, *, positive: bool = False) -> float:
    """``delta`` as a float in [0, 1), or in (0, 1) where the quantity diverges at 0."""
    delta = float(delta)
    if not 0.0 <= delta < 1.0:
        raise ValueError(f"delta must be in [0, 1), got {delta}: pass the noise level of the data, below the signal's")
    if positive and delta < DELTA_MIN:
        raise ValueError(
            f"delta must be at least {DELTA_MIN:g}, got {delta}: pass a larger one, the CSNR is infinite at 0"
        )
    return delta


def sigma_array(sigma: object, *, positive: bool = False) -> np.ndarray:
    """``sigma`` (float, array or tensor of any shape) as a float64 array of finite, non-negative noise levels."""
    if isinstance(sigma, torch.Tensor):
        sigma = sigma.detach().cpu().numpy()
    array = np.asarray(sigma, dtype=np.float64)
    if not ((array >= 0.0) & (array <= SIGMA_MAX)).all():
        raise ValueError(
            f"sigma must be finite and not negative (at most {SIGMA_MAX:g}), got {sigma!r}: pass noise levels"
        )
    if positive and not (array >= 1.0 / SIGMA_MAX).all():
        raise ValueError(
            f"sigma must be positive when delta is 0, got {sigma!r}: the density is singular, pass sigma > 0"
        )
    return array


def orthonormal_bases(bases: object) -> list[torch.Tensor]:
    """``bases`` (a sequence of (n, d_k), or one (K, n, d)) as float64 tensors, each with orthonormal columns."""
    if not isinstance(bases, (Sequence, np.ndarray, torch.Tensor)) or len(bases) == 0:
        raise ValueError(
            f"bases must be a sequence of (n, d_k) matrices, got {type(bases).__name__}: pass one per class"
        )
    frames = [torch.as_tensor(basis).detach().to(torch.float64) for basis in bases]
    n = frames[0].shape[0] if frames[0].ndim else 0
    for k, frame in enumerate(frames):
        if frame.ndim != 2 or frame.shape[0] != n or not 1 <= frame.shape[1] <= n:
            raise ValueError(
                f"bases[{k}] has shape {tuple(frame.shape)}: pass matrices (n, d_k) of one n, with 1 <= d_k <= n"
            )
        error = (frame.mT @ frame - torch.eye(frame.shape[1], dtype=frame.dtype, device=frame.device)).abs().max()
        if not error < 1e-4:  # NaN fails too; single precision passes
            raise ValueError(
                f"bases[{k}] must have orthonormal columns (U^T U = I), off by {error:.1e}: pass torch.linalg.qr(U).Q"
            )
    return frames


def samples(name: str, x: object, n: int | str) -> torch.Tensor:
    """``x`` as a finite floating-point tensor (num, n); a letter for ``n`` when ``x`` is known to be no matrix."""
    x = torch.as_tensor(x)
    if x.ndim != 2 or x.shape[1] != n:
        raise ValueError(f"{name} must have shape (num, {n}), got {tuple(x.shape)}: flatten each sample to a row")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {x.dtype}: convert it, e.g. to float32")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity: check where it was computed")
    return x


def class_labels(labels: object, num: int, K: int) -> torch.Tensor:
    """``labels`` as an int64 tensor (num,) with values in 0..K-1."""
    labels = torch.as_tensor(labels)
    if labels.shape != (num,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be {num} integers, got {labels.dtype} of shape {tuple(labels.shape)}: pass one per sample"
        )
    if num and not (0 <= int(labels.min()) and int(labels.max()) < K):
        raise ValueError(
            f"labels must be in 0..{K - 1}, got {int(labels.min())}..{int(labels.max())}: pass indices into bases"
        )
    return labels.to(torch.int64)


def class_weights(weights: object, K: int) -> torch.Tensor:
    """``weights`` as K positive float64 probabilities; uniform for None."""
    if weights is None:
        return torch.full((K,), 1.0 / K, dtype=torch.float64)
    weights = torch.as_tensor(weights).detach().to("cpu", torch.float64)
    if weights.shape != (K,) or not (weights > 0).all() or not math.isclose(float(weights.sum()), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"weights must be {K} positive numbers that sum to 1, got {weights.tolist()}: divide by their sum"
        )
    return weights / weights.sum()
