"""Linear probes with scikit-learn's interface, many of them solved together, and the height of a curve's peak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from repdyn.probes._logistic import CrossEntropy, minimise

__all__ = [
    "LinearProbe",
    "fit_many",
    "fit_path",
]

_TOGETHER = 2_000_000  # numbers of features solved at once: larger problems gain nothing from company


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Batch normalisation and a linear layer, trained to the minimum of the regularised cross-entropy.

    ``l2`` weighs the squared norm of the weights (of standardised features) against the mean cross-entropy;
    ``max_iter`` bounds the steps of the solver, which warns when it had to stop there. After ``fit``, ``coef_`` is
    (classes, D) and ``intercept_`` (classes,).

    Source: the protocol of Chen et al. (2024), used by Li et al. (2025), with the optimum instead of a few epochs of
    SGD.
    """

    def __init__(self, l2: float = 1e-4, max_iter: int = 500) -> None:
        self.l2 = l2
        self.max_iter = max_iter

    def fit(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> LinearProbe:
        """Fit on features ``X`` (N, D) and integer labels ``y`` (N,)."""
        fitted = fit_many(torch.as_tensor(X)[None], y, l2=self.l2, max_iter=self.max_iter)[0]
        self.__dict__.update(fitted.__dict__)
        return self

    def decision_function(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Logits (N, classes)."""
        check_is_fitted(self, "coef_")
        x = torch.as_tensor(X, dtype=torch.float32).detach().cpu().numpy()
        if x.ndim != 2 or x.shape[1] != self.n_features_in_:
            raise ValueError(f"X must be (N, {self.n_features_in_}), got {x.shape}")
        return x @ self.coef_.T + self.intercept_

    def predict(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Labels (N,)."""
        logits = self.decision_function(X)  # first: an unfitted probe has no classes_ to name
        return self.classes_[logits.argmax(1)]


def fit_many(
    features: Tensor, labels: Tensor | np.ndarray, *, l2: float = 1e-4, max_iter: int = 500, tol: float = 3e-8
) -> list[LinearProbe]:
    """Fit one :class:`LinearProbe` to each of P feature sets (P, N, D): :func:`fit_path` with one ``l2``."""
    return fit_path(features, labels, (l2,), max_iter=max_iter, tol=tol)[0]


def fit_path(
    features: Tensor,
    labels: Tensor | np.ndarray,
    l2: Sequence[float],
    *,
    max_iter: int = 500,
    tol: float = 3e-8,
) -> list[list[LinearProbe]]:
    """Fit P feature sets (P, N, D) for each of several ``l2``: for each of them, in their order, P probes.

    ``labels`` is (N,), or (P, N) when every set has its own, as with label noise. The largest ``l2`` is solved first
    and the others start from the solution before theirs, which saves about a quarter of the separate fits.
    Small problems advance together; each stops when a step promises less than ``tol`` in its objective. Apart from the
    features, memory holds one standardised copy of the problems that are being solved. The work is done on the device
    that the features are on. A feature that is constant gets no weight.

    Raises ``ValueError`` for shapes that do not fit, features that are not finite, fewer than two classes, or an ``l2``
    that is not positive.
    """
    features = torch.as_tensor(features)
    labels = torch.as_tensor(labels).cpu()
    if features.ndim != 3 or labels.shape not in ((features.shape[1],), features.shape[:2]):
        raise ValueError(
            f"features must be (P, N, D), labels (N,) or (P, N); got {tuple(features.shape)}, {tuple(labels.shape)}"
        )
    for value in l2:
        if not value > 0:
            raise ValueError(
                f"l2 must be positive, got {value}: without it the weights of separable classes grow for ever"
            )
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels hold fewer than two classes")
    targets = targets.expand(features.shape[:2])
    path: list[list[LinearProbe]] = [[] for _ in l2]
    together = max(1, _TOGETHER // max(1, features[0].numel()))
    for start in range(0, len(features), together):
        part = slice(start, start + together)
        solved = _fit_group(features[part], targets[part].to(features.device), classes, l2, max_iter, tol)
        for probes, more in zip(path, solved, strict=True):
            probes += more
    return path


def _fit_group(
    features: Tensor, targets: Tensor, classes: Tensor, l2: Sequence[float], max_iter: int, tol: float
) -> list[list[LinearProbe]]:
    """What :func:`fit_path` returns, for problems that are small enough to be solved together, or one large one."""
    features = features.float()
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinity")
    mean = features.mean(1, keepdim=True)  # (P, 1, D)
    scale = features.std(1, keepdim=True, correction=0)
    scale = torch.where(scale > 1e-5 * mean.abs(), scale, torch.inf)  # constant up to rounding
    x = (features - mean).div_(scale)
    weights = torch.zeros(len(x), len(classes), x.shape[2] + 1, device=x.device)
    path: list[list[LinearProbe]] = [[] for _ in l2]
    for index in sorted(range(len(l2)), key=lambda i: -l2[i]):
        weights = minimise(CrossEntropy(x, targets, len(classes), l2[index]), weights, max_iter, tol)
        for weight, m, s in zip(weights, mean[:, 0], scale[:, 0], strict=True):
            probe = LinearProbe(l2=l2[index], max_iter=max_iter)
            coef = weight[:, :-1] / s
            probe.coef_, probe.intercept_ = coef.cpu().numpy(), (weight[:, -1] - coef @ m).cpu().numpy()
            probe.classes_, probe.n_features_in_ = classes.numpy(), x.shape[2]
            path[index].append(probe)
    return path
