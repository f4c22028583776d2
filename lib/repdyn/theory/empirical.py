"""Denoisers that are made of a data set instead of trained on it: the best linear one, and the best of all."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from repdyn.denoisers import expand_sigma

__all__ = ["EmpiricalDenoiser", "LinearDenoiser"]


class _OfData(nn.Module, ABC):
    """A denoiser of samples like those of ``data`` (N, *shape); computes in float64, returns the dtype of ``x``."""

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        if not data.is_floating_point() or data.ndim < 2 or not len(data) or not torch.isfinite(data).all():
            raise ValueError(
                f"data must be finite floating-point samples (N, *shape), got {data.dtype} {tuple(data.shape)}"
            )
        self.n = data[0].numel()

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, *shape) and ``sigma`` a float or (batch,)."""
        flat = x.flatten(1).double()
        if flat.shape[1] != self.n:
            raise ValueError(f"x must hold {self.n} numbers a sample, got shape {tuple(x.shape)}")
        return self._mean(flat, expand_sigma(sigma, flat) ** 2).to(x.dtype).view_as(x)

    @abstractmethod
    def _mean(self, x: Tensor, variance: Tensor) -> Tensor:
        """The estimate for ``x`` (batch, n) and sigma^2 (batch, 1), both float64."""

    def feature_layers(self) -> dict[str, nn.Module]:
        """No hidden layers: only the posterior can be read."""
        return {}


class EmpiricalDenoiser(_OfData):
    """The optimal denoiser of a data set: E[x_0 | x] when x_0 is any of ``data`` (N, *shape), with equal probability.

    A mean of the data with weights softmax_i(-||x - x_i||^2 / (2 sigma^2)). No denoiser has a lower loss on this data,
    so it is what a network that memorises its training set tends to; at small sigma it returns the nearest sample. A
    sample costs O(N n).

    Raises ``ValueError`` for data that is not floating point, not finite, or empty.

    Equation: ``eq-empirical-denoiser``. Source: Karras et al. (2022), appendix B.3.
    """

    data: Tensor  # (N, n)

    def __init__(self, data: Tensor) -> None:
        super().__init__(data)
        self.register_buffer("data", data.detach().flatten(1).double(), persistent=False)

    def _mean(self, x: Tensor, variance: Tensor) -> Tensor:
        half = self.data.square().sum(1) / 2  # ||x||^2 is common to all weights
        size = max(1, 2**24 // len(self.data))  # so that the weights fit into 128 MiB
        parts = zip(x.split(size), variance.split(size), strict=True)
        return torch.cat([torch.softmax((y @ self.data.mT - half) / v, dim=1) @ self.data for y, v in parts])


class LinearDenoiser(_OfData):
    """The best affine denoiser of a data set: m + C (C + sigma^2 I)^-1 (x - m), with its mean m and covariance C.

    Wiener's filter: the optimal denoiser of a Gaussian with the mean and covariance of ``data`` (N, *shape). It knows
    no classes. A sample costs O(n^2).

    Raises ``ValueError`` for data that is not floating point, not finite, or empty.

    Equation: ``eq-linear-denoiser``. Source: Wiener (1949).
    """

    mean: Tensor  # (n,)
    axes: Tensor  # (r, n), principal components
    variances: Tensor  # (r,)

    def __init__(self, data: Tensor) -> None:
        super().__init__(data)
        flat = data.detach().flatten(1).double()
        mean = flat.mean(0)
        _, scales, axes = torch.linalg.svd((flat - mean) / len(flat) ** 0.5, full_matrices=False)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("axes", axes, persistent=False)
        self.register_buffer("variances", scales**2, persistent=False)

    def _mean(self, x: Tensor, variance: Tensor) -> Tensor:
        gains = self.variances / (self.variances + variance)  # (batch, r)
        return self.mean + ((x - self.mean) @ self.axes.mT * gains) @ self.axes
