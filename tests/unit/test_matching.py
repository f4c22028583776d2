"""Pairing of found subspaces and clusters with the true ones, against brute force over all orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from repdyn.metrics import clustering_accuracy, match_subspaces
from repdyn.theory.subspaces import random_bases


def test_order_and_rotation_do_not_count() -> None:
    true = random_bases(4, 12, 3, seed=0)
    rotations = torch.linalg.qr(random_bases(1, 12, 12, seed=1)[0, :3, :3]).Q
    order = [2, 0, 3, 1]
    match = match_subspaces(true[order] @ rotations, true)
    assert match.order.tolist() == [order.index(k) for k in range(4)]
    assert match.angles.max() < 1e-7


def test_a_known_angle_is_measured() -> None:
    true = torch.eye(6, dtype=torch.float64)[:, :4].reshape(6, 2, 2).transpose(0, 1)  # coordinates 0, 1 and 2, 3
    found = true.clone()
    found[0, :, 0] = math.cos(0.3) * true[0, :, 0] + math.sin(0.3) * torch.eye(6, dtype=torch.float64)[:, 5]
    np.testing.assert_allclose(match_subspaces(found, true).angles, [0.3, 0.0], atol=1e-12)


def test_the_pairing_is_the_best_of_all_orders_and_leaves_the_rest_over() -> None:
    for seed in range(5):
        true, found = random_bases(3, 6, 2, seed), random_bases(4, 6, 2, seed + 10)
        angles = np.array([[subspace_angles(a.numpy(), b.numpy()).max() for b in found] for a in true])
        best = min(itertools.permutations(range(4), 3), key=lambda p: (angles[range(3), p] ** 2).sum())
        match = match_subspaces(found, true)
        assert tuple(match.order) == best
        np.testing.assert_allclose(match.angles, angles[range(3), best])


@pytest.mark.parametrize(
    ("own", "crossed", "order"),
    [((0.0, 1.2), 0.65, [1, 0]), ((0.3, 1.0), 0.77, [0, 1])],  # not the smaller sum; not the smaller sum of cubes
)
def test_squares_of_angles_decide(own: tuple[float, float], crossed: float, order: list[int]) -> None:
    """Guards what the pairing of four lines makes smallest, given the angles of either pairing."""
    a, b = own
    cos, sin = math.cos, math.sin
    bend = (cos(b) - cos(crossed) * cos(a + crossed)) / (sin(crossed) * sin(a + crossed))  # at the first line
    true = np.array([[1, 0, 0], [cos(a + crossed), sin(a + crossed), 0]])[:, :, None]
    other = [cos(crossed), sin(crossed) * bend, sin(crossed) * math.sqrt(1 - bend**2)]
    match = match_subspaces(np.array([[cos(a), sin(a), 0], other])[:, :, None], true)
    assert match.order.tolist() == order
    np.testing.assert_allclose(match.angles, own if order == [0, 1] else [crossed, crossed], atol=1e-12)


def test_one_subspace_is_paired_with_one() -> None:
    """Guards that nothing is read of a second subspace."""
    match = match_subspaces(random_bases(1, 5, 2, 0), random_bases(1, 5, 2, 0))
    assert match.order.tolist() == [0] and match.angles.max() < 1e-7


def test_subspaces_that_cannot_be_paired_are_refused() -> None:
    true = random_bases(3, 6, 2, 0)
    with pytest.raises(ValueError, match="found .*as many"):
        match_subspaces(true[:2], true)
    with pytest.raises(ValueError, match=r"R\^7 .*R\^6"):
        match_subspaces(random_bases(3, 7, 2, 0), true)
    with pytest.raises(ValueError, match="orthonormal"):
        match_subspaces(2 * true, true)


def test_accuracy_of_clusters_against_all_orders() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        labels = generator.integers(0, 4, 60)
        clusters = np.where(generator.random(60) < 0.5, 3 - labels, generator.integers(0, 4, 60))
        best = max((np.array(p)[clusters] == labels).mean() for p in itertools.permutations(range(4)))
        assert clustering_accuracy(clusters, labels) == pytest.approx(best)


def test_more_clusters_than_classes_and_fewer() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    assert clustering_accuracy(torch.tensor([7, 7, 8, 9, 9]), labels) == pytest.approx(4 / 5)
    assert clustering_accuracy(torch.zeros(5, dtype=torch.int64), labels) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("clusters", "labels", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), "one length"),
        (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), "at least 1"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), "integers"),
    ],
)
def test_clusters_that_are_none_are_refused(clusters: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clustering_accuracy(clusters, labels)
