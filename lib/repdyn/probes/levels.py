"""Linear probes of one layer at many noise levels, on several splits; of several penalties validation chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repdyn.probes.linear import fit_path

__all__ = ["Curves", "probe_curves"]

_TOGETHER = 3e7  # features that are read at once: as many levels as that makes, and at least one


class Curves(NamedTuple):
    """Validation accuracies and chosen penalties, both (splits, S), and which test items are right, (splits, S, N)."""

    validation: np.ndarray
    correct: np.ndarray
    l2: np.ndarray


def probe_curves(
    activations: Tensor | Sequence[Tensor],
    train_labels: Tensor,
    test_labels: Tensor,
    splits: list[tuple[Tensor, Tensor]],
    l2: float | Sequence[float],
) -> Curves:
    """Linear probes of features at S noise levels: (S, N, D), or a sequence of S tensors (N, D), read a few at a time.

    The first ``len(train_labels)`` rows are training items, the others test items; each split is a pair of index
    vectors, (held out, fitted). Of several ``l2``, each probe takes the one with the highest accuracy on the held-out
    items, the strongest of equals.
    """
    penalties = sorted(l2 if isinstance(l2, Sequence) else (l2,), reverse=True)
    if not penalties:
        raise ValueError("l2 is empty: pass a penalty, or several to choose from")
    shape, num = (len(splits), len(activations)), len(train_labels)
    curves = Curves(np.empty(shape), np.empty((*shape, len(test_labels)), dtype=bool), np.empty(shape))
    together = max(1, int(_TOGETHER / max(activations[0].numel(), 1)))
    for start in range(0, len(activations), together):
        levels = range(start, min(start + together, len(activations)))
        read = torch.stack([activations[j] for j in levels]) if len(levels) > 1 else activations[start][None]
        for i, (held, fitted) in enumerate(splits):
            path = fit_path(read[:, fitted], train_labels[fitted], penalties)
            for j, x, *probes in zip(levels, read, *path, strict=True):
                scores = [probe.score(x[held], train_labels[held].numpy()) for probe in probes]
                best = int(np.argmax(scores))  # the first of equals
                curves.validation[i, j], curves.l2[i, j] = scores[best], penalties[best]
                curves.correct[i, j] = probes[best].predict(x[num:]) == test_labels.numpy()
    return curves
