"""Closeness to the identity, against denoisers whose Jacobian and error are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repdyn.metrics.identity import closeness, jacobian_distance


def gaussian(num: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """D(x) = A x, whatever the noise level."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).view_as(x)


def test_of_a_diagonal_matrix_one_probe_is_exact() -> None:
    diagonal = torch.tensor([1.0, 0.5, -1.0, 0.0])
    expected = math.sqrt((0.25 + 4 + 1) / 4)
    assert jacobian_distance(Linear(diagonal.diag()), gaussian(3, 1, 2, 2), 0.1, probes=1, seed=0) == pytest.approx(
        expected, rel=1e-6
    )


def test_of_a_full_matrix_probes_converge_to_the_frobenius_norm() -> None:
    matrix = gaussian(6, 6, seed=1) / 2
    expected = (matrix - torch.eye(6)).norm().item() / math.sqrt(6)
    found = [jacobian_distance(Linear(matrix), gaussian(200, 6), 0.1, probes=n, seed=3) for n in (1, 40)]
    assert found[0] == pytest.approx(expected, rel=0.1) and found[1] == pytest.approx(expected, rel=0.015)


def test_of_a_network_against_its_whole_jacobian() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 5))
    x = gaussian(4, 5)
    jacobians = torch.stack([torch.func.jacrev(network)(row) for row in x])  # (4, 5, 5)
    expected = (jacobians - torch.eye(5)).square().sum((1, 2)).mean().div(5).sqrt().item()
    assert jacobian_distance(lambda x, _: network(x), x, 1.0, probes=4000, seed=0) == pytest.approx(expected, rel=0.02)
    assert network[0].weight.grad is None  # nothing is left behind in the network


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_identity_constant_and_the_best_denoiser_of_a_gaussian(sigma: float) -> None:
    images = gaussian(4000, 4)
    identity, nothing, best = (
        closeness(Linear(scale * torch.eye(4)), images, sigma, seed=5) for scale in (1.0, 0.0, 1 / (1 + sigma**2))
    )
    assert (identity.change, identity.jacobian) == (0, 0) and identity.error == pytest.approx(1, rel=0.02)
    assert nothing.jacobian == 1 and nothing.error == pytest.approx(1 / sigma, rel=0.02)
    assert best.error == pytest.approx(1 / math.sqrt(1 + sigma**2), rel=0.02)
    assert best.change == pytest.approx(sigma / math.sqrt(1 + sigma**2), rel=0.02)
    assert best.jacobian == pytest.approx(sigma**2 / (1 + sigma**2), rel=1e-5)


def test_the_seed_decides_and_dropout_is_off() -> None:
    denoiser = Linear(gaussian(4, 4, seed=2))
    images = gaussian(8, 4)
    dropping = nn.Dropout(0.5)
    both = nn.Module()
    both.forward = lambda x, sigma: denoiser(dropping(x), sigma)
    both.dropping = dropping
    first, again, other = (closeness(both, images, 0.5, seed=seed) for seed in (0, 0, 1))
    assert first == again == closeness(denoiser, images, 0.5, seed=0) and first != other
    assert both.training and dropping.training


def test_closeness_by_definition_from_its_seed() -> None:
    """Guards the seeds of noise and probes, which must differ, and the numbers of probes, given or not."""
    denoiser, images = Linear(gaussian(4, 4, seed=2)), gaussian(3, 4)
    x = images + 0.5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(7))
    found = closeness(denoiser, images, 0.5, probes=2, seed=7)
    assert found.jacobian == jacobian_distance(denoiser, x, 0.5, probes=2, seed=8)
    assert found.change == pytest.approx((denoiser(x, 0.5) - x).square().mean().sqrt().item() / 0.5, rel=1e-6)
    assert found.error == pytest.approx((denoiser(x, 0.5) - images).square().mean().sqrt().item() / 0.5, rel=1e-6)
    assert closeness(denoiser, images, 0.5, seed=7) == closeness(denoiser, images, 0.5, probes=4, seed=7)
    one = jacobian_distance(denoiser, x, 0.5, seed=8)
    assert one == jacobian_distance(denoiser, x, 0.5, probes=4, seed=8) != found.jacobian


def test_bad_input_is_refused() -> None:
    identity = Linear(torch.eye(4))
    for x in (torch.zeros(0, 4), torch.zeros(4), torch.full((2, 4), torch.nan), torch.zeros(2, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="^x must"):
            jacobian_distance(identity, x, 0.1, seed=0)
    with pytest.raises(ValueError, match="probes"):
        jacobian_distance(identity, torch.zeros(2, 4), 0.1, probes=0, seed=0)
    with pytest.raises(ValueError, match="sigma"):
        closeness(identity, torch.zeros(2, 4), 0.0, seed=0)
