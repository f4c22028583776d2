"""A denoiser of the form of Proposition 1, whose subspaces are learned: bases that stay orthonormal while they move."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from repdyn import _checks
from repdyn.denoisers import expand_sigma

__all__ = ["MoLRGDenoiser"]


class MoLRGDenoiser(nn.Module):
    """The posterior mean of a noisy MoLRG with K learnable subspaces of dimension d in R^n, of equal weight.

    ``bases`` (K, n, d) is differentiable and has orthonormal columns whatever the optimiser does: each is a product
    of d Householder reflections. It starts uniformly random, from ``seed``, and may be assigned. ``delta`` in [0, 1)
    is the deviation of the data outside its subspace; with ``learn_delta`` it is trained too, from that value on,
    which must be positive. Train it without weight decay: the parameter behind ``bases`` holds signs, which may not
    shrink. A sample costs O(n K d).

    Raises ``ValueError`` for d > n, and sizes or delta out of range.
    Source: Li et al., arXiv 2502.05743, Proposition 1, as a network.
    """

    bases: Tensor  # a parametrisation: what is read is made of the parameter, what is assigned becomes it
    fixed_delta: Tensor  # unless delta is learned

    def __init__(self, n: int, d: int, K: int, delta: float = 0.2, learn_delta: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.n, self.d, self.K = _checks.integer("n", n, 1), _checks.integer("d", d, 1), _checks.integer("K", K, 1)
        if self.d > self.n:
            raise ValueError(f"d must be at most n = {n}, got {d}: pass the dimension of a subspace")
        delta = _checks.delta_in_range(delta, positive=learn_delta)
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        self.bases = nn.Parameter(torch.linalg.qr(torch.randn(self.K, self.n, self.d, generator=generator)).Q)
        # Trivialisation would start from where the bases are, at the price of an n x n matrix for each class.
        orthogonal(self, "bases", orthogonal_map="householder", use_trivialization=False)
        if learn_delta:
            self.delta_logit = nn.Parameter(torch.tensor(math.log(delta / (1 - delta))))
        else:
            self.register_buffer("fixed_delta", torch.tensor(delta))

    @property
    def delta(self) -> Tensor:
        """Deviation of the data outside its subspace, a scalar tensor in [0, 1)."""
        return self.delta_logit.sigmoid() if hasattr(self, "delta_logit") else self.fixed_delta

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, *shape) of n numbers a sample."""
        if math.prod(x.shape[1:]) != self.n:
            raise ValueError(f"x must hold {self.n} numbers a sample, got shape {tuple(x.shape)}")
        flat, bases, outside = x.flatten(1), self.bases, self.delta**2
        variance = expand_sigma(sigma, flat) ** 2  # (batch, 1)
        zeta, xi = 1 / (1 + variance), outside / (outside + variance)
        contrast = (1 - outside) / ((1 + variance) * (outside + variance))
        parts = torch.einsum("bn,knd->bkd", flat, bases)
        weights = torch.softmax(contrast / 2 * parts.square().sum(2), dim=1)  # (batch, K)
        projection = torch.einsum("bkd,knd->bn", weights[:, :, None] * parts, bases)
        return (xi * flat + (zeta - xi) * projection).view_as(x)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``: 1, the plain loss of a denoising auto-encoder."""
        return torch.ones_like(sigma)

    def feature_layers(self) -> dict[str, nn.Module]:
        """No hidden layers: only the posterior can be read."""
        return {}
