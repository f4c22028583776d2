"""Probe accuracy against noise level: the book's central measurement, live on a subset or recorded on a full set."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import datasets, features, pretrained
from repdyn._torch import seeded
from repdyn.datasets.subset import image_subset
from repdyn.images import to_unit_range
from repdyn.metrics.resampling import peak_height
from repdyn.networks.unet import UNet
from repdyn.noise import PAPER_SIGMAS
from repdyn.probes import probe_curves
from repdyn.records.cache import Extraction, FeatureFolder, LayerFeatures

__all__ = [
    "CurveConfig",
    "Reading",
    "measure",
    "read_features",
    "untrained_twin",
]


@dataclass(frozen=True)
class CurveConfig:
    """What is measured: whose features, of which images, at which noise levels, with how many repetitions."""

    weights: str = "fashion-small"
    """A name or a file that :func:`repdyn.pretrained.load` knows: whose features."""
    dataset: str = "fashion-mnist-mini"
    """Name of the images, one label each, see :func:`repdyn.datasets.load`."""
    num_train: int | None = None
    """Training images, drawn in equal numbers from each class; None: all."""
    num_test: int | None = None
    """Test images, drawn likewise; None: all."""
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    """Noise levels, rising, in units of images in [-1, 1]."""
    noisy_input: bool = False
    """The network sees the image plus noise, not the clean image."""
    draws: int = 1
    """With ``noisy_input``: draws of noise over which features are averaged."""
    splits: int = 3
    """Repetitions, each with another part of the training images set aside."""
    validation: float = 1 / 6
    """Share of the training images that is set aside: the layer is chosen there, and the probes are fitted to the
    rest."""
    l2: float | tuple[float, ...] = 1e-4
    """The probes' penalty, on features that are standardised; of several, each (split, layer, sigma) takes the one with
    the highest validation accuracy, the strongest of equals."""
    layers: tuple[str, ...] | None = None
    """Names of the hidden layers that are read; None: all of them."""
    posterior: bool = True
    """Read the posterior estimate too; without it the forward pass stops at the deepest of the layers."""
    pixels: bool = True
    """Probe the raw images too."""
    untrained: bool = False
    """Read the same network with weights drawn from ``seed``."""
    seed: int = 0
    """Draws the images, the splits, the noise, untrained weights and the resampled test images of the peak."""
    precision: str = "float32"
    """Of the features: 'float32' or 'bf16'."""

    def __post_init__(self) -> None:
        features.check_precision(self.precision)
        if not self.sigmas or any(low >= high for low, high in zip(self.sigmas, self.sigmas[1:])):
            raise ValueError(f"sigmas must rise from one to the next, at least one, got {self.sigmas}: sort them")
        if self.splits < 1 or not 0 < self.validation < 1:
            raise ValueError(f"need splits >= 1 and validation in (0, 1), got {self.splits}, {self.validation}")
        if self.num_test is not None and self.num_test < 1:
            raise ValueError(f"num_test must be at least 1, or None for all, got {self.num_test}")


def measure(
    config: CurveConfig,
    denoiser: nn.Module | None = None,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Accuracy of linear probes at every layer and noise level of ``config``.

    Returns plain lists: ``layers``, ``sigmas``, ``validation`` (layer, sigma; mean over splits), ``best_layer`` (the
    one with the highest validation accuracy at any level), ``test`` (split, sigma) at that layer, ``posterior`` (split,
    sigma) or None, ``pixels`` (split,) for the raw images or None, and ``peak``,
    :func:`repdyn.metrics.resampling.peak_height` of the best layer at its best validation level. If ``config.l2`` names
    several penalties, ``l2`` says which were chosen: ``layers`` (layer, split, sigma), ``posterior`` (split, sigma) and
    ``pixels`` (split,). ``denoiser`` stands in for the shipped weights. With ``cache``, a folder, features are kept
    there, and an interrupted measurement goes on from them; otherwise they lie in a temporary folder. The test images
    choose nothing.
    """
    reading = read_features(config, denoiser, cache=cache, progress=progress)
    labels = (reading.train_labels, reading.test_labels, reading.splits, config.l2)
    curves = {
        name: probe_curves(reading.activations[name], *labels)
        for name in tqdm(reading.layers, desc="probes", unit="layer", disable=not progress)
    }
    hidden = [name for name in reading.layers if name != features.POSTERIOR]
    validation = {name: curves[name].validation.mean(0) for name in hidden}
    best = max(hidden, key=lambda name: validation[name].max())
    place = int(validation[best].argmax())
    peak = peak_height(curves[best].correct.mean(0), place, seed=config.seed) if len(config.sigmas) > 2 else None
    posterior = curves.get(features.POSTERIOR)
    pixels = None
    if config.pixels:  # (1, N, D): one noise level
        pixels = probe_curves(to_unit_range(reading.images).flatten(1)[None], *labels)
    result = {
        "sigmas": list(config.sigmas),
        "layers": hidden,
        "validation": [validation[name].tolist() for name in hidden],
        "best_layer": best,
        "test": curves[best].correct.mean(2).tolist(),
        "posterior": None if posterior is None else posterior.correct.mean(2).tolist(),
        "pixels": None if pixels is None else pixels.correct.mean((1, 2)).tolist(),
        "peak": None if peak is None else peak._asdict(),
    }
    if isinstance(config.l2, Sequence):
        result["l2"] = {
            "layers": [curves[name].l2.tolist() for name in hidden],
            "posterior": None if posterior is None else posterior.l2.tolist(),
            "pixels": None if pixels is None else pixels.l2[:, 0].tolist(),
        }
    return result


class Reading(NamedTuple):
    """What a denoiser makes of the images of a configuration: training images first, then test images."""

    layers: list[str]
    activations: dict[str, LayerFeatures]  # layer -> S tensors (N, D), each read from disk when it is asked for
    images: Tensor  # (N, C, H, W), as the data set has them
    train_labels: Tensor
    test_labels: Tensor
    splits: list[tuple[Tensor, Tensor]]  # (held out, fitted) indices into the training images


def read_features(
    config: CurveConfig,
    denoiser: nn.Module | None = None,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> Reading:
    """Features of all images of ``config`` at all its layers and noise levels, and the splits of the training images.

    Arguments are those of :func:`measure`. Raises ``ValueError`` for a layer that the denoiser does not have, images
    that its network does not take, more images of a class than there are, labels of pixels, and a cache of another
    measurement.
    """
    if denoiser is None:
        denoiser = pretrained.load(config.weights, features.default_device())
    if config.untrained:
        denoiser = untrained_twin(denoiser, config.seed)
    train, test = (image_subset(config, split) for split in ("train", "test"))
    images = torch.cat([train.images, test.images])
    if isinstance(network := getattr(denoiser, "model", None), UNet):
        network.config.check_images(images.shape[1:])
    layers = _layers(config, denoiser)
    folder = _extract(config, denoiser, images, layers, cache, progress)
    splits = [
        datasets.stratified_split(train.labels, round(config.validation * len(train.labels)), config.seed + i)
        for i in range(config.splits)
    ]
    activations = {name: LayerFeatures(folder, name, len(config.sigmas)) for name in layers}
    return Reading(layers, activations, images, train.labels, test.labels, splits)


def _layers(config: CurveConfig, denoiser: nn.Module) -> list[str]:
    *hidden, posterior = features.layers(denoiser)
    if config.layers is not None:
        unknown = set(config.layers) - set(hidden)
        if unknown:
            raise ValueError(f"layers has {', '.join(sorted(unknown))}: choose from {', '.join(hidden)}")
        hidden = [name for name in hidden if name in config.layers]
    return [*hidden, posterior] if config.posterior else hidden


def untrained_twin(denoiser: nn.Module, seed: int) -> nn.Module:
    """The same denoiser with its network's weights drawn from ``seed``; ``denoiser`` itself is left as it is.

    Raises ``ValueError`` if the network has no configuration, ``denoiser.model.config``, to build another one from.
    """
    if not hasattr(denoiser, "model") or not hasattr(denoiser.model, "config"):
        raise ValueError("the denoiser's network has no configuration to build it from anew: untrained needs one")
    twin = copy.copy(denoiser)  # the same preconditioning
    twin._modules, twin._buffers = dict(denoiser._modules), dict(denoiser._buffers)
    with seeded(seed):
        twin.model = type(denoiser.model)(denoiser.model.config)
    return twin.eval().to(next(denoiser.parameters()).device)


def _extract(
    config: CurveConfig,
    denoiser: nn.Module,
    images: Tensor,
    layers: list[str],
    cache: str | os.PathLike | None,
    progress: bool,
) -> FeatureFolder:
    """A folder with the features of all images, a file a noise level; only one level is in memory."""
    folder = FeatureFolder(cache)
    for level, sigma in enumerate(tqdm(config.sigmas, desc="features", unit="level", disable=not progress)):
        asked = Extraction(
            sigma,
            tuple(layers),
            config.noisy_input,
            config.draws,
            seed=config.seed + 1000 * level,
            precision=config.precision,
        )
        folder.provide(level, denoiser, images, asked)
    return folder
