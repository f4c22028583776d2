"""Full-batch gradient descent on two-patch data, for both networks, in the few coordinates in which it happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from repdyn.chapters.feature_learning.two_patch import (
    QuadraticClassifier,
    QuadraticDenoiser,
    TwoPatchData,
    TwoPatchModel,
    classification_loss,
    denoising_loss,
)

__all__ = ["Descent", "Trained", "alignment", "descend", "settle", "span", "train_classifier", "train_denoiser"]

Loss = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Descent:
    """How networks are trained: ``num`` samples, ``width`` neurons (for each class, in the classifier), their start.

    ``sigma`` is the denoiser's noise level. ``rate`` is the step size in units of the inverse curvature that the
    data's size allows. ``steps`` bounds the descent, ``target`` is the loss at which the classifier stops.
    """

    num: int = 20
    width: int = 8
    start: float = 1e-2
    sigma: float = 0.7
    rate: float = 0.1
    steps: int = 2000
    target: float = 0.01


class Trained(NamedTuple):
    """A training: loss and mean alignment with signals and noise patches after ``steps``, and where it ended.

    ``weights`` are the last, in R^D; ``residual`` is the largest entry of the last gradient. ``accuracy`` is that of a
    classifier on fresh samples, None for a denoiser.
    """

    steps: list[int]
    loss: list[float]
    signal: list[float]
    noise: list[float]
    weights: Tensor
    residual: float
    accuracy: float | None = None

    @property
    def ratio(self) -> float:
        """The last alignment with the signals over that with the noise patches."""
        return self.signal[-1] / self.noise[-1]


def span(*rows: Tensor) -> Tensor:
    """Orthonormal basis (D, k) of the span of ``rows`` (..., D); the first rows lie along the first axes if orthogonal.

    Every gradient of both networks is a combination of data patches and weights, so that descent never leaves their
    span: in coordinates of this basis it is the same descent, at a cost that does not depend on D.
    """
    basis, triangle = torch.linalg.qr(torch.cat([row.flatten(0, -2) for row in rows]).T)
    return basis * triangle.diagonal().sign()


def descend(loss: Loss, weights: Tensor, rate: float, steps: int) -> Iterator[tuple[float, Tensor]]:
    """Plain gradient descent: yields (loss, weights) before the first and after each of ``steps`` steps.

    ``loss`` returns a value and its gradient, as :func:`repdyn.chapters.feature_learning.two_patch.denoising_loss`
    does.

    Raises ``FloatingPointError`` when the loss is not finite.
    """
    for _ in range(steps + 1):
        value, gradient = loss(weights)
        if not math.isfinite(reached := value.item()):
            raise FloatingPointError(f"the loss is {reached}: lower rate")
        yield reached, weights
        weights = weights - rate * gradient


def settle(loss: Loss, weights: Tensor, max_iter: int = 3000) -> tuple[Tensor, float, float]:
    """The stationary point of ``loss`` beside ``weights``, by L-BFGS; the loss, and the largest entry of its gradient.

    For the end of a descent, whose last digits would take plain steps for ever.
    """

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(torch.from_numpy(flat).view_as(weights))
        return value.item(), gradient.numpy().ravel()

    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "ftol": 1e-15, "gtol": 1e-8}
    found = optimize.minimize(function, weights.numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).view_as(weights), float(found.fun), float(np.abs(found.jac).max())


def alignment(weights: Tensor, data: TwoPatchData, signals: Tensor) -> tuple[float, float]:
    """Mean |<w_r, mu_j>| over neurons and signals, mean |<w_r, xi_i>| over neurons and noise patches.

    ``weights`` is (m, D), every neuron counted for every class, or (2, m, D), each counted for its own class;
    ``signals`` is (2, D). The theory is about the ratio of the two.

    Equation: ``eq-feature-learning-alignment``. Source: Han et al. (2024).
    """
    groups = weights.expand(2, -1, -1)  # (2, m, D)
    signal = torch.einsum("jrd,jd->jr", groups, signals)
    noise = torch.einsum("nrd,nd->nr", groups[data.labels], data.x[:, 1])
    return signal.abs().mean().item(), noise.abs().mean().item()


def train_denoiser(model: TwoPatchModel, descent: Descent, seed: int, *, polish: bool = True) -> Trained:
    """Train a :class:`repdyn.chapters.feature_learning.two_patch.QuadraticDenoiser` on samples of ``model``; data and
    start depend on ``seed``.

    With ``polish`` the last point is moved to the stationary point beside it (:func:`settle`), as one more step.
    """
    start = QuadraticDenoiser(model.D, descent.width, descent.start, seed).weights.detach()
    basis, inside, signals = _inside(model, descent, seed, start)
    size = max(model.noise**2 * model.D / descent.num, model.signal**2 / 2) / descent.sigma**2

    def loss(weights: Tensor) -> tuple[Tensor, Tensor]:
        return denoising_loss(weights, inside.x, descent.sigma)

    trained = _follow(descend(loss, start @ basis, descent.rate / (1 + size), descent.steps), inside, signals)
    if polish:
        weights, value, residual = settle(loss, trained.weights)
        signal, noise = alignment(weights, inside, signals)
        last = trained.steps[-1] + 1
        trained = Trained(
            [*trained.steps, last], [*trained.loss, value], [*trained.signal, signal], [*trained.noise, noise],
            weights, residual,
        )  # fmt: skip
    else:
        trained = trained._replace(residual=loss(trained.weights)[1].abs().max().item())
    return trained._replace(weights=trained.weights @ basis.T)


def train_classifier(model: TwoPatchModel, descent: Descent, seed: int, *, num_test: int = 2000) -> Trained:
    """Train a :class:`repdyn.chapters.feature_learning.two_patch.QuadraticClassifier` on the same samples, until the
    loss is ``descent.target``.

    Its ``accuracy`` is measured on ``num_test`` fresh samples. Raises ``RuntimeError`` when the steps do not suffice.
    """
    start = QuadraticClassifier(model.D, descent.width, descent.start, seed).weights.detach()
    basis, inside, signals = _inside(model, descent, seed, start)
    size = max(model.noise**2 * model.D / descent.num, model.signal**2 / 2)

    def loss(weights: Tensor) -> tuple[Tensor, Tensor]:
        return classification_loss(weights, inside.x, inside.labels)

    path = descend(loss, start @ basis, descent.rate * descent.width / size, descent.steps)
    trained = _follow(path, inside, signals, descent.target)
    if trained.loss[-1] > descent.target:
        raise RuntimeError(
            f"the loss is {trained.loss[-1]:.3g} after {descent.steps} steps: allow more, or a higher rate"
        )
    # What fresh noise has outside the span no neuron sees; inside it is as Gaussian as in R^D.
    fresh = TwoPatchModel(basis.shape[1], model.signal, model.noise).sample(num_test, seed + 1_000_000)
    small = QuadraticClassifier(basis.shape[1], descent.width)
    small.weights.data = trained.weights
    with torch.no_grad():
        right = small(fresh.x).argmax(1) == fresh.labels
    residual = loss(trained.weights)[1].abs().max().item()
    return trained._replace(weights=trained.weights @ basis.T, residual=residual, accuracy=right.double().mean().item())


def _inside(model: TwoPatchModel, descent: Descent, seed: int, start: Tensor) -> tuple[Tensor, TwoPatchData, Tensor]:
    data = model.sample(descent.num, seed)
    basis = span(model.signals, data.x[:, 1], start)
    return basis, data._replace(x=data.x @ basis), model.signals @ basis


def _follow(
    path: Iterator[tuple[float, Tensor]], data: TwoPatchData, signals: Tensor, target: float = -math.inf
) -> Trained:
    """Read off alignments at some 25 steps a decade, and at the last one."""
    found: list[tuple[int, float, float, float]] = []
    due = 0
    for step, (loss, weights) in enumerate(path):
        if step >= due or loss <= target:
            found.append((step, loss, *alignment(weights, data, signals)))
            due = max(step + 1, math.ceil(1.1 * step))
        if loss <= target:
            break
    if found[-1][0] != step:
        found.append((step, loss, *alignment(weights, data, signals)))
    steps, losses, signal, noise = map(list, zip(*found))
    return Trained(steps, losses, signal, noise, weights, math.nan)
