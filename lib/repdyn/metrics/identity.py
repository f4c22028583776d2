"""How close a denoiser is to the identity: what it changes, how far off it is, and its Jacobian."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn._torch import evaluating
from repdyn.denoisers import Denoiser, expand_sigma

__all__ = ["Closeness", "closeness", "jacobian_distance"]


class Closeness(NamedTuple):
    """Root mean squares over images and pixels, the first two in units of sigma.

    ``error`` is D(x) - x_0: 1 for the identity, less for a denoiser. ``change`` is D(x) - x: 0 for the identity. And
    ``jacobian``, :func:`jacobian_distance`: 0 for the identity, 1 for a constant.
    """

    error: float
    change: float
    jacobian: float


@torch.no_grad()
def closeness(denoiser: nn.Module, images: Tensor, sigma: float, *, probes: int = 4, seed: int) -> Closeness:
    """How close ``denoiser`` is to the identity at x = x_0 + ``sigma`` eps, for clean ``images`` x_0 (N, *shape).

    One draw of noise an image. Arguments and errors are those of :func:`jacobian_distance`, and a denoiser is measured
    in evaluation mode.

    Equation: ``eq-closeness``
    """
    _check(images, sigma)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    x = images + sigma * torch.randn(images.shape, generator=generator).to(images)
    with evaluating(denoiser):
        estimate = denoiser(x, sigma)
        jacobian = jacobian_distance(denoiser, x, sigma, probes=probes, seed=seed + 1)
    error, change = ((estimate - other).square().mean().sqrt().item() / sigma for other in (images, x))
    return Closeness(error, change, jacobian)


@torch.enable_grad()
def jacobian_distance(denoiser: Denoiser, x: Tensor, sigma: float, *, probes: int = 4, seed: int) -> float:
    """||J - I||_F / sqrt(n), root mean square over inputs, where J = dD/dx is the Jacobian at ``x`` (N, *shape).

    n is the number of pixels and channels. Since E ||(J - I)^T v||^2 = ||J - I||_F^2 for v with independent entries
    +1 and -1, ``probes`` products of the transposed Jacobian with such vectors, for each input, give an unbiased
    estimate of the square: no Jacobian is formed. One input must not depend on another of the batch.

    Raises ``ValueError`` for ``x`` that is no finite floating-point batch, a sigma that is not positive, no probes.

    Equation: ``eq-jacobian-distance``. Source: Hutchinson (1989).
    """
    _check(x, sigma)
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    x = x.detach().requires_grad_()
    estimate = denoiser(x, sigma)
    total = 0.0
    for left in reversed(range(_checks.integer("probes", probes, 1))):
        v = (torch.randint(2, x.shape, generator=generator) * 2 - 1).to(x)
        (product,) = torch.autograd.grad(estimate, x, v, retain_graph=left > 0)
        total += (product - v).square().mean().item() / probes
    return math.sqrt(total)


def _check(x: Tensor, sigma: float) -> None:
    if x.ndim < 2 or not len(x) or not x.is_floating_point() or not torch.isfinite(x).all():
        raise ValueError(f"x must be a finite floating-point batch (N, *shape), got {x.dtype} {tuple(x.shape)}")
    expand_sigma(sigma, x)
