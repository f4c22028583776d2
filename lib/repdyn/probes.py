"""Linear probes with scikit-learn's interface, many of them solved together by one batched Newton method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LinearProbe", "PeakHeight", "fit_many", "peak_height"]


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Batch normalisation and a linear layer, trained to the minimum of the regularised cross-entropy.

    ``l2`` weighs the squared norm of the weights (of standardised features) against the mean cross-entropy;
    ``max_iter`` bounds the Newton steps. After ``fit``, ``coef_`` is (classes, D) and ``intercept_`` (classes,).

    Source: the protocol of Chen et al. (2024), used by Li et al. (2025), with the optimum instead of a few epochs of
    SGD.
    """

    def __init__(self, l2: float = 1e-4, max_iter: int = 50) -> None:
        self.l2 = l2
        self.max_iter = max_iter

    def fit(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> LinearProbe:
        """Fit on features ``X`` (N, D) and integer labels ``y`` (N,)."""
        fitted = fit_many(torch.as_tensor(X)[None], y, l2=self.l2, max_iter=self.max_iter)[0]
        self.__dict__.update(fitted.__dict__)
        return self

    def decision_function(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Logits (N, classes)."""
        return np.asarray(torch.as_tensor(X, dtype=torch.float32)) @ self.coef_.T + self.intercept_

    def predict(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Labels (N,)."""
        return self.classes_[self.decision_function(X).argmax(1)]


def fit_many(
    features: Tensor, labels: Tensor | np.ndarray, *, l2: float = 1e-4, max_iter: int = 50, tol: float = 1e-5
) -> list[LinearProbe]:
    """Fit one :class:`LinearProbe` to each of P feature sets (P, N, D) in one batched solve.

    ``labels`` is (N,), or (P, N) when every set has its own, as with label noise. All P problems advance together until
    a step promises less than ``tol`` in the objective of each. A feature that is constant gets no weight.

    Raises ``ValueError`` for shapes that do not fit, features that are not finite, fewer than two classes, or an ``l2``
    that is not positive.
    """
    features = torch.as_tensor(features, dtype=torch.float32)
    labels = torch.as_tensor(np.asarray(labels))
    if features.ndim != 3 or labels.shape not in ((features.shape[1],), features.shape[:2]):
        raise ValueError(
            f"features must be (P, N, D), labels (N,) or (P, N); got {tuple(features.shape)}, {tuple(labels.shape)}"
        )
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinity")
    if not l2 > 0:
        raise ValueError(f"l2 must be positive, got {l2}: without it the weights of separable classes grow for ever")
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels hold fewer than two classes")
    mean = features.mean(1, keepdim=True)  # (P, 1, D)
    scale = features.std(1, keepdim=True, correction=0)
    scale = torch.where(scale > 1e-5 * mean.abs(), scale, torch.inf)  # constant up to rounding
    x = torch.cat([(features - mean) / scale, torch.ones(*features.shape[:2], 1)], dim=2)  # (P, N, D + 1)
    objective = _CrossEntropy(x, targets.expand(features.shape[:2]), len(classes), l2)
    weights = _newton(objective, max_iter, tol)  # (P, D + 1, classes)
    probes = []
    for weight, m, s in zip(weights, mean[:, 0], scale[:, 0], strict=True):
        probe = LinearProbe(l2=l2, max_iter=max_iter)
        coef = (weight[:-1] / s[:, None]).T
        probe.coef_, probe.intercept_ = coef.numpy(), (weight[-1] - coef @ m).numpy()
        probe.classes_, probe.n_features_in_ = classes.numpy(), features.shape[2]
        probes.append(probe)
    return probes


class _CrossEntropy:
    """Mean cross-entropy plus l2 |W|^2 / 2 of P problems at once. Parameters and gradients are (P, D + 1, classes).

    ``x`` is (P, N, D + 1), its last column ones: the intercept's, which is not penalised.
    """

    def __init__(self, x: Tensor, targets: Tensor, num_classes: int, l2: float) -> None:
        self.x = x
        self.one_hot = F.one_hot(targets.long(), num_classes).to(x.dtype)  # (P, N, classes)
        self.shape = (x.shape[0], x.shape[2], num_classes)
        self.penalty = torch.full((x.shape[2], 1), l2)
        self.penalty[-1] = 0

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value (P, 1, 1), gradient, and class probabilities (P, N, classes)."""
        log_p = (self.x @ parameters).log_softmax(-1)
        value = -(log_p * self.one_hot).sum((1, 2), keepdim=True) / self.x.shape[1]
        value = value + (self.penalty * parameters.square()).sum((1, 2), keepdim=True) / 2
        p = log_p.exp()
        return value, self._pull_back(p - self.one_hot, parameters), p

    def hessian_product(self, p: Tensor, direction: Tensor) -> Tensor:
        """The Hessian, where the class probabilities are ``p``, times ``direction``."""
        change = self.x @ direction
        return self._pull_back(p * (change - (p * change).sum(-1, keepdim=True)), direction)

    def preconditioner(self, p: Tensor) -> Tensor:
        """Inverses (P, classes or 1, D + 1, D + 1) of the Hessian's diagonal blocks, estimated on evenly spaced items.

        Within a class the Hessian is a weighted covariance of the features; between classes it couples them weakly. For
        many features, where inverting would cost more than it saves, one average block stands for all classes.
        """
        every = max(1, self.x.shape[1] // max(2048, 8 * self.x.shape[2]))
        x, weights = self.x[:, ::every], p[:, ::every] * (1 - p[:, ::every])
        if self.x.shape[2] > 256:
            weights = weights.mean(-1, keepdim=True)
        blocks = torch.stack([x.mT @ (x * w) for w in weights.split(1, dim=-1)], dim=1) / x.shape[1]
        diagonal = self.penalty.flatten() + 1e-6  # keeps the factor positive where a class is certain of every item
        return torch.cholesky_inverse(torch.linalg.cholesky(blocks + torch.diag(diagonal)))

    def _pull_back(self, residual: Tensor, parameters: Tensor) -> Tensor:
        gradient = (residual.mT @ self.x).mT  # four times as fast as x.mT @ residual
        return gradient / self.x.shape[1] + self.penalty * parameters


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)  # (P, 1, 1)


def _newton(objective: _CrossEntropy, max_iter: int, tol: float) -> Tensor:
    """Minimise P strongly convex functions together: truncated Newton steps with Armijo backtracking."""
    x = torch.zeros(objective.shape)
    value, gradient, p = objective(x)
    active = torch.ones_like(value, dtype=torch.bool)
    for _ in range(max_iter):
        step = _newton_step(objective, p, gradient, active)
        slope = _dot(step, gradient)
        length = torch.ones_like(value)
        for _ in range(20):
            new_value, new_gradient, p = objective(x + length * step)
            failed = new_value > value + 1e-4 * length * slope + 1e-6 * value.abs()  # the last term: float32 rounding
            if not failed.any():
                break
            length = torch.where(failed, length / 2, length)
        x, value, gradient = x + length * step, new_value, new_gradient
        active &= -slope / 2 > tol  # the decrease that the quadratic model promised
        if not active.any():
            break
    return x


def _newton_step(objective: _CrossEntropy, p: Tensor, gradient: Tensor, active: Tensor, max_iter: int = 50) -> Tensor:
    """Minus the inverse Hessian times the gradient by conjugate gradients; zero where not ``active``."""
    inverse = objective.preconditioner(p)

    def precondition(residual: Tensor) -> Tensor:
        if inverse.shape[1] == 1:
            return inverse[:, 0] @ residual
        return (inverse @ residual.mT.unsqueeze(-1)).squeeze(-1).mT

    step, residual = torch.zeros_like(gradient), -gradient * active
    direction = precondition(residual)
    square = _dot(residual, direction)
    enough = 0.1 * square  # a coarse solution: more precise ones cost more products than the Newton steps they save
    for _ in range(max_iter):
        going = square > enough
        if not going.any():
            break
        product = objective.hessian_product(p, direction)
        length = torch.where(going, square / _dot(direction, product), 0.0)
        step, residual = step + length * direction, residual - length * product
        better = precondition(residual)
        previous, square = square, torch.where(going, _dot(residual, better), square)
        direction = better + torch.where(going, square / previous, 0.0) * direction
    return step


class PeakHeight(NamedTuple):
    """Height of a curve's peak above its two ends, each with a bootstrap interval, and where the peak is."""

    index: int
    above_left: float
    left_interval: tuple[float, float]
    above_right: float
    right_interval: tuple[float, float]


def peak_height(
    correct: np.ndarray, index: int | None = None, *, num_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> PeakHeight:
    """How far the best noise level stands above the lowest and the highest one, in accuracy, paired over test items.

    ``correct`` (S, N) says for S noise levels, in rising order, which of N items were classified correctly (0 or 1, or
    a mean over seeds). ``index`` is the best level, chosen on other items; by default it is the best on ``correct``
    itself, which flatters a flat curve: the highest of several equals stands above the rest by luck. Items are
    resampled ``num_resamples`` times with the peak's place kept; intervals are percentiles. An interval above zero on
    both sides is what the book calls unimodal.
    """
    correct = np.asarray(correct, dtype=np.float64)
    if correct.ndim != 2 or correct.shape[0] < 3:
        raise ValueError(f"correct must be (S, N) with S >= 3 noise levels, got {correct.shape}")
    index = int(correct.mean(1).argmax()) if index is None else index
    rng = np.random.default_rng(seed)
    ends = np.stack([correct[index] - correct[0], correct[index] - correct[-1]])  # (2, N)
    n = correct.shape[1]
    means = np.empty((num_resamples, 2))
    for i in range(num_resamples):
        means[i] = ends[:, rng.integers(0, n, n)].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    above = ends.mean(1)
    return PeakHeight(
        index, float(above[0]), (float(low[0]), float(high[0])), float(above[1]), (float(low[1]), float(high[1]))
    )
