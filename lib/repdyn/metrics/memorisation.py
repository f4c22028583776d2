"""Which generated images are copies of training images: a test of the two nearest neighbours' distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repdyn import _checks

__all__ = ["Memorisation", "memorised"]

_CANDIDATES = 8  # neighbours found by a fast product, among which the two nearest are found by subtraction


class Memorisation(NamedTuple):
    """Share of samples that are not copies; for each the ratio of distances, (N,), and the nearest neighbour, (N,)."""

    novel: float
    ratio: np.ndarray
    nearest: np.ndarray


def memorised(
    samples: object, training: object, *, threshold: float = 1 / 3, max_numbers: int = 50_000_000
) -> Memorisation:
    """Test each of N ``samples`` for being a copy of one of M ``training`` items: d_1 / d_2 < ``threshold``.

    d_1 and d_2 are the Euclidean distances to the nearest and the second nearest training item. A copy is far closer
    to its original than to any other; a new image is about equally far from several. Both arguments are (N, *shape)
    and (M, *shape): images, or features of any embedding, which decides what counts as close. A sample that equals
    several training items is a copy, with ratio zero; but a near copy of an item that the training set holds twice is
    not noticed, so remove duplicates before. At most about ``max_numbers`` distances and differences are held at once.

    Raises ``ValueError`` for shapes that do not fit, numbers that are not finite, fewer than two training items, or a
    ``threshold`` outside (0, 1).

    Source: Yoon et al., Diffusion probabilistic models generalize when they fail to memorize (2023), and Gu et al.,
    On memorization in diffusion models (2023), with 1/3.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    x, y = _rows("samples", samples), _rows("training", training)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"samples and training must have items of one size, got {x.shape[1]} and {y.shape[1]}")
    if len(x) < 1 or len(y) < 2:
        raise ValueError(f"samples must hold at least 1 item and training 2, got {len(x)} and {len(y)}")
    _checks.integer("max_numbers", max_numbers, 1)
    rows = max(1, max_numbers // max(len(y), _CANDIDATES * y.shape[1]))
    parts = [_two_nearest(part, y) for part in x.split(rows)]
    distance, nearest = (torch.cat(part) for part in zip(*parts, strict=True))
    first, second = distance.unbind(1)
    ratio = torch.where(second > 0, first / second, 0.0).numpy()
    return Memorisation(float((ratio >= threshold).mean()), ratio, nearest.numpy())


def _two_nearest(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (n, 2) to the two nearest rows of ``y``, in rising order, and which is the nearest, (n,)."""
    centre = y.mean(0)  # products of large numbers would drown small distances
    squares = (y - centre).square().sum(1) - 2 * (x - centre) @ (y - centre).T  # (n, M), up to a constant for each x
    candidates = squares.topk(min(_CANDIDATES, len(y)), largest=False).indices
    exact = (y[candidates] - x[:, None]).double().square().sum(2).sqrt()  # (n, candidates)
    distance, order = exact.topk(2, largest=False)
    return distance, candidates.gather(1, order)[:, 0]


def _rows(name: str, items: object) -> Tensor:
    items = torch.as_tensor(items).detach().cpu().float()
    if items.ndim < 2:
        raise ValueError(f"{name} must be (num, *shape), got {tuple(items.shape)}")
    if not torch.isfinite(items).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return items.flatten(1)
