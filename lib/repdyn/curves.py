"""Probe accuracy against noise level: the book's central measurement, live on a subset or recorded on a full set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import datasets, features, pretrained
from repdyn.denoisers import EDMDenoiser
from repdyn.noise import PAPER_SIGMAS
from repdyn.probes import fit_many, peak_height
from repdyn.training import read_state, write_tensors

__all__ = ["CurveConfig", "accuracy_curves", "measure"]


@dataclass(frozen=True)
class CurveConfig:
    """What is measured: whose features, of which images, at which noise levels, with how many repetitions.

    ``num_train`` and ``num_test`` images are drawn in equal numbers from each class (``None``: all). In each of
    ``splits`` repetitions a share ``validation`` of the training images, another one each time, is set aside: the
    layer is chosen there, and the probes are fitted to the rest. ``noisy_input`` averages features over ``draws``
    draws of noise. ``layers`` names the hidden layers that are read (default: all of them); without ``posterior`` the
    forward pass stops at the deepest.
    """

    weights: str = "fashion-small"
    dataset: str = "fashion-mnist-mini"
    num_train: int | None = None
    num_test: int | None = None
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    noisy_input: bool = False
    draws: int = 1
    splits: int = 3
    validation: float = 1 / 6
    l2: float = 1e-4
    layers: tuple[str, ...] | None = None
    posterior: bool = True
    pixels: bool = True
    untrained: bool = False
    seed: int = 0


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
    sigma) or None, ``pixels`` (split,) for the raw images or None, and ``peak``, :func:`repdyn.probes.peak_height` of
    the best layer at its best validation level. ``denoiser`` stands in for the shipped weights. With ``cache``, a
    folder, features are kept there, and an interrupted measurement goes on from them. The test images choose nothing.
    """
    if denoiser is None:
        denoiser = pretrained.load(config.weights, features.default_device())
    if config.untrained:
        denoiser = untrained_twin(denoiser, config.seed)
    train, test = (_subset(config, split) for split in ("train", "test"))
    images = torch.cat([train.images, test.images])
    layers = _layers(config, denoiser)
    activations = _activations(config, denoiser, images, layers, cache, progress)
    splits = [
        datasets.stratified_split(train.labels, round(config.validation * len(train.labels)), config.seed + i)
        for i in range(config.splits)
    ]
    curves = {
        name: accuracy_curves(activations[name], train.labels, test.labels, splits, config.l2)
        for name in tqdm(layers, desc="probes", unit="layer", disable=not progress)
    }
    hidden = [name for name in layers if name != features.POSTERIOR]
    validation = {name: curves[name][0].mean(0) for name in hidden}
    best = max(hidden, key=lambda name: validation[name].max())
    place = int(validation[best].argmax())
    peak = peak_height(curves[best][1].mean(0), place, seed=config.seed) if len(config.sigmas) > 2 else None
    return {
        "sigmas": list(config.sigmas),
        "layers": hidden,
        "validation": [validation[name].tolist() for name in hidden],
        "best_layer": best,
        "test": curves[best][1].mean(2).tolist(),
        "posterior": curves[features.POSTERIOR][1].mean(2).tolist() if config.posterior else None,
        "pixels": _pixel_accuracy(config, images, train.labels, test.labels, splits),
        "peak": None if peak is None else peak._asdict(),
    }


def accuracy_curves(
    activations: Tensor, train_labels: Tensor, test_labels: Tensor, splits: list[tuple[Tensor, Tensor]], l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Validation accuracies (splits, S), and which test items are right (splits, S, N_test), for features (S, N, D).

    The first ``len(train_labels)`` rows of ``activations`` are training items, the others test items; each split is a
    pair of index vectors, (held out, fitted). Noise levels are solved together, as many as fit in about a gigabyte.
    """
    num = len(train_labels)
    validation = np.empty((len(splits), len(activations)))
    correct = np.empty((len(splits), len(activations), len(test_labels)), dtype=bool)
    chunk = max(1, int(1.2e8 / max(activations[0].numel(), 1)))
    for i, (held, fitted) in enumerate(splits):
        for start in range(0, len(activations), chunk):
            block = activations[start : start + chunk]
            for j, probe in enumerate(fit_many(block[:, fitted], train_labels[fitted], l2=l2), start):
                validation[i, j] = probe.score(activations[j, held], train_labels[held].numpy())
                correct[i, j] = probe.predict(activations[j, num:]) == test_labels.numpy()
    return validation, correct


def _pixel_accuracy(
    config: CurveConfig, images: Tensor, train_labels: Tensor, test_labels: Tensor, splits: list[tuple[Tensor, Tensor]]
) -> list[float] | None:
    if not config.pixels:
        return None
    pixels = datasets.to_unit_range(images).flatten(1)[None]  # (1, N, D): one noise level
    return accuracy_curves(pixels, train_labels, test_labels, splits, config.l2)[1].mean((1, 2)).tolist()


def _layers(config: CurveConfig, denoiser: nn.Module) -> list[str]:
    *hidden, posterior = features.layers(denoiser)
    if config.layers is not None:
        unknown = set(config.layers) - set(hidden)
        if unknown:
            raise ValueError(f"layers has {', '.join(sorted(unknown))}: choose from {', '.join(hidden)}")
        hidden = [name for name in hidden if name in config.layers]
    return [*hidden, posterior] if config.posterior else hidden


def untrained_twin(denoiser: nn.Module, seed: int) -> nn.Module:
    """The same network with weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = EDMDenoiser(type(denoiser.model)(denoiser.model.config), denoiser.sigma_data)
    return twin.eval().to(next(denoiser.parameters()).device)


def _subset(config: CurveConfig, split: str) -> datasets.ImageSet:
    data = datasets.load(config.dataset, split)
    num = config.num_train if split == "train" else config.num_test
    if num is None:
        return data
    chosen, _ = datasets.stratified_split(data.labels, num, config.seed)
    return data._replace(images=data.images[chosen], labels=data.labels[chosen])


def _activations(
    config: CurveConfig,
    denoiser: nn.Module,
    images: Tensor,
    layers: list[str],
    cache: str | os.PathLike | None,
    progress: bool,
) -> dict[str, Tensor]:
    """Features of all images at all noise levels: layer -> (S, N, D)."""
    found: list[dict[str, Tensor]] = []
    source = f"weights {digest(denoiser.state_dict().values())}, images {digest([images])}, "
    source += f"noisy {config.noisy_input}, draws {config.draws}, seed {config.seed}, layers {layers}"
    for index, sigma in enumerate(tqdm(config.sigmas, desc="features", unit="level", disable=not progress)):
        key = f"sigma {sigma}, {source}"  # what features depend on, and nothing that only the probes do
        path = None if cache is None else Path(cache) / f"features-{index}.safetensors"
        if path is not None and path.exists():
            tensors, metadata = read_state(path)
            if metadata.get("measurement") != key:
                raise ValueError(f"{path} belongs to another measurement: remove the folder, or choose another cache")
        else:
            tensors = features.extract(
                denoiser, images, sigma, layers, config.noisy_input, config.draws, seed=config.seed + 1000 * index
            )
            if path is not None:
                write_tensors(path, tensors, {"measurement": key})
        found.append(tensors)
    return {name: torch.stack([level.pop(name) for level in found]) for name in layers}


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the tensors' values, by which a cache knows what it was made from."""
    content = hashlib.sha256()
    for value in tensors:
        content.update(value.cpu().numpy().tobytes())
    return content.hexdigest()
