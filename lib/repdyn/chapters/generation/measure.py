"""Generation against representation on one axis of noise: how far estimates are from real images, how well they tell
the class, and what detail they keep."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import datasets, features, pretrained, sampling
from repdyn._torch import autocast
from repdyn.chapters.generation import embeddings
from repdyn.chapters.generation.embeddings import Judge
from repdyn.datasets.subset import image_subset
from repdyn.images import ImageSet, to_unit_range
from repdyn.metrics.detail import retained_power, scatter_shares
from repdyn.metrics.resampling import peak_height
from repdyn.noise import PAPER_SIGMAS, edm_sigmas
from repdyn.probes import MLPProbe
from repdyn.records.cache import Part, content, kept
from repdyn.theory.empirical import LinearDenoiser

__all__ = ["FIGURE_SIGMAS", "QualityConfig", "generate", "measure"]

#: The noise levels of Figure 3 of Li et al. (2025), 0.002 to 8.401: EDM's grid as far down as the paper's ten levels.
FIGURE_SIGMAS: tuple[float, ...] = (*PAPER_SIGMAS, 5.315, 8.401)


@dataclass(frozen=True)
class QualityConfig:
    """What is measured: which model, against which images, at which noise levels, with how many repetitions."""

    weights: str = "fashion-small"
    """A name or a file that :func:`repdyn.pretrained.load` knows: which model."""
    dataset: str = "fashion-mnist-mini"
    """Name of the images, one label each."""
    embeddings: tuple[str, ...] = ("fashion-cnn", "pixels")
    """Where Frechet distances are measured, see :func:`repdyn.chapters.generation.embeddings.load`; the first is also
    measured at each of ``numbers``."""
    num_train: int | None = None
    """Training images of the probes, drawn in equal numbers from each class; None: all."""
    num_test: int | None = None
    """Test images, drawn likewise, which give the estimates that are judged; None: all."""
    num_reference: int | None = None
    """Training images that are the reference of the Frechet distances, and of the best linear denoiser; None: all."""
    sigmas: tuple[float, ...] = FIGURE_SIGMAS
    """Noise levels, in units of images in [-1, 1]."""
    probe_seeds: int = 3
    """Repetitions of the probes, each with another part of the training images set aside."""
    validation: float = 1 / 6
    """Share of the probes' training images that is set aside to choose the noise level."""
    steps: int = 18
    """Images are generated in about so many steps of Heun's method: EDM's grid has so many levels, and where it comes
    to the highest of ``sigmas`` these take its place."""
    samples: int = 3000
    """Images that are generated, of all batches together."""
    sample_seeds: int = 3
    """Batches in which they are generated, each with a seed of its own."""
    groups: int = 10
    """Blocks of the jackknife that gives the errors of the distances."""
    numbers: tuple[int, ...] = (250, 500, 1000)
    """Numbers of images at which distances in the first embedding, and their bias, are shown."""
    bands: int = 4
    """Bands of spatial frequency, each an octave but the first, which holds all that is lower."""
    seed: int = 0
    """Draws the images, the splits, the probes' weights, the noise and the generated images."""
    precision: str = "float32"
    """Of the estimates and of the generation: 'float32' or 'bf16'."""

    def __post_init__(self) -> None:
        features.check_precision(self.precision)


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
    themselves, and ``peak``, :func:`repdyn.metrics.resampling.peak_height` at the best validation level. ``power``
    (level, band), ``within`` and ``between`` (level,): what the clean input's estimates retain of the images' power in
    octaves of frequency, and of their scatter within and between classes.

    ``denoiser`` stands in for the shipped weights. With ``cache``, a folder, finished levels are kept there, and an
    interrupted measurement goes on from them. The test images choose nothing.

    Raises ``ValueError`` for embeddings that do not fit the images, and a cache of another measurement.
    """
    denoiser = pretrained.load(config.weights, features.default_device()) if denoiser is None else denoiser
    test = image_subset(config, "test")
    scene = _Scene(config, denoiser, image_subset(config, "train"), test)
    inputs = {} if cache is None else content(denoiser, *scene.data)

    def part(name: str, compute: Callable[[], Part]) -> Part:
        return kept(None if cache is None else Path(cache) / f"{name}.safetensors", config, inputs, compute)

    levels, batches = range(len(config.sigmas)), range(config.sample_seeds)
    found = [
        part(f"level-{i}", partial(scene.level, i)) for i in tqdm(levels, "levels", unit="level", disable=not progress)
    ]
    parts = [
        part(f"samples-{i}", partial(scene.samples, i))
        for i in tqdm(batches, "samples", unit="batch", disable=not progress)
    ]
    generated = torch.cat([tensors["estimates"] for _, tensors in parts], 1)  # (level, samples, C, H, W)
    numbers = [result for result, _ in found]
    frechet = {kind: scene.by_embedding([n["frechet"][kind] for n in numbers]) for kind in numbers[0]["frechet"]}
    frechet["generated"] = scene.by_embedding([scene.distances(images) for images in generated])
    return {
        "sigmas": list(config.sigmas),
        "frechet": frechet,
        "floor": scene.distances(test.images),
        "bias": {name: judge.bias(len(test.images)) for name, judge in scene.judges.items()},
        "by_number": scene.by_number(generated[int(np.argmin(config.sigmas))]),
        "accuracy": scene.accuracy(found),
        **{key: [n[key] for n in numbers] for key in ("power", "within", "between")},
    }


def generate(
    denoiser: nn.Module,
    shape: Sequence[int],
    sigmas: Sequence[float],
    *,
    steps: int = 18,
    seed: int,
    precision: str = "float32",
) -> Tensor:
    """Posterior estimates, at each of ``sigmas``, of images on the way of being made by Heun's method.

    Sampling starts at sigma = 80 on EDM's grid of ``steps`` levels and goes on through ``sigmas``. Returns the
    estimates (level, num, C, H, W), in the order of ``sigmas`` and of ``shape`` (num, C, H, W) each. The one at the
    lowest level is the image: a last step to sigma = 0 would return it. The network computes in ``precision``.
    """
    falling = sorted(sigmas, reverse=True)
    above = [level for level in edm_sigmas(steps) if level > 1.1 * falling[0]]
    device = next(denoiser.parameters()).device
    estimates = {}
    with autocast(device, precision):
        for state in sampling.trajectory(denoiser, shape, [*above, *falling], seed=seed, to_zero=False):
            if state.sigma in falling:
                with torch.no_grad():
                    estimates[state.sigma] = denoiser(state.x, state.sigma).float().cpu()
    return torch.stack([estimates[sigma] for sigma in sigmas])


class _Scene:
    """A model, the images it is shown and the judges: what every part of the measurement needs."""

    def __init__(self, config: QualityConfig, denoiser: nn.Module, train: ImageSet, test: ImageSet) -> None:
        self.config, self.denoiser = config, denoiser
        self.train, self.test = (part._replace(images=to_unit_range(part.images)) for part in (train, test))
        real = to_unit_range(image_subset(replace(config, num_train=config.num_reference), "train").images)
        self.judges = {name: Judge(embeddings.load(name), real) for name in config.embeddings}
        self.linear = LinearDenoiser(real)
        self.data = [self.train.images, self.train.labels, self.test.images, self.test.labels, real]

    def level(self, index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that one noise level gives: numbers, and which test images each probe got right, uint8 (seed, N)."""
        sigma, images = self.config.sigmas[index], self.test.images
        generator = torch.Generator().manual_seed(self.config.seed + 1000 * index)
        noisy = images + sigma * torch.randn(images.shape, generator=generator)
        clean = self.estimates(images, sigma)
        within, between = scatter_shares(clean, images, self.test.labels)
        validation, correct = self.probes(self.estimates(self.train.images, sigma), clean)
        numbers = {
            "frechet": {
                "clean": self.distances(clean),
                "noisy": self.distances(self.estimates(noisy, sigma)),
                "linear": self.distances(self.linear(noisy, sigma)),
            },
            "power": retained_power(clean, images, self.config.bands).tolist(),
            "within": within,
            "between": between,
            "validation": validation,
        }
        return numbers, {"correct": correct}

    def samples(self, index: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """One batch of generated images: the estimates on their way, (level, num, C, H, W)."""
        shape = (self.config.samples // self.config.sample_seeds, *self.test.images.shape[1:])
        estimates = generate(
            self.denoiser,
            shape,
            self.config.sigmas,
            steps=self.config.steps,
            seed=self.config.seed + index,
            precision=self.config.precision,
        )
        return {}, {"estimates": estimates}

    def estimates(self, images: Tensor, sigma: float) -> Tensor:
        """Posterior estimates of ``images`` as they are, told ``sigma``."""
        found = features.extract(self.denoiser, images, sigma, [features.POSTERIOR], precision=self.config.precision)
        return found[features.POSTERIOR].view(images.shape)

    def distances(self, images: Tensor) -> dict[str, list[float]]:
        """Embedding -> [distance, error]."""
        return {name: list(judge.distance(images, self.config.groups)) for name, judge in self.judges.items()}

    def by_embedding(self, levels: list[dict[str, list[float]]]) -> dict[str, list[list[float]]]:
        """Embedding -> [distance, error] at each level."""
        return {name: [level[name] for level in levels] for name in self.judges}

    def by_number(self, generated: Tensor) -> dict[str, Any]:
        """Distances in the first embedding of fewer images, and the bias that theory expects."""
        judge, numbers = self.judges[self.config.embeddings[0]], self.config.numbers
        return {
            "numbers": list(numbers),
            "real": [list(row) for row in judge.by_number(self.test.images, numbers)],
            "generated": [list(row) for row in judge.by_number(generated, numbers)],
            "bias": [judge.bias(num) for num in numbers],
        }

    def probes(self, known: Tensor, asked: Tensor) -> tuple[list[float], Tensor]:
        """Validation accuracy of each repetition, and which of ``asked`` are right, uint8 (seed, N)."""
        config, labels, known, asked = self.config, self.train.labels, known.flatten(1), asked.flatten(1)
        validation, correct = [], []
        for seed in range(config.seed, config.seed + config.probe_seeds):
            held, fitted = datasets.stratified_split(labels, round(config.validation * len(labels)), seed)
            probe = MLPProbe(seed=seed).fit(known[fitted], labels[fitted])
            validation.append(probe.score(known[held], labels[held].numpy()))
            correct.append(torch.from_numpy(probe.predict(asked)) == self.test.labels)
        return validation, torch.stack(correct).to(torch.uint8)

    def accuracy(self, found: list[tuple[dict[str, Any], dict[str, Tensor]]]) -> dict[str, Any]:
        """Accuracies of all levels and of the images themselves, and the height of the peak."""
        correct = torch.stack([tensors["correct"] for _, tensors in found], 1).double()  # (seed, level, N)
        validation = np.transpose([numbers["validation"] for numbers, _ in found])  # (seed, level)
        best = int(validation.mean(0).argmax())
        peak = peak_height(correct.mean(0).numpy(), best, seed=self.config.seed) if len(found) > 2 else None
        _, pixels = self.probes(self.train.images, self.test.images)
        return {
            "validation": validation.tolist(),
            "test": correct.mean(2).tolist(),
            "pixels": pixels.double().mean(1).tolist(),
            "peak": None if peak is None else peak._asdict(),
        }
