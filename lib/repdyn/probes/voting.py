"""An ensemble of linear probes, one for each noise level (or layer), that vote with their logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from repdyn.probes.linear import fit_many

__all__ = ["SoftVoting", "vote"]


def vote(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the logits (N, classes) of P members, centred over the classes: a constant that they share means nothing.

    Equation: ``eq-soft-vote``. Source: the soft voting of Li et al., arXiv 2502.05743.
    """
    mean = np.mean(logits, axis=0)  # (N, classes)
    return mean - mean.mean(1, keepdims=True)


class SoftVoting(ClassifierMixin, BaseEstimator):
    """Linear probes of P descriptions of the same items; the class with the highest mean logit wins.

    ``l2`` and ``max_iter`` are those of :class:`repdyn.probes.LinearProbe`. :func:`vote` averages them. After
    ``fit``, ``probes_`` has the P probes.

    Source: the ensembles over noise levels of Li et al., arXiv 2502.05743.
    """

    def __init__(self, l2: float = 1e-4, max_iter: int = 500) -> None:
        self.l2 = l2
        self.max_iter = max_iter

    def fit(self, X: Tensor | np.ndarray | Sequence, y: Tensor | np.ndarray) -> SoftVoting:
        """Fit on features ``X`` (P, N, D), or a sequence of P arrays (N, D_p), and labels ``y`` (N,).

        Raises ``ValueError`` for numbers of items that differ, and for what a linear probe refuses.
        """
        if np.ndim(y) != 1:
            raise ValueError(f"y must be (N,), got {tuple(np.shape(y))}")
        self.probes_ = [fit_many(part[None], y, l2=self.l2, max_iter=self.max_iter)[0] for part in self._parts(X, None)]
        self.classes_ = self.probes_[0].classes_
        self.n_features_in_ = tuple(probe.n_features_in_ for probe in self.probes_)
        return self

    def decision_function(self, X: Tensor | np.ndarray | Sequence) -> np.ndarray:
        """Mean of the probes' logits, (N, classes), centred over classes."""
        check_is_fitted(self)
        parts = zip(self.probes_, self._parts(X, self.n_features_in_), strict=True)
        return vote([probe.decision_function(part) for probe, part in parts])

    def predict_proba(self, X: Tensor | np.ndarray | Sequence) -> np.ndarray:
        """Class probabilities (N, classes), of the mean logits."""
        return torch.from_numpy(self.decision_function(X)).softmax(1).numpy()

    def predict(self, X: Tensor | np.ndarray | Sequence) -> np.ndarray:
        """Labels (N,)."""
        logits = self.decision_function(X)
        return self.classes_[logits.argmax(1)]

    @staticmethod
    def _parts(X: Tensor | np.ndarray | Sequence, sizes: tuple[int, ...] | None) -> list[Tensor]:
        parts = [torch.as_tensor(part, dtype=torch.float32) for part in X]
        shapes = [tuple(part.shape) for part in parts]
        if not parts or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"X must be (P, N, D), or P arrays (N, D_p) of one N, got {shapes}")
        if sizes is not None and tuple(shape[1] for shape in shapes) != sizes:
            raise ValueError(f"X must have features {sizes}, as in fit, got {shapes}")
        return parts
