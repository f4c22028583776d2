"""Subspaces without a network: k-subspaces and EM from given starts, and mixtures whose subspaces overlap."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repdyn import _checks
from repdyn.theory.molrg import NoisyMoLRG

__all__ = ["Fit", "alternate", "overlapping", "random_bases"]


class Fit(NamedTuple):
    """Bases (K, n, d), responsibilities (num, K), and the number of ``rounds`` until they stood still."""

    bases: Tensor
    responsibilities: Tensor
    rounds: int


def random_bases(K: int, n: int, d: int, seed: int) -> Tensor:
    """K uniformly random subspaces of R^n as orthonormal bases (K, n, d), in float64.

    Raises ``ValueError`` for d > n and sizes out of range.
    """
    K, n, d = _checks.integer("K", K, 1), _checks.integer("n", n, 1), _checks.integer("d", d, 1)
    if d > n:
        raise ValueError(f"d must be at most n = {n}, got {d}: pass the dimension of a subspace")
    generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
    return torch.linalg.qr(torch.randn(K, n, d, dtype=torch.float64, generator=generator)).Q


def overlapping(n: int, d: int, K: int, delta: float, overlap: float, seed: int) -> NoisyMoLRG:
    """A noisy MoLRG of random subspaces, all principal angles between any two of which have the cosine ``overlap``.

    U_k = sqrt(overlap) C + sqrt(1 - overlap) A_k with C and all A_k orthogonal to each other, so U_k^T U_l = overlap I.

    Raises ``ValueError`` when the K subspaces, and C where they overlap, do not fit into n dimensions, and for an
    overlap outside [0, 1).
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be in [0, 1), got {overlap}: it is the cosine of the angles between subspaces")
    if overlap == 0:
        return NoisyMoLRG.random(n, d, K, delta, seed)
    if (K + 1) * d > n:
        raise ValueError(f"n must be at least (K + 1) d = {(K + 1) * d} for subspaces that overlap, got {n}")
    common, *own = NoisyMoLRG.random(n, d, K + 1, delta, seed).bases
    return NoisyMoLRG([overlap**0.5 * common + (1 - overlap) ** 0.5 * basis for basis in own], delta)


def alternate(x: object, bases: object, *, delta: float | None = None, max_rounds: int = 200) -> Fit:
    """Assign samples to subspaces, fit each subspace to its samples by an eigendecomposition, repeat until they stand.

    ``x`` (num, n), initial ``bases`` (K, n, d). Without ``delta`` every sample belongs to the subspace that is
    nearest: k-subspaces (Bradley and Mangasarian, 2000). With ``delta`` in (0, 1) it is shared out by its class
    posterior: the EM algorithm of a noisy MoLRG of this delta and equal weights (Tipping and Bishop, 1999, with fixed
    variances). An eigenvector that nothing determines, of an empty class, is arbitrary.

    Raises ``ValueError`` for bases that are not orthonormal or of different dimensions, wrong shapes, NaN, delta out of
    range.

    Equation: ``eq-em-step``
    """
    starts = _checks.orthonormal_bases(bases)
    if len({start.shape for start in starts}) > 1:
        raise ValueError("bases must have one dimension d for all, got several: pass a (K, n, d) array")
    frames = torch.stack(starts)
    x = _checks.samples("x", x, frames.shape[1]).to(torch.float64)
    kappa = None if delta is None else (1 - _checks.delta_in_range(delta, positive=True) ** 2) / delta**2
    rounds, moved, shares = 0, 1.0, torch.zeros(len(x), len(frames), dtype=x.dtype)
    while rounds < _checks.integer("max_rounds", max_rounds, 1) and moved >= 1e-4:
        before, energies = shares, torch.einsum("bn,knd->kbd", x, frames).square().sum(2).mT  # (num, K)
        if kappa is None:
            shares = torch.nn.functional.one_hot(energies.argmax(1), len(frames)).to(x)
        else:
            shares = torch.softmax(kappa / 2 * energies, dim=1)
        moments = torch.stack([(x * share[:, None]).mT @ x for share in shares.mT])  # (K, n, n)
        frames = torch.linalg.eigh(moments).eigenvectors[:, :, -frames.shape[2] :]
        rounds, moved = rounds + 1, float((shares - before).abs().max())
    return Fit(frames, shares, rounds)
