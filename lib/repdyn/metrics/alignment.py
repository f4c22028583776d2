"""Likeness of two sets of features of the same images, whatever their axes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_cka"]


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of the features ``x`` (N, D) and ``y`` (N, E) of the same N images, from 0 to 1.

    1 if one is the other turned, shifted and scaled by a number; so, unlike a distance, it does not depend on the order
    of the channels, in which two networks need not agree.

    Raises ``ValueError`` for other shapes, values that are not finite, or features that do not vary.

    Equation: ``eq-cka``. Source: Kornblith et al. (2019).
    """
    x, y = (torch.as_tensor(value).detach().to("cpu", torch.float64) for value in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"x and y must be (N, D) and (N, E) with one N > 1, got {tuple(x.shape)}, {tuple(y.shape)}")
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("x and y must be finite, got NaN or infinity")
    x, y = x - x.mean(0), y - y.mean(0)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    if not scale > 0:
        raise ValueError("x and y must vary from image to image: one of them is constant")
    return ((x.T @ y).square().sum() / scale).item()
