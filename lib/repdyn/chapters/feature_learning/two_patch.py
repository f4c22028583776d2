"""Data of two patches, one signal and one noise, and the two-layer quadratic networks that learn them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn.denoisers import expand_sigma

__all__ = [
    "QuadraticClassifier", "QuadraticDenoiser", "TwoPatchData", "TwoPatchModel", "classification_loss",
    "denoising_loss",
]  # fmt: skip


def _generator(purpose: str, seed: int) -> torch.Generator:
    # One stream for each purpose: samples and weights of one seed would otherwise be the same numbers.
    key = [_checks.integer("seed", seed, 0), ["samples", "weights"].index(purpose)]
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    )


class TwoPatchData(NamedTuple):
    """Samples ``x`` (N, 2, D), signal patch first, float64, and their classes ``labels`` (N,), 0 or 1."""

    x: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TwoPatchModel:
    """Samples of two patches in R^D: one of two orthogonal vectors, which is the class, beside Gaussian noise.

    ``signal`` is the length of both signal vectors, ``noise`` the standard deviation of a coordinate of the noise
    patch, which is orthogonal to both. The signals lie on the first two axes: gradient descent from a rotation
    invariant start does not see the axes.

    Raises ``ValueError`` for D < 3 and lengths that are not positive. Source: Han et al. (2024), definition 2.1.
    """

    D: int
    signal: float
    noise: float

    def __post_init__(self) -> None:
        _checks.integer("D", self.D, 3)
        for name in ("signal", "noise"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}: pass a length")

    @classmethod
    def with_numbers(cls, n_snr2: float, strength: float, *, num: int, D: int, sigma: float) -> TwoPatchModel:
        """The model with the two numbers that govern ``num`` training samples at noise level ``sigma``.

        ``n_snr2`` is num * SNR^2; ``strength`` the length of the mean noise patch over ``sigma``,
        noise * sqrt(D / num) / sigma.

        Equation: ``eq-feature-learning-strength``.
        """
        noise = strength * sigma * math.sqrt(num / D)
        return cls(D, math.sqrt(n_snr2 / num * D) * noise, noise)

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, signal / (noise * sqrt(D))."""
        return self.signal / (self.noise * math.sqrt(self.D))

    @property
    def signals(self) -> Tensor:
        """The signal vectors of class 0 and class 1, (2, D)."""
        return self.signal * torch.eye(2, self.D, dtype=torch.float64)

    def sample(self, num: int, seed: int) -> TwoPatchData:
        """``num`` samples, the two classes in turn, that depend on ``seed`` alone."""
        labels = torch.arange(_checks.integer("num", num, 1)) % 2
        generator = _generator("samples", seed)
        xi = self.noise * torch.randn(num, self.D, generator=generator, dtype=torch.float64)
        xi[:, :2] = 0  # orthogonal to both signals
        return TwoPatchData(torch.stack([self.signals[labels], xi], dim=1), labels)


def denoising_loss(weights: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Expected squared error of the predicted noise over all noise, E_eps ||f(x_t) - eps||^2 - 2 D, and its gradient.

    ``weights`` (m, D) are those of a :class:`QuadraticDenoiser`, ``x`` (N, P, D) clean patches. Sums over patches,
    averages over samples. Returns a scalar and (m, D). Both are in closed form: no noise is drawn, and nothing is
    recorded for autograd, which would cost several times as much. Costs O(N P m (D + m)).

    Equation: ``eq-feature-learning-loss``. Source: Han et al. (2024), section 2, with Gaussian moments.
    """
    num, width, level = len(x), len(weights), expand_sigma(sigma, x[:1]).item()
    alpha, beta = 1 / math.sqrt(1 + level**2), level / math.sqrt(1 + level**2)
    rows = x.flatten(0, 1)  # (N P, D)
    gram = weights @ weights.T  # (m, m)
    own = gram.diagonal()
    mean = alpha * rows @ weights.T  # (N P, m): of <w_r, x_t>
    second = mean**2 + beta**2 * own  # (N P, m): of <w_r, x_t>^2
    scale, pull = 1 / (num * width), 4 * beta / (num * math.sqrt(width))

    products, squares, square = second.T @ second, mean.T @ mean, gram**2
    fourth = products + 4 * beta**2 * gram * squares + 2 * beta**4 * len(rows) * square
    overlap = mean.sum(0)
    loss = scale * (gram * fourth).sum() - pull * (overlap @ own)

    by_second = 2 * scale * second @ gram
    by_mean = 2 * mean * by_second + 8 * beta**2 * scale * mean @ square - pull * own
    by_gram = scale * (products + 8 * beta**2 * gram * squares + 6 * beta**4 * len(rows) * square)
    by_gram = by_gram + torch.diag(beta**2 * by_second.sum(0) - pull * overlap)
    return loss, 2 * by_gram @ weights + alpha * by_mean.T @ rows


def classification_loss(weights: Tensor, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a :class:`QuadraticClassifier` with ``weights`` (2, m, D), a scalar, and its gradient.

    ``x`` (N, P, D), ``labels`` (N,). Nothing is recorded for autograd.

    Equation: ``eq-feature-learning-classifier``. Source: Han et al. (2024), section 2.
    """
    num, parts, _ = x.shape
    rows, flat = x.flatten(0, 1), weights.flatten(0, 1)
    inner = rows @ flat.T  # (N P, 2 m)
    log_p = inner.square().view(num, parts, 2, -1).sum(1).mean(2).log_softmax(1)  # (N, 2)
    chosen = torch.nn.functional.one_hot(labels, 2).to(x.dtype)
    by_logit = (log_p.exp() - chosen) * (2 / (num * weights.shape[1]))  # times the square's and the mean's factors
    by_inner = inner * by_logit.repeat_interleave(parts, 0).repeat_interleave(weights.shape[1], 1)
    return -(log_p * chosen).sum() / num, (by_inner.T @ rows).view_as(weights)


class _Squares(nn.Module):
    """Squares <w_r, patch>^2 of (batch, 2, D), as m channels at two positions: (batch, m, 2)."""

    def __init__(self, *shape: int, start: float, seed: int) -> None:
        super().__init__()
        if not 0 < start < math.inf:
            raise ValueError(f"start must be positive and finite, got {start}: at zero nothing moves")
        generator = _generator("weights", seed)
        self.weights = nn.Parameter(start * torch.randn(*shape, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weights.flatten(0, -2).T.to(x.dtype)).square().mT


def _patches(x: Tensor, D: int) -> Tensor:
    if math.prod(x.shape[1:]) != 2 * D:
        raise ValueError(f"x must hold two patches of {D} numbers a sample, got shape {tuple(x.shape)}")
    return x.reshape(len(x), 2, D)


class QuadraticDenoiser(nn.Module):
    """``width`` neurons with quadratic activation and tied weights predict the noise of each of two patches.

    On each patch of x_t = x / sqrt(1 + sigma^2), f = width^(-1/2) sum_r <w_r, x_t>^2 w_r, and D = x - sigma f.
    The network is not told sigma: it is trained for one noise level. ``weights`` (width, D), float64, starts as
    ``start`` times standard normal numbers that depend on ``seed`` alone.

    Raises ``ValueError`` for sizes and a start that are not positive.
    Equation: ``eq-feature-learning-network``. Source: Han et al. (2024), section 2.
    """

    def __init__(self, D: int, width: int, start: float = 1e-2, seed: int = 0) -> None:
        super().__init__()
        self.D = _checks.integer("D", D, 1)
        self.hidden = _Squares(_checks.integer("width", width, 1), self.D, start=start, seed=seed)

    @property
    def weights(self) -> nn.Parameter:
        """The neurons' weights (width, D)."""
        return self.hidden.weights

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, *shape) of 2 D numbers a sample."""
        patches = _patches(x, self.D)
        sigma = expand_sigma(sigma, patches)
        squares = self.hidden(patches / (1 + sigma**2).sqrt())  # (batch, width, 2)
        predicted = squares.mT @ self.weights.to(x.dtype) / math.sqrt(len(self.weights))
        return (patches - sigma * predicted).view_as(x)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``, 1 / sigma^2: then the loss is that of the predicted noise."""
        return sigma**-2

    def feature_layers(self) -> dict[str, nn.Module]:
        """The squares, as channels at two positions, the patches: name -> module."""
        return {"hidden": self.hidden}


class QuadraticClassifier(nn.Module):
    """Two groups of ``width`` quadratic neurons, one for each class: F_j = mean over r of sum over patches <w_jr, x>^2.

    With the cross-entropy of the two outputs, the loss is the logistic one of F_1 - F_0. ``weights`` (2, width, D),
    float64, starts as ``start`` times standard normal numbers that depend on ``seed`` alone.

    Raises ``ValueError`` for sizes and a start that are not positive.
    Equation: ``eq-feature-learning-classifier``. Source: Han et al. (2024), section 2.
    """

    def __init__(self, D: int, width: int, start: float = 1e-2, seed: int = 0) -> None:
        super().__init__()
        self.D = _checks.integer("D", D, 1)
        self.hidden = _Squares(2, _checks.integer("width", width, 1), self.D, start=start, seed=seed)

    @property
    def weights(self) -> nn.Parameter:
        """The neurons' weights (2, width, D)."""
        return self.hidden.weights

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Logits (batch, 2) of ``x`` (batch, *shape); ``sigma``, which a denoiser is given, is not used."""
        return self.hidden(_patches(x, self.D)).sum(2).unflatten(1, (2, -1)).mean(2)

    def feature_layers(self) -> dict[str, nn.Module]:
        """The squares, as channels at two positions, the patches: name -> module."""
        return {"hidden": self.hidden}
