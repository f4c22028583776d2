"""Regularised multinomial logistic regression, many problems at once, by preconditioned L-BFGS in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

__all__ = ["CrossEntropy", "minimise"]

_NARROW = 256  # up to this many features the preconditioner follows the Hessian, beyond it stays the covariance
_REFRESH = 15  # iterations between two preconditioners of a narrow problem
_NOTICEABLE = 1e-5  # a step that promises less, of a mean cross-entropy, is not worth a warning
_PAIRS = 20  # differences of parameters and of gradients that L-BFGS remembers
_CHUNK = 2**20  # numbers of x that one product reads: they stay in the processor's cache between the two products


class CrossEntropy:
    """Mean cross-entropy plus l2 |W|^2 / 2 of P problems at once. Parameters and gradients are (P, classes, D + 1).

    ``x`` is (P, N, D), standardised; ``targets`` (P, N) are class indices. The last column of the parameters is the
    intercept, which is not penalised. No array of the size of ``x`` is made.
    """

    def __init__(self, x: Tensor, targets: Tensor, num_classes: int, l2: float) -> None:
        self.x, self.targets = x, targets.long()
        self.shape = (x.shape[0], num_classes, x.shape[2] + 1)
        self.rows = max(256, _CHUNK // (x.shape[0] * x.shape[2]))
        self.penalty = torch.full((x.shape[2] + 1,), float(l2), device=x.device)
        self.penalty[-1] = 0

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Value (P, 1, 1), in double precision, and gradient."""
        num = self.x.shape[1]
        value = torch.zeros(self.shape[0], 1, 1, dtype=torch.float64, device=self.x.device)
        gradient = torch.zeros(self.shape, device=self.x.device)
        for start in range(0, num, self.rows):
            x = self.x[:, start : start + self.rows]  # (P, rows, D)
            target = self.targets[:, None, start : start + self.rows]
            # (P, classes, rows): products and softmax are several times as fast as with the classes last
            log_p = (parameters[:, :, :-1] @ x.mT + parameters[:, :, -1:]).log_softmax(1)
            value -= log_p.gather(1, target).sum((1, 2), keepdim=True, dtype=torch.float64)
            residual = log_p.exp().scatter_add_(1, target, torch.full_like(target, -1, dtype=log_p.dtype))
            gradient[:, :, :-1] += residual @ x
            gradient[:, :, -1] += residual.sum(2)
        value = value / num + (self.penalty * parameters.square()).sum((1, 2), keepdim=True, dtype=torch.float64) / 2
        return value, gradient / num + self.penalty * parameters

    def bound(self) -> Tensor:
        """Inverse (P, D + 1, D + 1) of half the covariance plus the penalty, which exceeds the Hessian everywhere.

        Source: Böhning, Multinomial logistic regression algorithm, 1992; estimated on evenly spaced items.
        """
        x = self._sample()
        return self._inverse(x.mT @ x / (2 * x.shape[1]))

    def blocks(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Inverses (P, classes, D + 1, D + 1) of diagonal blocks of the Hessian, and the class basis Q they are in.

        The Hessian couples classes that are taken for each other. Q (P, classes, classes) are the eigenvectors of the
        mean coupling E[diag(p) - p p^T]: seen from them the blocks off the diagonal are small.
        """
        x = self._sample()
        p = (x @ parameters.mT).softmax(-1)  # (P, sample, classes)
        coupling = torch.diag_embed(p.mean(1)) - p.mT @ p / p.shape[1]
        basis = torch.linalg.eigh(coupling.double()).eigenvectors.to(p.dtype)
        weights = (p @ basis.square() - (p @ basis).square()).clamp_min(0)  # (P, sample, classes)
        blocks = [x.mT @ (x * w) / x.shape[1] for w in weights.split(1, dim=-1)]
        return torch.stack([self._inverse(block) for block in blocks], dim=1), basis

    def _sample(self) -> Tensor:
        every = max(1, self.x.shape[1] // max(2048, 8 * self.x.shape[2]))
        x = self.x[:, ::every]
        return torch.cat([x, torch.ones_like(x[:, :, :1])], dim=2)

    def _inverse(self, blocks: Tensor) -> Tensor:
        # Keeps the factor positive where a class is certain of every item, and where features are almost collinear:
        # rounding then moves an eigenvalue by the precision times the largest. The minimum does not depend on it.
        largest = blocks.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None]
        diagonal = self.penalty + 1e-6 + 10 * torch.finfo(blocks.dtype).eps * largest
        return torch.cholesky_inverse(torch.linalg.cholesky(blocks + torch.diag_embed(diagonal)))


def minimise(objective: CrossEntropy, start: Tensor, max_iter: int, tol: float) -> Tensor:
    """Minimise P convex functions together from ``start``, until each step promises less than ``tol``, or fails.

    Warns (scikit-learn's ``ConvergenceWarning``) when ``max_iter`` steps, or single precision, were not enough for all.

    The bound as a preconditioner is safe far from the minimum, where a wide Hessian misleads: outliers of single
    features are decided suddenly. A narrow problem takes the Hessian's blocks as soon as it has moved.
    """
    x, (value, gradient) = start, objective(start)
    precondition = _bounded(objective)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    active = torch.ones_like(value, dtype=torch.bool)
    promise = torch.zeros_like(value)
    for iteration in range(max_iter):
        if objective.x.shape[2] <= _NARROW and iteration % _REFRESH == 0 and (iteration or x.any()):
            precondition, pairs = _blockwise(objective, x), []
        step = torch.where(active, _direction(gradient, pairs, precondition), 0.0)
        slope = _dot(step, gradient)
        promise = torch.where(active, -slope / 2, promise)  # negative: rounding has spoilt the preconditioner
        active = active & (promise > tol)
        if not active.any():
            break
        step = step * active
        moved, new_value, new_gradient = _line_search(objective, x, value, gradient, step, slope)
        pairs = [*pairs[1 - _PAIRS :], _pair(moved - x, new_gradient - gradient)]
        active = active & (new_value < value)  # no step is short enough: single precision is exhausted
        x, value, gradient = moved, new_value, new_gradient
    if (unfinished := promise.abs() > _NOTICEABLE).any():
        warnings.warn(
            f"{int(unfinished.sum())} of {len(active)} probes did not reach their minimum within {max_iter} steps: "
            "a larger max_iter or a larger l2 lets them",
            ConvergenceWarning,
            stacklevel=2,
        )
    return x


def _line_search(
    objective: CrossEntropy, x: Tensor, value: Tensor, gradient: Tensor, step: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Point, value and gradient that satisfy Armijo's condition in each problem; where none was found, the old ones."""
    length = torch.ones_like(slope)
    for _ in range(12):
        new = x + length * step
        new_value, new_gradient = objective(new)
        failed = ~(new_value <= value + 1e-4 * length * slope)
        if not failed.any():
            break
        parabola = -slope * length**2 / (2 * (new_value - value - slope * length)).clamp_min(1e-30)
        length = torch.where(failed, parabola.to(length.dtype).clamp(0.1 * length, 0.5 * length), length)
    return (
        torch.where(failed, x, new),
        torch.where(failed, value, new_value),
        torch.where(failed, gradient, new_gradient),
    )


def _direction(gradient: Tensor, pairs: list, precondition: Callable[[Tensor], Tensor]) -> Tensor:
    """Minus the L-BFGS estimate of the inverse Hessian times the gradient (Nocedal and Wright, algorithm 7.4)."""
    q, coefficients = gradient, []
    for s, y, inverse in reversed(pairs):
        coefficients.append(inverse * _dot(s, q))
        q = q - coefficients[-1] * y
    z = precondition(q)
    if pairs:
        s, y, _ = pairs[-1]
        curvature = _dot(y, precondition(y))
        z = z * torch.where(curvature > 0, _dot(s, y) / curvature, 1.0)  # the bound is loose: bring it to scale
    for (s, y, inverse), coefficient in zip(pairs, reversed(coefficients), strict=True):
        z = z + (coefficient - inverse * _dot(y, z)) * s
    return -z


def _pair(s: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step, the change of the gradient, and 1 / (s . y), which is zero where a problem stood still."""
    product = _dot(s, y)
    usable = product > 0
    return s * usable, y * usable, torch.where(usable, 1 / product, 0.0)


def _bounded(objective: CrossEntropy) -> Callable[[Tensor], Tensor]:
    inverse = objective.bound()
    return lambda residual: residual @ inverse


def _blockwise(objective: CrossEntropy, parameters: Tensor) -> Callable[[Tensor], Tensor]:
    inverses, basis = objective.blocks(parameters)

    def precondition(residual: Tensor) -> Tensor:
        turned = (basis.mT @ residual).unsqueeze(2)  # (P, classes, 1, D + 1)
        return basis @ (turned @ inverses).squeeze(2)

    return precondition


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)  # (P, 1, 1)
