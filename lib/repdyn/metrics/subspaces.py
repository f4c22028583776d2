"""Class subspaces from data, for the CSNR of features and posteriors whose true subspaces nobody knows."""

from __future__ import annotations

import torch
from torch import Tensor

from repdyn import _checks

__all__ = ["class_bases"]


def class_bases(features: object, labels: object, rank: int, *, centred: bool = False) -> Tensor:
    """First ``rank`` right singular vectors of the features of each class: bases (K, D, rank), in float64.

    ``features`` (num, D), ``labels`` (num,) integers 0..K-1, every class present. With ``centred`` the mean of the
    class is taken off first, which makes them its principal components; without, as the paper has it, a mean far from
    zero is among the first. The bases are what :func:`repdyn.csnr.csnr` takes.

    Raises ``ValueError`` for wrong shapes, NaN, a missing class, or a class whose features do not span ``rank``
    dimensions.
    Source: Li et al., arXiv 2502.05743, experimental details of Figure 6.
    """
    features = torch.as_tensor(features)
    size = features.shape[1] if features.ndim == 2 else "D"
    x = _checks.samples("features", features, size).detach().to(torch.float64)
    largest = int(torch.as_tensor(labels).max()) if len(x) == len(labels) and len(x) else 0
    labels = _checks.class_labels(labels, len(x), max(largest, 0) + 1).to(x.device)
    rank = _checks.integer("rank", rank, 1)
    bases = []
    for k in range(largest + 1):
        own = x[labels == k]
        own = own - own.mean(0) if centred and len(own) else own
        if rank > min(own.shape):
            raise ValueError(f"rank must be at most {min(own.shape)}, the samples or features of class {k}, got {rank}")
        _, scales, right = torch.linalg.svd(own, full_matrices=False)
        if not scales[rank - 1] > 1e-10 * scales[0]:
            raise ValueError(f"rank must be at most the dimensions that class {k} spans, got {rank}: pass a lower one")
        bases.append(right[:rank].mT)
    return torch.stack(bases)
