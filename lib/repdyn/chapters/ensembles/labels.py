"""Label noise: how a probe fares when some of its training labels are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from repdyn import _checks

__all__ = ["label_noise"]


def label_noise(labels: Sequence[int] | np.ndarray | Tensor, share: float, num_classes: int, seed: int) -> np.ndarray:
    """A copy of ``labels`` (N,), integers in 0..num_classes-1, in which round(share N) are wrong.

    Which ones is drawn uniformly, and so is the class of each among the ``num_classes`` - 1 others: so the share of
    wrong labels is exact, and a ``share`` of (num_classes - 1) / num_classes leaves no information. For one ``seed``
    the items of a smaller share are among those of a larger one, with the same wrong labels.

    Raises ``ValueError`` for a share outside 0..1, labels outside their range, fewer than two classes.
    """
    num_classes = _checks.integer("num_classes", num_classes, 2)
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in 0..1, got {share}")
    noisy = _checks.class_labels(labels, len(labels), num_classes).cpu().numpy().copy()
    rng = np.random.default_rng(_checks.integer("seed", seed, 0))
    order, shifts = rng.permutation(len(noisy)), rng.integers(1, num_classes, len(noisy))
    wrong = order[: round(share * len(noisy))]
    noisy[wrong] = (noisy[wrong] + shifts[wrong]) % num_classes
    return noisy
