"""Classes of real images found without labels: the MoLRG denoiser as a subspace clustering, beside k-means."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from repdyn import _checks, datasets
from repdyn.chapters.recovery.measure import start_losses, train_starts
from repdyn.images import to_unit_range
from repdyn.metrics import clustering_accuracy
from repdyn.networks import MoLRGStarts
from repdyn.records import sweeps
from repdyn.theory.subspaces import alternate, random_bases

__all__ = ["ClusterConfig", "measure", "nearest_subspace", "principal_components", "rescaled"]


@dataclass(frozen=True)
class ClusterConfig:
    """What is measured: clusters of the training images of ``dataset``, as many as it has classes, by three methods.

    The methods are k-means, k-subspaces and a trained denoiser. Images are centred and reduced to principal components.
    """

    dataset: str = "fashion-mnist-mini"
    """Name of the images."""
    num: int | None = None
    """Only the first so many images; None: all."""
    components: int = 50
    """Principal components that are kept."""
    dims: tuple[int, ...] = (1, 2, 5, 10)
    """Dimensions of the subspaces: k-subspaces is fitted, and the denoiser trained, once for each."""
    schedules: tuple[str, ...] = ("0.3", "even")
    """Noise schedules, see :func:`repdyn.chapters.recovery.measure.phases`: the denoiser is trained once for each."""
    delta: float = 0.3
    """Standard deviation outside the subspaces, that inside being 1: the images are scaled to it, and the denoiser's is
    trained from that value on."""
    starts: int = 5
    """Random starts of every method."""
    steps: int = 600
    """Steps of a training, of all phases together."""
    batch_size: int = 128
    """Images of one step."""
    learning_rate: float = 1e-2
    """Adam's, from the first step on."""
    seed: int = 0
    """Draws the starts, the noise and the order of the images."""


def principal_components(images: Tensor, components: int) -> tuple[Tensor, float]:
    """Centred images (N, components) in their principal axes, in float64, and the share of variance these keep.

    Raises ``ValueError`` for more components than pixels or images.
    """
    flat = to_unit_range(images).flatten(1).double()
    if _checks.integer("components", components, 1) > min(flat.shape):
        raise ValueError(f"components must be at most {min(flat.shape)}, the pixels or images, got {components}")
    pca = PCA(components, svd_solver="covariance_eigh").fit(flat.numpy())
    return torch.from_numpy(pca.transform(flat.numpy())), float(pca.explained_variance_ratio_.sum())


def rescaled(x: Tensor, d: int, delta: float) -> Tensor:
    """``x`` (N, n) times a number, such that its mean square is that of a noisy MoLRG: d + delta^2 (n - d).

    Raises ``ValueError`` for d > n.
    """
    if _checks.integer("d", d, 1) > x.shape[1]:
        raise ValueError(f"d must be at most n = {x.shape[1]}, got {d}: pass the dimension of a subspace")
    return x * ((d + delta**2 * (x.shape[1] - d)) / x.square().sum(1).mean()).sqrt()


def nearest_subspace(x: Tensor, bases: Tensor) -> Tensor:
    """Index (N,) of the subspace of ``bases`` (K, n, d) nearest to each ``x`` (N, n): the most probable class."""
    return torch.einsum("bn,knd->bkd", x, bases.to(x)).square().sum(2).argmax(1)


def measure(config: ClusterConfig, *, cache: str | os.PathLike | None = None, progress: bool = False) -> dict[str, Any]:
    """Clustering accuracy, of every start, of k-means, k-subspaces and the denoiser; plain numbers and lists.

    ``k_means`` (starts,) and ``kept``, the share of variance in the components; ``k_subspaces``, a list for each
    dimension; ``denoiser``, for each dimension and schedule: ``accuracy``, ``losses`` and the trained ``delta``
    (starts,), and of the start with the lowest loss the variance along the ``inside`` directions of its clusters, each
    (K, d), which the model takes for 1, and the mean variance ``outside``. Labels only judge. Each fit is a run of
    :func:`repdyn.records.sweeps.run`: with ``cache``, a folder, finished ones are kept there.
    """
    data = datasets.load(config.dataset, "train")
    labels = data.labels[: config.num]
    x, kept = principal_components(data.images[: config.num], config.components)
    fits = [_Fit(config, None, None)]
    fits += [_Fit(config, d, schedule) for d in config.dims for schedule in (None, *config.schedules)]
    fit = functools.partial(_fit, x=x, labels=labels, K=len(data.classes))
    means, *others = sweeps.run(fit, fits, cache=cache, progress=progress, desc="clusters")
    found = list(zip(fits[1:], others, strict=True))
    return {
        "kept": kept,
        "k_means": means,
        "dims": list(config.dims),
        "k_subspaces": [result for plan, result in found if plan.schedule is None],
        "denoiser": [{"d": plan.d, "schedule": plan.schedule, **result} for plan, result in found if plan.schedule],
    }


class _Fit(NamedTuple):
    """One method: the denoiser on ``schedule``; without it k-subspaces; without a dimension ``d`` k-means."""

    config: ClusterConfig
    d: int | None
    schedule: str | None


def _fit(fit: _Fit, _folder: Path | None, *, x: Tensor, labels: Tensor, K: int) -> Any:
    config, d, schedule = fit
    seeds = range(config.seed, config.seed + config.starts)
    if d is None:
        means = [KMeans(K, n_init=1, random_state=seed).fit_predict(x.numpy()) for seed in seeds]
        return [clustering_accuracy(found, labels) for found in means]
    scaled = rescaled(x, d, config.delta)
    if schedule is not None:
        return _denoiser(config, scaled, labels, d, schedule)
    bases = [alternate(scaled, random_bases(K, config.components, d, seed)).bases for seed in seeds]
    return [clustering_accuracy(nearest_subspace(scaled, b), labels) for b in bases]


def _denoiser(config: ClusterConfig, x: Tensor, labels: Tensor, d: int, schedule: str) -> dict[str, Any]:
    K = int(labels.max()) + 1
    denoiser = MoLRGStarts(config.starts, x.shape[1], d, K, config.delta, learn_delta=True, seed=config.seed)
    *_, step = train_starts(
        denoiser,
        x.float(),
        schedule,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    bases, loss = step.ema.bases.detach().double(), start_losses(step.ema, x[:2000].float())
    clusters = [nearest_subspace(x, b) for b in bases]
    best = int(loss.argmin())
    inside, outside = _variances(x, clusters[best], bases[best])
    return {
        "accuracy": [clustering_accuracy(found, labels) for found in clusters],
        "losses": loss.tolist(),
        "delta": step.ema.delta.tolist(),
        "inside": inside,
        "outside": outside,
    }


def _variances(x: Tensor, clusters: Tensor, bases: Tensor) -> tuple[list[list[float]], float]:
    """Mean squares along the principal directions inside each subspace (K, d), and the mean one outside."""
    inside, outside = [], 0.0
    for k, basis in enumerate(bases):
        own = x[clusters == k]
        within = own @ basis
        spectrum = torch.linalg.eigvalsh(within.mT @ within / max(len(own), 1))
        inside.append(spectrum.flip(0).tolist())
        outside += float(own.square().sum() - within.square().sum())
    return inside, outside / (len(x) * (x.shape[1] - bases.shape[2]))
