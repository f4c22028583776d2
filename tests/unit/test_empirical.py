"""Denoisers made of data, against sums by hand, a Gaussian's posterior mean, and the losses that they minimise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from repdyn.denoisers import dae_loss
from repdyn.features import POSTERIOR, extract
from repdyn.theory.empirical import EmpiricalDenoiser, LinearDenoiser
from repdyn.theory.molrg import NoisyMoLRG

BOTH = pytest.mark.parametrize("kind", [EmpiricalDenoiser, LinearDenoiser])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_mean_of_the_data_under_its_likelihood_by_hand() -> None:
    data, x, sigmas = normal(7, 3), normal(4, 3, seed=1), [0.05, 0.4, 1.0, 9.0]
    found = EmpiricalDenoiser(data)(x, torch.tensor(sigmas))
    for row, y, sigma in zip(found, x.tolist(), sigmas, strict=True):
        weights = [math.exp(-(math.dist(y, point) ** 2) / (2 * sigma**2)) for point in data.tolist()]
        expected = sum(w * point for w, point in zip(weights, data, strict=True)) / sum(weights)
        torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-9)


def test_one_sample_is_all_that_is_ever_returned() -> None:
    """Guards that nothing is read of a second sample."""
    data = normal(1, 3)
    for kind in (EmpiricalDenoiser, LinearDenoiser):
        torch.testing.assert_close(kind(data)(normal(2, 3, seed=1), 0.5), data.expand(2, 3))


def test_the_filter_of_fewer_samples_than_numbers() -> None:
    """Guards the principal components where they do not span the space: 3 samples of 5 numbers."""
    data, x = normal(3, 5), normal(2, 5, seed=1)
    off = data - data.mean(0)
    C = off.mT @ off / 3
    expected = data.mean(0) + (x - data.mean(0)) @ torch.linalg.solve(C + 0.25 * torch.eye(5).double(), C)
    torch.testing.assert_close(LinearDenoiser(data)(x, 0.5), expected)


def test_it_returns_the_nearest_sample_at_low_noise_and_the_mean_at_high() -> None:
    data, x = normal(50, 4), normal(20, 4, seed=1)
    nearest = data[torch.cdist(x, data).argmin(1)]
    torch.testing.assert_close(EmpiricalDenoiser(data)(x, 1e-3), nearest)
    torch.testing.assert_close(EmpiricalDenoiser(data)(x, 1e5), data.mean(0).expand(20, 4), rtol=0, atol=1e-8)


def test_many_samples_go_through_in_parts() -> None:
    data, x = normal(30_000, 2), normal(1300, 2, seed=1)  # 559 samples at a time
    sigma = torch.linspace(0.1, 2, 1300)
    whole = EmpiricalDenoiser(data)(x, sigma)
    alone = torch.cat([EmpiricalDenoiser(data)(x[i : i + 1], sigma[i].item()) for i in (0, 558, 559, 1299)])
    torch.testing.assert_close(whole[[0, 558, 559, 1299]], alone)


def test_the_filter_is_the_posterior_mean_of_a_gaussian() -> None:
    """Against the covariance matrix and its inverse, on data that does not fill its space."""
    data = normal(500, 3) @ normal(3, 5, seed=1) + torch.arange(5)
    x, sigma = normal(6, 5, seed=2), torch.linspace(0.1, 3, 6, dtype=torch.float64)
    mean, covariance = data.mean(0), torch.cov(data.T, correction=0)
    found = LinearDenoiser(data)(x, sigma)
    for row, y, s in zip(found, x, sigma, strict=True):
        noisy = covariance + s**2 * torch.eye(5, dtype=torch.float64)
        torch.testing.assert_close(row, mean + covariance @ torch.linalg.solve(noisy, y - mean))


@pytest.mark.parametrize("sigma", [0.2, 0.7, 2.0])
def test_no_linear_map_and_no_function_has_less_loss_on_the_data(sigma: float) -> None:
    """In the exact average over the noise of a linear map, and in a sample of it."""
    data = NoisyMoLRG.random(n=6, d=2, K=2, delta=0.2, seed=0).sample(60, seed=1)[0]
    mean, covariance = data.mean(0), torch.cov(data.T, correction=0)
    filtered = LinearDenoiser(data)
    basis = filtered(mean + torch.eye(6, dtype=torch.float64), sigma) - filtered(mean[None], sigma)  # rows: M^T

    def loss(matrix: Tensor) -> float:
        left = matrix - torch.eye(6, dtype=torch.float64)
        return (torch.trace(left @ covariance @ left.T) + sigma**2 * matrix.square().sum()).item()

    least = loss(basis.T)
    assert all(loss(basis.T + 0.05 * normal(6, 6, seed=i)) > least for i in range(20))
    points, noise = data.repeat(200, 1), normal(12_000, 6, seed=5)
    empirical, linear = (dae_loss(d, points, sigma, noise).mean() for d in (EmpiricalDenoiser(data), filtered))
    assert linear == pytest.approx(least, rel=0.02)
    assert empirical < linear, "on the same noise"


@BOTH
def test_denoisers_like_any_other(kind: type) -> None:
    data, x = normal(40, 1, 2, 3).float(), normal(9, 1, 2, 3, seed=1).float()
    denoiser = kind(data)
    found = denoiser(x, 0.5)
    assert found.shape == x.shape and found.dtype == torch.float32
    torch.testing.assert_close(kind(data.flatten(1))(x.flatten(1), 0.5), found.flatten(1))
    assert list(extract(denoiser, x.flatten(1), 0.5)) == [POSTERIOR]
    assert not denoiser.state_dict(), "data is no weight"


@BOTH
@pytest.mark.parametrize(
    "data",
    [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(3), torch.full((3, 2), float("nan"))],
    ids=["whole numbers", "empty", "no samples", "NaN"],
)
def test_data_that_is_none_is_refused(kind: type, data: Tensor) -> None:
    with pytest.raises(ValueError, match="^data"):
        kind(data)


@BOTH
def test_samples_of_another_size_and_bad_levels_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="^x .*2, 4"):
        kind(normal(5, 3))(torch.zeros(2, 4), 1.0)
    with pytest.raises(ValueError, match="^sigma"):
        kind(normal(5, 3))(torch.zeros(2, 3), 0.0)
