"""How well found subspaces and clusters agree with the true ones, whatever their order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from repdyn import _checks

__all__ = ["Match", "clustering_accuracy", "match_subspaces"]


class Match(NamedTuple):
    """``order`` (K,): the found subspace that stands for each true one; ``angles`` (K,): their largest angles."""

    order: np.ndarray
    angles: np.ndarray


def match_subspaces(found: object, true: object) -> Match:
    """Pair found subspaces (L, n, d) with true ones (K, n, d), each with one, L >= K, and measure the angles between.

    Of the principal angles of a pair, in radians, the largest counts: zero for the same subspace, pi / 2 when some
    direction of one is orthogonal to all of the other. The pairing is the one with the smallest sum of squares.

    Raises ``ValueError`` for bases that are not orthonormal, of different n, and for fewer found than true ones.
    """
    found, true = ([basis.cpu().numpy() for basis in _checks.orthonormal_bases(bases)] for bases in (found, true))
    if len(found) < len(true) or found[0].shape[0] != true[0].shape[0]:
        shapes = f"{len(found)} in R^{found[0].shape[0]} for {len(true)} in R^{true[0].shape[0]}"
        raise ValueError(f"found must be at least as many subspaces as true, of the same space: got {shapes}")
    angles = np.array([[subspace_angles(a, b).max() for b in found] for a in true])  # (K, L)
    rows, order = linear_sum_assignment(angles**2)
    return Match(order, angles[rows, order])


def clustering_accuracy(clusters: object, labels: object) -> float:
    """Share of samples whose cluster is the one that stands for their class, under the best one-to-one pairing.

    ``clusters`` and ``labels`` (num,) are integers; the numbers of clusters and of classes may differ, and the samples
    of clusters left over count as wrong. Raises ``ValueError`` for different lengths, none, or no integers.
    """
    clusters, labels = (torch.as_tensor(value).cpu() for value in (clusters, labels))
    if clusters.shape != labels.shape or clusters.ndim != 1 or not len(labels):
        shapes = f"{tuple(clusters.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"clusters and labels must be vectors of one length, at least 1, got {shapes}")
    if clusters.is_floating_point() or labels.is_floating_point():
        raise ValueError(f"clusters and labels must be integers, got {clusters.dtype} and {labels.dtype}")
    counts = contingency_matrix(labels.numpy(), clusters.numpy())  # (classes, clusters)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(labels))
