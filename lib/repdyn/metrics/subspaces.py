"""Class subspaces from data, for the CSNR of features and posteriors whose true subspaces nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

from repdyn import _checks

__all__ = ["WAYS", "ClassMoments", "Frames", "class_bases", "projected_csnr"]

#: Ways to make bases, see :meth:`ClassMoments.frames`.
WAYS = ("raw", "centred", "mean-off", "shared-off")


def class_bases(features: object, labels: object, rank: int, *, centred: bool = False) -> Tensor:
    """First ``rank`` right singular vectors of the features of each class: bases (K, D, rank), in float64.

    ``features`` (num, D), ``labels`` (num,) integers 0..K-1, every class present. With ``centred`` the mean of the
    class is taken off first, which makes them its principal components; without, as the paper has it, a mean far from
    zero is among the first. The bases are what :func:`repdyn.theory.csnr.csnr` takes.

    Raises ``ValueError`` for wrong shapes, NaN, a missing class, or a class whose features do not span ``rank``
    dimensions.
    Source: Li et al., arXiv 2502.05743, experimental details of Figure 6.
    """
    x, labels, K = _checked(features, labels)
    rank = _checks.integer("rank", rank, 1)
    bases = []
    for k in range(K):
        own = x[labels == k]
        own = own - own.mean(0) if centred and len(own) else own
        if rank > min(own.shape):
            raise ValueError(f"rank must be at most {min(own.shape)}, the samples or features of class {k}, got {rank}")
        _, scales, right = torch.linalg.svd(own, full_matrices=False)
        if not scales[rank - 1] > 1e-10 * scales[0]:
            raise ValueError(f"rank must be at most the dimensions that class {k} spans, got {rank}: pass a lower one")
        bases.append(right[:rank].mT)
    return torch.stack(bases)


class Frames(NamedTuple):
    """A basis for each class (K, D, rank), and what is taken off a vector (D,) before it is projected on them."""

    bases: Tensor
    offset: Tensor

    def coordinates(self, x: Tensor) -> Tensor:
        """U_l^T (x - offset) of vectors (num, D) for every class l: (num, K, rank), in float64."""
        K, D, rank = self.bases.shape
        return ((x.double().cpu() - self.offset) @ self.bases.movedim(0, 1).reshape(D, K * rank)).view(len(x), K, rank)


class ClassMoments:
    """Mean and second moment of each class, from which bases of every kind and rank follow without the data.

    ``features`` (num, D), ``labels`` (num,) integers 0..K-1, every class present. ``means`` is (K, D), ``second``
    (K, D, D) the mean of x x^T. Their leading eigenvectors are the right singular vectors of :func:`class_bases`; with
    many samples this costs one matrix product instead of a decomposition for each kind of basis.

    Raises ``ValueError`` for wrong shapes, NaN, or a missing class.
    """

    def __init__(self, features: object, labels: object) -> None:
        x, labels, K = _checked(features, labels)
        x, labels = x.cpu(), labels.cpu()  # LAPACK's part of the eigenvectors is asked for
        groups = [x[labels == k] for k in range(K)]
        self.counts = [len(own) for own in groups]
        if 0 in self.counts:
            raise ValueError(f"labels must hold every class, got none of class {self.counts.index(0)}: renumber them")
        self.means = torch.stack([own.mean(0) for own in groups])  # (K, D)
        self.second = torch.stack([own.mT @ own / len(own) for own in groups])  # (K, D, D)

    def frames(self, rank: int, way: str = "raw", *, shared: int = 5) -> Frames:
        """The first ``rank`` directions of each class, made in one of :data:`WAYS`.

        'raw': singular vectors of the class as it is, as in the first version of the paper. 'centred': its principal
        components, of the class minus its mean; vectors are projected as they are. 'mean-off': the mean over all
        classes is taken off the class and off every vector. 'shared-off': the first ``shared`` singular vectors of all
        classes together are projected out of the class, and so are seen in no vector either.

        Raises ``ValueError`` for an unknown way, or a class that does not span ``rank`` dimensions after that.
        """
        second, offset = self._second_about(way, shared)
        rank, D = _checks.integer("rank", rank, 1), second.shape[1]
        if rank > D:
            raise ValueError(f"rank must be at most {D}, the number of features, got {rank}: pass a lower one")
        bases = []
        for k, moment in enumerate(second):
            values, vectors = scipy.linalg.eigh(moment.cpu().numpy(), subset_by_index=[D - rank, D - 1])
            if not values[0] > 1e-13 * values[-1]:
                raise ValueError(
                    f"rank must be at most the dimensions that class {k} spans, got {rank}: pass a lower one"
                )
            bases.append(torch.from_numpy(vectors[:, ::-1].copy()))
        return Frames(torch.stack(bases), offset)

    def energies(self, frames: Frames) -> Tensor:
        """Mean energy of class k in the first r + 1 directions of class l, at place (k, l, r) of (K, K, rank).

        The mean over the class of the squared :meth:`Frames.coordinates`, summed over directions.
        """
        bases, offset = frames
        K, D, rank = bases.shape
        cross = self.means[:, :, None] * offset
        about = self.second - cross - cross.mT + offset[:, None] * offset  # (K, D, D)
        flat = bases.movedim(0, 1).reshape(D, K * rank)
        return ((about @ flat) * flat).sum(1).view(-1, K, rank).cumsum(2)

    def _second_about(self, way: str, shared: int) -> tuple[Tensor, Tensor]:
        """Second moments (K, D, D) whose eigenvectors are the bases, and the offset (D,)."""
        mean, nothing = self.means.mean(0), torch.zeros_like(self.means[0])
        if way == "raw":
            return self.second, nothing
        if way == "centred":
            return self.second - self.means[:, :, None] * self.means[:, None, :], nothing
        if way == "mean-off":
            cross = self.means[:, :, None] * mean
            return self.second - cross - cross.mT + mean[:, None] * mean, mean
        if way == "shared-off":
            D = len(mean)
            shared = _checks.integer("shared", shared, 1)
            if shared >= D:
                raise ValueError(f"shared must be below {D}, the number of features, got {shared}: pass a lower one")
            average = self.second.mean(0).cpu().numpy()
            common = torch.from_numpy(scipy.linalg.eigh(average, subset_by_index=[D - shared, D - 1])[1])
            rest = torch.eye(D, dtype=torch.float64) - common @ common.mT
            return rest @ self.second @ rest, nothing
        raise ValueError(f"way must be one of {', '.join(WAYS)}, got {way!r}")


def projected_csnr(coordinates: Tensor, labels: Tensor, bases: Tensor, ranks: Sequence[int]) -> list[float]:
    """CSNR of vectors after they were projected onto the subspace of their own class, for each of ``ranks``.

    This is what a denoiser would reach that leaves nothing outside the right subspace: infinite for orthogonal
    subspaces, 1 / (K - 1) for equal ones, 1 / sum_(l != k) cos^2 of the angles for lines. ``coordinates``
    (num, K, rank) as from :meth:`Frames.coordinates`, ``labels`` (num,), ``bases`` (K, D, rank).

    Equation: ``eq-projected-csnr``
    """
    K = len(bases)
    gram = torch.einsum("kdr,lds->klrs", bases, bases)  # U_k^T U_l
    own = coordinates[torch.arange(len(labels)), labels]  # (num, rank)
    second = torch.stack([own[labels == k].mT @ own[labels == k] for k in range(K)])  # (K, rank, rank)
    values = []
    for r in ranks:
        inside = second[:, :r, :r]
        energies = torch.einsum("klrs,krt,klts->kl", gram[:, :, :r, :r], inside, gram[:, :, :r, :r])
        signal = energies.diagonal().sum().item()
        noise = energies.sum().item() - signal
        values.append(signal / noise if noise > 1e-14 * signal else float("inf"))
    return values


def _checked(features: object, labels: object) -> tuple[Tensor, Tensor, int]:
    """Features (num, D) in float64, labels (num,), and the number of classes."""
    features = torch.as_tensor(features)
    size = features.shape[1] if features.ndim == 2 else "D"
    x = _checks.samples("features", features, size).detach().to(torch.float64)
    given = torch.as_tensor(labels)
    largest = int(given.max()) if len(x) == len(given) and len(x) else 0
    return x, _checks.class_labels(given, len(x), max(largest, 0) + 1).to(x.device), largest + 1
