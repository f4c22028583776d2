"""Generation against representation on one axis of noise: how far estimates are from real images, how well they tell
the class, and what detail they keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import datasets, embeddings, features, pretrained, sampling
from repdyn.curves import digest
from repdyn.denoisers import Denoiser, LinearDenoiser
from repdyn.metrics.detail import retained_power, scatter_shares
from repdyn.metrics.frechet import frechet_bias, frechet_from_moments
from repdyn.mlp_probe import MLPProbe
from repdyn.noise import PAPER_SIGMAS, edm_sigmas
from repdyn.probes import peak_height
from repdyn.training import read_state, write_tensors

__all__ = ["FIGURE_SIGMAS", "Judge", "QualityConfig", "generate", "measure"]

#: The noise levels of Figure 3 of Li et al. (2025), 0.002 to 8.401: EDM's grid as far down as the paper's ten levels.
FIGURE_SIGMAS: tuple[float, ...] = (*PAPER_SIGMAS, 5.315, 8.401)


@dataclass(frozen=True)
class QualityConfig:
    """What is measured: which model, against which images, at which noise levels, with how many repetitions.

    All training images of ``dataset`` are the reference of the Frechet distances. ``num_test`` test images give the
    estimates that are judged, ``num_train`` training images the probes (``None``: all). In each of ``probe_seeds``
    repetitions a share ``validation`` of these is set aside to choose the noise level. ``samples`` images, in
    ``sample_seeds`` batches, are generated in about ``steps`` steps of Heun's method. ``groups`` is the number of
    blocks of the jackknife, ``numbers`` the sample sizes at which the bias of the first embedding is shown, ``bands``
    the number of frequency bands.
    """

    weights: str = "fashion-small"
    dataset: str = "fashion-mnist-mini"
    embeddings: tuple[str, ...] = ("fashion-cnn", "pixels")
    num_train: int | None = None
    num_test: int | None = None
    sigmas: tuple[float, ...] = FIGURE_SIGMAS
    probe_seeds: int = 3
    validation: float = 1 / 6
    steps: int = 18
    samples: int = 3000
    sample_seeds: int = 3
    groups: int = 10
    numbers: tuple[int, ...] = (250, 500, 1000)
    bands: int = 4
    seed: int = 0


class Judge:
    """Frechet distances to a fixed set of real images in one embedding, in units of the real features' variance.

    1 is the distance of a set that is the mean real image over and over. ``images`` are uint8, or float in [-1, 1].
    """

    def __init__(self, name: str, images: Tensor) -> None:
        self.embedding = embeddings.load(name)
        real = self.features(images)
        self.num = len(real)
        self.mean, self.covariance = _moments(real)
        self.scale = float(np.trace(self.covariance))

    def features(self, images: Tensor) -> np.ndarray:
        """Features (N, D) in float64."""
        images = datasets.to_unit_range(images) if images.dtype == torch.uint8 else images
        return self.embedding(images).double().numpy()

    def distance(self, found: np.ndarray) -> float:
        """Distance of features (N, D)."""
        return frechet_from_moments(*_moments(found), self.mean, self.covariance) / self.scale

    def measured(self, images: Tensor, groups: int) -> list[float]:
        """Distance of a set of images, and its standard error by a jackknife over ``groups`` interleaved blocks.

        The error is that of the choice of these images, at their number; the bias in their number is no part of it.
        """
        found = self.features(images)
        block = np.arange(len(found)) % groups
        without = np.array([self.distance(found[block != g]) for g in range(groups)])
        error = np.sqrt((groups - 1) * np.mean((without - without.mean()) ** 2))
        return [self.distance(found), float(error)]

    def by_number(self, images: Tensor, numbers: Sequence[int]) -> list[list[float]]:
        """For each number of images: the distance's mean and standard deviation over disjoint sets of that many."""
        found = self.features(images)
        rows = []
        for num in numbers:
            values = [self.distance(part) for part in np.split(found[: len(found) // num * num], len(found) // num)]
            rows.append([float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0])
        return rows

    def bias(self, num: int) -> float:
        """Expected distance of ``num`` real images, were their features Gaussian."""
        return frechet_bias(self.covariance, num, self.num) / self.scale


def measure(
    config: QualityConfig,
    denoiser: nn.Module | None = None,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Distances to real images, accuracy of a two-layer probe and retained detail at every level of ``config``.

    Returns plain lists. ``frechet``: series -> embedding -> a pair (distance, standard error) at each level, in units
    of the variance of the real features. The series are the posterior estimates of test images from 'clean' and from
    'noisy' input, those on the way of 'generated' images, and from noisy input those of the best 'linear' denoiser.
    ``floor``: embedding -> (distance, error) of the test images themselves, and ``bias``, what their number accounts
    for. ``by_number``: distances of test and of generated images, and the bias, at fewer images. ``accuracy`` of probes
    on the clean input's estimates: ``validation`` and ``test`` (seed, level), ``pixels`` (seed,) on the images
    themselves, and ``peak``, :func:`repdyn.probes.peak_height` at the best validation level. ``power`` (level, band),
    ``within`` and ``between`` (level,): what the clean input's estimates retain of the images' power in octaves of
    frequency, and of their scatter within and between classes.

    ``denoiser`` stands in for the shipped weights. With ``cache``, a folder, finished levels are kept there, and an
    interrupted measurement goes on from them. The test images choose nothing.

    Raises ``ValueError`` for embeddings that do not fit the images, and a cache of another measurement.
    """
    denoiser = pretrained.load(config.weights, features.default_device()) if denoiser is None else denoiser
    reference, train, test = _image_sets(config)
    judges = {name: Judge(name, reference) for name in config.embeddings}
    linear = LinearDenoiser.fit(datasets.to_unit_range(reference))
    source = f"{config}, weights {digest(denoiser.state_dict().values())}, images {digest([reference, test.images])}"
    kept = _Cache(cache, source)

    def level(index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return _level(config, index, denoiser, linear, judges, train, test)

    found = [
        kept(f"level-{index}", lambda index=index: level(index))
        for index in tqdm(range(len(config.sigmas)), desc="levels", unit="level", disable=not progress)
    ]
    batches = [
        kept(f"samples-{index}", lambda index=index: ({}, {"estimates": _batch(config, denoiser, index, test)}))
        for index in tqdm(range(config.sample_seeds), desc="samples", unit="batch", disable=not progress)
    ]
    on_the_way = torch.cat([tensors["estimates"] for _, tensors in batches], 1)  # (level, samples, C, H, W)
    results = [result for result, _ in found]
    frechet = {kind: _by_embedding([r["frechet"][kind] for r in results]) for kind in results[0]["frechet"]}
    frechet["generated"] = _by_embedding([_distances(judges, images, config.groups) for images in on_the_way])
    first = judges[config.embeddings[0]]
    return {
        "sigmas": list(config.sigmas),
        "frechet": frechet,
        "floor": _distances(judges, test.images, config.groups),
        "bias": {name: judge.bias(len(test.images)) for name, judge in judges.items()},
        "by_number": {
            "numbers": list(config.numbers),
            "real": first.by_number(test.images, config.numbers),
            "generated": first.by_number(on_the_way[int(np.argmin(config.sigmas))], config.numbers),
            "bias": [first.bias(num) for num in config.numbers],
        },
        "accuracy": _accuracy(config, found, train, test),
        **{key: [r[key] for r in results] for key in ("power", "within", "between")},
    }


def generate(
    denoiser: nn.Module, shape: Sequence[int], sigmas: Sequence[float], *, steps: int = 18, seed: int
) -> tuple[Tensor, Tensor]:
    """Images made by Heun's method, and the posterior estimates on their way, at each of ``sigmas``.

    Sampling starts at sigma = 80 on EDM's grid of ``steps`` levels and goes on through ``sigmas``. Returns the images,
    of ``shape`` (num, C, H, W), and the estimates (level, num, C, H, W), in the order of ``sigmas``.
    """
    falling = sorted(sigmas, reverse=True)
    above = [level for level in edm_sigmas(steps) if level > 1.1 * falling[0]]
    device = next(denoiser.parameters()).device
    estimates = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=features.supports_bf16(device)):
        for state in sampling.trajectory(denoiser, shape, [*above, *falling], seed=seed):
            if state.sigma in falling:
                with torch.no_grad():
                    estimates[state.sigma] = denoiser(state.x, state.sigma).float().cpu()
    return state.x.float().cpu(), torch.stack([estimates[sigma] for sigma in sigmas])


def _level(
    config: QualityConfig,
    index: int,
    denoiser: nn.Module,
    linear: Denoiser,
    judges: dict[str, Judge],
    train: datasets.ImageSet,
    test: datasets.ImageSet,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All that one noise level gives: numbers, and which test images each probe got right."""
    sigma, images = config.sigmas[index], datasets.to_unit_range(test.images)
    generator = torch.Generator().manual_seed(config.seed + 1000 * index)
    noisy = images + sigma * torch.randn(images.shape, generator=generator)
    clean = _estimates(denoiser, images, sigma)
    frechet = {
        kind: _distances(judges, estimates, config.groups)
        for kind, estimates in (
            ("clean", clean),
            ("noisy", _estimates(denoiser, noisy, sigma)),
            ("linear", linear(noisy, sigma)),
        )
    }
    within, between = scatter_shares(clean, images, test.labels)
    power = retained_power(clean, images, config.bands).tolist()
    known = _estimates(denoiser, datasets.to_unit_range(train.images), sigma)
    validation, correct = _probes(config, known, train.labels, clean, test.labels)
    numbers = {"frechet": frechet, "power": power, "within": within, "between": between, "validation": validation}
    return numbers, {"correct": correct}


def _probes(
    config: QualityConfig, known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor
) -> tuple[list[float], Tensor]:
    """Validation accuracy of each repetition, and which of the ``asked`` are right, uint8 (seed, N)."""
    known, asked = known.flatten(1), asked.flatten(1)
    validation, correct = [], []
    for seed in range(config.seed, config.seed + config.probe_seeds):
        held, fitted = datasets.stratified_split(labels, round(config.validation * len(labels)), seed)
        probe = MLPProbe(seed=seed).fit(known[fitted], labels[fitted])
        validation.append(probe.score(known[held], labels[held].numpy()))
        correct.append(torch.from_numpy(probe.predict(asked)) == truth)
    return validation, torch.stack(correct).to(torch.uint8)


def _accuracy(config: QualityConfig, found: list, train: datasets.ImageSet, test: datasets.ImageSet) -> dict[str, Any]:
    correct = torch.stack([tensors["correct"] for _, tensors in found], 1).double()  # (seed, level, N)
    validation = np.transpose([result["validation"] for result, _ in found])  # (seed, level)
    images = [datasets.to_unit_range(part.images) for part in (train, test)]
    _, pixels = _probes(config, images[0], train.labels, images[1], test.labels)
    best = int(validation.mean(0).argmax())
    peak = peak_height(correct.mean(0).numpy(), best, seed=config.seed) if len(config.sigmas) > 2 else None
    return {
        "validation": validation.tolist(),
        "test": correct.mean(2).tolist(),
        "pixels": pixels.double().mean(1).tolist(),
        "peak": None if peak is None else peak._asdict(),
    }


def _image_sets(config: QualityConfig) -> tuple[Tensor, datasets.ImageSet, datasets.ImageSet]:
    """Reference images, training and test images."""
    train, test = (datasets.load(config.dataset, split) for split in ("train", "test"))
    parts = (datasets.subset(d, n, config.seed) for d, n in ((train, config.num_train), (test, config.num_test)))
    return train.images, *parts


def _estimates(denoiser: nn.Module, images: Tensor, sigma: float) -> Tensor:
    found = features.extract(denoiser, images, sigma, [features.POSTERIOR])
    return found[features.POSTERIOR].view(images.shape)


def _batch(config: QualityConfig, denoiser: nn.Module, index: int, test: datasets.ImageSet) -> Tensor:
    num = config.samples // config.sample_seeds
    shape = (num, *test.images.shape[1:])
    return generate(denoiser, shape, config.sigmas, steps=config.steps, seed=config.seed + index)[1]
