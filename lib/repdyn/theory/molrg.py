"""The noisy mixture of low-rank Gaussians: a data distribution whose optimal denoiser is known in closed form.

Everything here costs O(n K d) a sample: no n x n matrix is ever formed. Two observations make that possible and
keep it accurate from sigma = 1e-6 to 1e6, also without noise in the data (delta = 0):

- the covariance of class l at noise level sigma has two eigenvalues only, 1 + sigma^2 inside the subspace of the
  class and delta^2 + sigma^2 outside, so that a projection on U_l replaces its inverse and its determinant;
- the classes are told apart by the residuals ||x - U_l U_l^T x||^2, which are small for the class that matters,
  where a difference of squared norms would cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from repdyn import _checks

__all__ = ["NoisyMoLRG"]


class NoisyMoLRG:
    """Noisy mixture of K low-rank Gaussians in R^n, and its optimal denoiser: ``model(x, sigma)`` is E[x_0 | x].

    x_0 = U_k a + delta U_k^perp e, with class k drawn with probability ``weights[k]``, a and e standard normal.

    ``bases`` is a sequence of matrices U_k (n, d_k) with orthonormal columns, or one (K, n, d) array; the d_k may
    differ and the subspaces need not be orthogonal to each other. ``delta`` in [0, 1) is the standard deviation
    outside the subspace, that inside being 1. ``weights`` (K,) is uniform by default.

    Methods take ``x`` (num, n), a floating-point tensor or array, and ``sigma`` a float or (num,), in the units of
    the data. They compute in float64, are differentiable in ``x``, and return tensors of the dtype and device of
    ``x``. sigma = 0 is allowed where delta > 0; without either the density is singular.

    Raises ``ValueError`` for bases that are not orthonormal, delta, weights, sigma out of range, or ``x`` of
    another shape or not finite. Source: Li et al., arXiv 2502.05743, Assumption 1.
    """

    def __init__(self, bases: Sequence, delta: float, weights: object = None) -> None:
        self.bases = [basis.cpu() for basis in _checks.orthonormal_bases(bases)]
        self.delta = _checks.delta_in_range(delta)
        self.n, self.K = self.bases[0].shape[0], len(self.bases)
        self.dims = tuple(basis.shape[1] for basis in self.bases)
        self.weights = _checks.class_weights(weights, self.K)
        self._frame = torch.cat(self.bases, dim=1)  # (n, sum d), the bases side by side
        self._span = torch.linalg.qr(self._frame).Q  # (n, r), an orthonormal basis of all subspaces together
        self._inner = self._span.mT @ self._frame  # (r, sum d), the bases within the span
        self._owner = torch.repeat_interleave(
            torch.arange(self.K), torch.tensor(self.dims)
        )  # (sum d,), class of a column

    @classmethod
    def random(
        cls,
        n: int,
        d: int | Sequence[int],
        K: int,
        delta: float,
        seed: int,
        weights: object = None,
        orthogonal: bool = True,
    ) -> NoisyMoLRG:
        """Draw K uniformly random subspaces of R^n, of dimension ``d`` (an int, or one per class).

        They are orthogonal to each other unless ``orthogonal`` is False, when they are independent.

        Raises ``ValueError`` when K mutually orthogonal subspaces do not fit into n dimensions.
        """
        n, K = _checks.integer("n", n, 1), _checks.integer("K", K, 1)
        dims = [_checks.integer("d", dim, 1) for dim in (d if isinstance(d, Sequence) else [d] * K)]
        if len(dims) != K or max(dims) > n:
            raise ValueError(f"d must be one dimension, or one per class (K = {K}), each at most n = {n}; got {d!r}")
        if orthogonal and sum(dims) > n:
            raise ValueError(
                f"sum(d) = {sum(dims)} exceeds n = {n}: pass a larger n, smaller d or K, or orthogonal=False"
            )
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        columns = torch.randn(n, sum(dims), dtype=torch.float64, generator=generator)
        if orthogonal:
            bases = torch.linalg.qr(columns).Q.split(dims, dim=1)
        else:
            bases = [torch.linalg.qr(block).Q for block in columns.split(dims, dim=1)]
        return cls(bases, delta, weights)

    def __repr__(self) -> str:
        return f"NoisyMoLRG(n={self.n}, K={self.K}, dims={self.dims}, delta={self.delta})"

    def sample(self, num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``num`` clean samples x_0 = U_k a + delta U_k^perp e.

        Returns x (num, n) in float64 and the labels k (num,) in int64. The same seed gives the same samples.

        Raises ``ValueError`` for a negative num or seed.

        Equation: ``eq-molrg``
        """
        num = _checks.integer("num", num, 0)
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        labels = torch.multinomial(self.weights, max(num, 1), replacement=True, generator=generator)[:num]
        signal = torch.randn(num, sum(self.dims), dtype=torch.float64, generator=generator)
        noise = self.delta * torch.randn(num, self.n, dtype=torch.float64, generator=generator)
        own = self._owner == labels[:, None]  # (num, sum d)
        # Inside the subspace the signal takes the place of the noise, which leaves delta U_perp e outside.
        return noise + ((signal - noise @ self._frame) * own) @ self._frame.mT, labels

    def class_posterior(self, x: object, sigma: object) -> torch.Tensor:
        """Probability of each class given x, (num, K): softmax_l of log pi_l + log N(x; 0, Sigma_l).

        For equal weights and dimensions this is softmax_l of (zeta - xi) / (2 sigma^2) ||U_l^T x||^2.

        Equation: ``eq-class-posterior``
        """
        x64, sigma, dtype = self._prepare(x, sigma)
        return torch.softmax(self._class_logits(x64 @ self._span.to(x64.device), sigma), dim=1).to(dtype)

    def posterior_mean(self, x: object, sigma: object) -> torch.Tensor:
        """The optimal denoiser E[x_0 | x], (num, n): xi x + (zeta - xi) sum_l w_l U_l U_l^T x.

        zeta = 1 / (1 + sigma^2) and xi = delta^2 / (delta^2 + sigma^2) shrink signal and noise, and w is the class
        posterior. At sigma = 0 it returns x. Source: Li et al., arXiv 2502.05743, Proposition 1.

        Equation: ``eq-posterior-mean``
        """
        x64, sigma, dtype = self._prepare(x, sigma)
        zeta, xi = 1.0 / (1.0 + sigma**2), self.delta**2 / (self.delta**2 + sigma**2)
        return (xi * x64 + (zeta - xi) * self._mean_projection(x64, sigma)).to(dtype)

    __call__ = posterior_mean

    def log_density(self, x: object, sigma: object) -> torch.Tensor:
        """Logarithm of the density of x = x_0 + sigma eps, (num,), normalised: log sum_l pi_l N(x; 0, Sigma_l).

        Sigma_l = (1 + sigma^2) U_l U_l^T + (delta^2 + sigma^2) (I - U_l U_l^T).

        Equation: ``eq-noised-covariance``
        Equation: ``eq-log-density``
        """
        x64, sigma, dtype = self._prepare(x, sigma)
        span = self._span.to(x64.device)
        y = x64 @ span  # (num, r)
        outside = (x64 - y @ span.mT).square().sum(1)  # (num,)
        common = x64.square().sum(1) / (1.0 + sigma[:, 0] ** 2) + self._contrast(sigma)[:, 0] * outside
        common = common + self.n * math.log(2.0 * math.pi)
        return (torch.logsumexp(self._class_logits(y, sigma), dim=1) - 0.5 * common).to(dtype)

    def score(self, x: object, sigma: object) -> torch.Tensor:
        """Gradient of the log-density in x, (num, n): (E[x_0 | x] - x) / sigma^2.

        Computed as -x / (1 + sigma^2) - kappa sum_l w_l (I - U_l U_l^T) x with kappa = (zeta - xi) / sigma^2, which
        is the same and stays accurate as sigma goes to 0.

        Equation: ``eq-score``
        """
        x64, sigma, dtype = self._prepare(x, sigma)
        residual = x64 - self._mean_projection(x64, sigma)
        return (-x64 / (1.0 + sigma**2) - self._contrast(sigma) * residual).to(dtype)

    def _prepare(self, x: object, sigma: object) -> tuple[torch.Tensor, torch.Tensor, torch.dtype]:
        """Checked x (num, n) in float64, sigma (num, 1) or (1, 1), and the dtype to return."""
        x = _checks.samples("x", x, self.n)
        levels = torch.from_numpy(_checks.sigma_array(sigma, positive=self.delta == 0.0)).to(x.device)
        if levels.shape not in ((), (len(x),)):
            raise ValueError(
                f"sigma must be a float or one per sample, got shape {tuple(levels.shape)}: pass ({len(x)},)"
            )
        return x.to(torch.float64), levels.reshape(-1, 1), x.dtype

    def _contrast(self, sigma: torch.Tensor) -> torch.Tensor:
        """kappa = (zeta - xi) / sigma^2 = 1 / (delta^2 + sigma^2) - 1 / (1 + sigma^2), without the cancellation."""
        return (1.0 - self.delta**2) / ((1.0 + sigma**2) * (self.delta**2 + sigma**2))

    def _class_logits(self, y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """log pi_l + log N(x; 0, Sigma_l) but for what classes share, (num, K), from y (num, r), x within the span.

        What they share is 2 pi, ||x||^2 / (1 + sigma^2), and the contrast times the energy outside the span.
        """
        dims = torch.tensor(self.dims, dtype=y.dtype, device=y.device)
        log_inside, log_outside = torch.log1p(sigma**2), torch.log(self.delta**2 + sigma**2)
        log_determinants = dims * log_inside + (self.n - dims) * log_outside  # (num, K)
        bases = self._inner.to(y.device).split(self.dims, dim=1)
        residuals = torch.stack([(y - (y @ basis) @ basis.mT).square().sum(1) for basis in bases], dim=1)  # (num, K)
        return self.weights.to(y.device).log() - 0.5 * (log_determinants + self._contrast(sigma) * residuals)

    def _mean_projection(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """sum_l w_l U_l U_l^T x, (num, n)."""
        span, owner = self._span.to(x.device), self._owner.to(x.device)
        y, inner = x @ span, self._inner.to(x.device)  # (num, r), (r, sum d)
        weights = torch.softmax(self._class_logits(y, sigma), dim=1)
        return ((y @ inner) * weights[:, owner]) @ inner.mT @ span.mT
