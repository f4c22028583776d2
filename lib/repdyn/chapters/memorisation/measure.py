"""Generalising or memorising: what a diffusion model reads, what it makes, and where its loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn import datasets, features, sampling
from repdyn._torch import autocast
from repdyn.denoisers import dae_loss, edm_loss_weight
from repdyn.features import POSTERIOR
from repdyn.images import to_unit_range
from repdyn.metrics import memorised, sliced_wasserstein
from repdyn.metrics.resampling import peak_height
from repdyn.noise import edm_sigmas
from repdyn.probes import probe_curves
from repdyn.theory.empirical import EmpiricalDenoiser

__all__ = [
    "MemoryConfig", "Scene", "curves", "generate_images", "participation_ratio", "read", "scene", "score",
    "weighted_losses",
]  # fmt: skip

_PROBE_SEED = 0  # labelled images are the same for all trainings, so that curves differ by what was learned only


@dataclass(frozen=True)
class MemoryConfig:
    """One training of a U-Net of two resolutions, and what is measured of it."""

    dataset: str = "fashion-mnist"
    """Name of the images."""
    pool: int = 2
    """Images are averaged over squares of ``pool`` by ``pool`` pixels; 1 leaves them as they are."""
    num_train: int = 1024
    """Images of the training set. Of one seed, a smaller training set is a part of every larger one."""
    width: int = 16
    """Channels at the higher resolution; the lower one has twice as many."""
    images: int = 65_536
    """Images seen in the training in all, one that is seen again counted again."""
    batch_size: int = 64
    """Images of one step."""
    learning_rate: float = 3e-3
    """Adam's, after the warm-up."""
    warmup_images: int = 2_000
    """Images over which the learning rate rises linearly from 0."""
    p_mean: float = -0.6
    """Mean of log sigma in the training; its standard deviation is 1.2."""
    precision: str = "bf16"
    """Of the training, as in :class:`repdyn.training.TrainConfig`; 'no', the word of older records, is 'float32'."""
    checkpoints: int = 1
    """How many times the training is measured: after the whole training, and after a half, a quarter, ..."""
    layer: str = "dec/7x7_block0"
    """The hidden layer that is probed, beside the posterior estimates."""
    sigmas: tuple[float, ...] = (0.002, 0.023, 0.06, 0.14, 0.296, 0.585, 1.923)
    """Noise levels of the probes, in units of images in [-1, 1]."""
    num_probe: int = 1200
    """Labelled images for the probes, which no training sees, the same for every seed."""
    num_test: int = 1500
    """Test images, the same for every seed."""
    validation: float = 0.25
    """Share of the probes' images that is set aside to choose the noise level."""
    l2: float = 1e-2
    """The probes' penalty, on features that are standardised."""
    samples: int = 256
    """Images that are generated, for each number of ``steps``."""
    steps: tuple[int, ...] = (10,)
    """Steps of Heun's method in which images are generated; of several the first is for all that follows."""
    thresholds: tuple[float, ...] = (0.2, 1 / 3, 0.5, 0.7)
    """The share of generated images that are no copies is counted at each: a copy's distance to the nearest training
    image is below the threshold times that to the second nearest. For posterior estimates the second is taken."""
    loss_sigmas: tuple[float, ...] = (0.14, 0.296, 0.585, 1.088, 1.923)
    """Noise levels at which losses are measured."""
    num_loss: int = 500
    """Images of either kind, from the training set and from the test images, on which losses are measured."""
    seed: int = 0
    """Draws the images, the weights and all noise."""
    read_precision: str = "float32"
    """Of all that is measured: 'float32' or 'bf16'."""

    def __post_init__(self) -> None:
        features.check_precision(self.read_precision)


class Scene(NamedTuple):
    """Images (N, C, H, W) in [-1, 1]: the training set, and labelled ones for probes and for tests, never trained."""

    train: Tensor
    probe: Tensor
    probe_labels: Tensor
    test: Tensor
    test_labels: Tensor


def scene(config: MemoryConfig) -> Scene:
    """The images of a configuration. Raises ``ValueError`` for more training images than the probes leave over."""
    train, test = (datasets.load(config.dataset, split) for split in ("train", "test"))
    labelled, rest = datasets.stratified_split(train.labels, config.num_probe, _PROBE_SEED)
    tested, _ = datasets.stratified_split(test.labels, config.num_test, _PROBE_SEED)
    if not 2 <= config.num_train <= len(rest):
        raise ValueError(
            f"num_train must be in 2..{len(rest)}, what num_probe leaves of {config.dataset}, got {config.num_train}"
        )
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(config.seed))
    chosen = rest[order[: config.num_train]]
    parts = (train.images[chosen], train.images[labelled], test.images[tested])
    images = [to_unit_range(part, config.pool) for part in parts]
    return Scene(images[0], images[1], train.labels[labelled], images[2], test.labels[tested])


def read(denoiser: nn.Module, own: Scene, config: MemoryConfig) -> dict[str, Any]:
    """All that is measured of a denoiser: :func:`curves`, :func:`score`, :func:`weighted_losses` in one dictionary."""
    return {**curves(denoiser, own, config), **score(denoiser, own, config), **weighted_losses(denoiser, own, config)}


def curves(denoiser: nn.Module, own: Scene, config: MemoryConfig) -> dict[str, Any]:
    """Probing of clean images at every level, of the hidden ``layer`` and of the ``posterior``.

    Each has ``accuracy`` and ``validation`` (S,), ``peak``, :func:`repdyn.metrics.resampling.peak_height` at the best
    validation level, with intervals from resampled test images, and ``dimension`` (S,), the participation ratio of the
    test images' features, for which no label is needed.
    """
    labels, asked = own.probe_labels, own.test_labels
    held = datasets.stratified_split(labels, round(config.validation * len(labels)), _PROBE_SEED)
    names, images = (config.layer, POSTERIOR), torch.cat([own.probe, own.test])
    levels = [
        features.extract(denoiser, images, sigma, names, precision=config.read_precision) for sigma in config.sigmas
    ]
    result = {}
    for key, name in (("layer", config.layer), ("posterior", POSTERIOR)):
        activations = torch.stack([level[name] for level in levels])  # (S, N, D)
        probed = probe_curves(activations, labels, asked, [held], config.l2)
        correct, validation = probed.correct[0], probed.validation[0]
        peak = peak_height(correct, int(validation.argmax()), seed=_PROBE_SEED) if len(levels) > 2 else None
        result[key] = {
            "accuracy": correct.mean(1).tolist(),
            "validation": validation.tolist(),
            "peak": None if peak is None else peak._asdict(),
            "dimension": [participation_ratio(x[len(labels) :]) for x in activations],
        }
    return result


def participation_ratio(x: Tensor) -> float:
    """Effective dimension of ``x`` (N, D): (sum of eigenvalues)^2 over the sum of their squares, of the correlations.

    Features are standardised first, as for a probe; one that is constant does not count.
    """
    centred = x.double() - x.double().mean(0)
    lengths = centred.norm(dim=0)
    unit = centred[:, lengths > 1e-5 * x.double().norm(dim=0)]
    gram = F.normalize(unit, dim=0).mT @ F.normalize(unit, dim=0)
    return (gram.trace() ** 2 / gram.square().sum()).item()


@torch.no_grad()
def generate_images(
    denoiser: nn.Module, shape: tuple[int, ...], num: int, *, steps: int, seed: int, precision: str = "float32"
) -> Tensor:
    """``num`` images (num, *shape), in ``steps`` steps of Heun's method, from sigma 20 to 0.02 and then to 0."""
    device = next(denoiser.parameters()).device
    with autocast(device, precision):
        made = sampling.sample(denoiser, (num, *shape), edm_sigmas(steps, 0.02, 20.0), seed=seed)
    return made.float().cpu()


def score(denoiser: nn.Module, own: Scene, config: MemoryConfig) -> dict[str, Any]:
    """Copies among generated images: ``novel`` (steps, thresholds), the share that are none, ``real``
    (thresholds,), the same of as many test images, and ``distance``, of the generated to the test images.

    A copy is an image for which the distance to the nearest training image is below the threshold times that to the
    second nearest, :func:`repdyn.metrics.memorisation.memorised`. The distance is the sliced Wasserstein one, with its
    error.
    """
    made = [
        generate_images(
            denoiser,
            tuple(own.train.shape[1:]),
            config.samples,
            steps=steps,
            seed=config.seed,
            precision=config.read_precision,
        )
        for steps in config.steps
    ]
    away = sliced_wasserstein(made[0], own.test, normalisation="dimension", seed=config.seed)
    ratios = [memorised(images, own.train).ratio for images in (*made, own.test[: config.samples])]
    *novel, real = [[float((ratio >= t).mean()) for t in config.thresholds] for ratio in ratios]
    return {"novel": novel, "real": real, "distance": list(away)}


@torch.no_grad()
def weighted_losses(denoiser: nn.Module, own: Scene, config: MemoryConfig) -> dict[str, list[float]]:
    """Weighted losses (L,) at ``loss_sigmas``: on ``train_loss`` and ``held_loss`` images; ``copy_train`` and
    ``copy_held``, those of the :class:`repdyn.theory.empirical.EmpiricalDenoiser`; and ``estimate_novel``.

    Losses are per pixel, with EDM's weight: 1 for a network that returns nothing, in the mean. The last is the share of
    posterior estimates of noisy test images that are no copies of a training image, by the second of ``thresholds``.
    """
    train = own.train[torch.arange(config.num_loss) % len(own.train)]
    parts = {"train": train, "held": own.test[: config.num_loss]}
    copy, device = EmpiricalDenoiser(own.train), next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(config.seed)
    found: dict[str, list[float]] = {f"{name}_loss": [] for name in parts}
    found.update({f"copy_{name}": [] for name in parts})
    found["estimate_novel"] = []
    for sigma in config.loss_sigmas:
        weight = edm_loss_weight(torch.tensor(sigma), 0.5).item() / own.train[0].numel()
        for name, x0 in parts.items():
            noise = torch.randn(x0.shape, generator=generator)
            with autocast(device, config.read_precision):
                estimate = denoiser((x0 + sigma * noise).to(device), sigma).float().cpu()
            found[f"{name}_loss"].append(weight * (estimate - x0).flatten(1).square().sum(1).mean().item())
            found[f"copy_{name}"].append(weight * dae_loss(copy, x0, sigma, noise).mean().item())
        ratio = memorised(estimate, own.train).ratio
        found["estimate_novel"].append(float((ratio >= config.thresholds[1]).mean()))
    return found
