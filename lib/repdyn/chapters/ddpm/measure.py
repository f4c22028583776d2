"""A DDPM that learns a noisy MoLRG: its loss beside the least one, accuracy and CSNR of what it has learned."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repdyn import training
from repdyn.denoisers import Denoiser
from repdyn.features import POSTERIOR, extract
from repdyn.metrics import class_bases
from repdyn.networks import MLPDenoiser
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma
from repdyn.probes import fit_many
from repdyn.records import sweeps
from repdyn.records.variants import Variant, expand, grid
from repdyn.theory import csnr
from repdyn.theory.empirical import EmpiricalDenoiser, LinearDenoiser
from repdyn.theory.molrg import NoisyMoLRG

__all__ = [
    "PAPER_TIMESTEPS",
    "LearningConfig",
    "SweepConfig",
    "SampledWorld",
    "distance",
    "learn_mixture",
    "excess_losses",
    "measure",
    "measure_learning",
    "readings",
    "sigmas",
    "world",
]

#: The time steps of DDPM's schedule at which Li et al. (2025) read their synthetic experiments (appendix A.3).
PAPER_TIMESTEPS: tuple[int, ...] = (1, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 240, 260, 280)


@dataclass(frozen=True)
class LearningConfig:
    """What is learned, by what, for how long, and what is measured.

    The data are samples of a noisy MoLRG, :class:`repdyn.theory.molrg.NoisyMoLRG`; an MLP with two hidden layers learns
    them as a DDPM.
    """

    n: int = 50
    """Numbers in a sample."""
    d: int = 5
    """Dimension of each subspace."""
    K: int = 3
    """Subspaces, which are the classes."""
    delta: float = 0.2
    """Standard deviation outside the subspace, that inside being 1."""
    num_train: int = 4000
    """Training samples."""
    hidden: int = 256
    """Units in each of the two hidden layers."""
    images: int = 800_000
    """Samples seen in the training in all, one that is seen again counted again."""
    batch_size: int = 128
    """Samples of one step."""
    learning_rate: float = 3e-3
    """Adam's, from the first step on."""
    schedule: int = 300
    """The training is at the first so many of DDPM's 1000 time steps."""
    ema: bool = True
    """Measure the averaged weights, not the last ones."""
    checkpoints: int = 1
    """How many times the training is measured: after the whole training, and after a half, a quarter, ..."""
    timesteps: tuple[int, ...] = PAPER_TIMESTEPS
    """The time steps of DDPM whose noise levels are measured."""
    num_test: int = 1000
    """Samples of each test set."""
    num_tests: int = 5
    """Test sets."""
    num_probe: int = 2000
    """Samples to which probes are fitted, other ones, so that probes do not suffer when training samples are few."""
    layers: bool = False
    """Read the second hidden layer too, at the end."""
    l2: float = 1e-4
    """The probes' penalty, on features that are standardised."""
    seed: int = 0
    """Draws everything: subspaces, samples, weights and noise."""


@dataclass(frozen=True)
class SweepConfig:
    """A sweep of trainings."""

    base: LearningConfig
    """What a variant does not change."""
    variants: tuple[Variant, ...] = grid(seeds=(0, 1, 2))
    """What is learned, each with its seeds: see :mod:`repdyn.records.variants`."""


class SampledWorld(NamedTuple):
    """The distribution, training samples (N, n), labelled samples (M, n), (M,) for probes, and test sets like these."""

    model: NoisyMoLRG
    x: Tensor
    probed: tuple[Tensor, Tensor]
    tests: list[tuple[Tensor, Tensor]]


def sigmas(config: LearningConfig) -> np.ndarray:
    """Noise levels (S,) of the time steps of a configuration."""
    return np.asarray(ddpm_sigma(np.array(config.timesteps), ddpm_alpha_bar()))


def world(config: LearningConfig) -> SampledWorld:
    """Draw the subspaces and the samples of a configuration, the latter in float32."""
    model = NoisyMoLRG.random(config.n, config.d, config.K, config.delta, seed=config.seed)
    sizes = [config.num_train, config.num_probe, *[config.num_test] * config.num_tests]
    draws = [model.sample(num, seed=1000 * (config.seed + 1) + i) for i, num in enumerate(sizes)]
    (x, _), probed, *tests = [(x.float(), labels) for x, labels in draws]
    return SampledWorld(model, x, probed, tests)


def learn_mixture(config: LearningConfig, data: Tensor) -> Iterator[tuple[int, nn.Module]]:
    """Train the MLP of a configuration on ``data`` (N, n), yielding (samples seen, denoiser) at each checkpoint.

    The denoiser is the live one: measure it before going on.
    """
    levels = ddpm_sigma(np.arange(config.schedule), ddpm_alpha_bar())
    plan = training.TrainConfig(
        dataset="molrg", network=None, images=config.images, batch_size=config.batch_size,
        learning_rate=config.learning_rate, warmup_images=0, levels=training.Listed(tuple(levels.tolist())),
        precision="float32", grad_clip=math.inf, seed=config.seed,
    )  # fmt: skip
    stops = plan.halvings(config.checkpoints)
    denoiser = MLPDenoiser(config.n, config.hidden, seed=config.seed)
    for step in training.train(plan, denoiser=denoiser, data=data, cpu=True):
        if step.step in stops:
            yield step.images, step.ema if config.ema else step.denoiser


@torch.no_grad()
def distance(denoiser: Denoiser, reference: Denoiser, x0: Tensor, sigma: float, noise: Tensor) -> float:
    """E ||D(x) - D'(x)||^2 / E ||D'(x) - x_0||^2 at x = x_0 + sigma noise: how far D is from the ``reference`` D'.

    ``x0`` (N, n) are clean samples and ``noise`` is standard normal, of the same shape. For the optimal denoiser as the
    reference this is the share by which the loss of D exceeds the least one, measured without the variance of either.

    Equation: ``eq-excess-loss``
    """
    x = x0 + sigma * noise
    best = reference(x, sigma)
    return ((denoiser(x, sigma) - best).square().sum() / (best - x0).square().sum()).item()


def measure(config: LearningConfig) -> dict[str, Any]:
    """Learn and measure: a dictionary of plain lists, with one entry of ``checkpoints`` for each stop of the training.

    A checkpoint has ``images`` and, for each noise level: ``excess``, :func:`distance` to the optimal denoiser on test
    samples; ``train_loss``, the loss on training samples over the least one of the distribution; ``memorised``, its
    share of the squared distances from there to the optimal denoiser and to the
    :class:`repdyn.theory.empirical.EmpiricalDenoiser`, 0 at the former and 1 at the latter; and what :func:`readings`
    finds, with ``layers`` of the hidden layer too at the last checkpoint. ``linear_excess`` is the ``excess`` of the
    :class:`repdyn.theory.empirical.LinearDenoiser`.
    """
    own, levels = world(config), sigmas(config)
    checkpoints = []
    for images, denoiser in learn_mixture(config, own.x):
        last = config.layers and images >= config.images
        entry = {"images": images, **excess_losses(denoiser, own, levels, config.seed)}
        checkpoints.append(entry | readings(denoiser, own, config, hidden=last))
    linear = excess_losses(LinearDenoiser(own.x), own, levels, config.seed)["excess"]
    return {"sigmas": levels.tolist(), "linear_excess": linear, "checkpoints": checkpoints}


@torch.no_grad()
def excess_losses(denoiser: Denoiser, own: SampledWorld, levels: np.ndarray, seed: int) -> dict[str, list[float]]:
    """``excess``, ``train_loss``, ``memorised`` of :func:`measure`, each (S,), of any denoiser."""
    (test, _), empirical = own.tests[0], EmpiricalDenoiser(own.x)
    train = own.x[torch.arange(len(test)) % len(own.x)]
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {"excess": [], "train_loss": [], "memorised": []}
    for sigma in map(float, levels):
        noise = torch.randn(test.shape, generator=generator)
        found["excess"].append(distance(denoiser, own.model, test, sigma, noise))
        least = (own.model(test + sigma * noise, sigma) - test).square().sum(1).mean()
        noisy = train + sigma * noise
        estimate, best, copy = denoiser(noisy, sigma), own.model(noisy, sigma), empirical(noisy, sigma)
        found["train_loss"].append(((estimate - train).square().sum(1).mean() / least).item())
        from_best, from_copy = (estimate - best).square().sum(), (estimate - copy).square().sum()
        found["memorised"].append((from_best / (from_best + from_copy)).item())
    return found


def readings(
    denoiser: nn.Module, own: SampledWorld, config: LearningConfig, *, hidden: bool = False
) -> dict[str, list[list[float]]]:
    """Accuracy and CSNR (T, S) of the posterior estimates of clean input and, with ``hidden``, of the second layer.

    The CSNR of the posterior is that in the true subspaces; that of the layer in the span of the first ``d`` right
    singular vectors of each class's features. Bases and probes are fitted to ``own.probed``.
    """
    names = [POSTERIOR, "hidden2"] if hidden else [POSTERIOR]
    sets = [own.probed, *own.tests]
    columns: dict[str, list] = {f"{name}_{kind}": [] for name in names for kind in ("accuracy", "csnr")}
    for sigma in map(float, sigmas(config)):
        found = extract(denoiser, torch.cat([x for x, _ in sets]), sigma, names)
        for name in names:
            parts = list(zip(found[name].split([len(x) for x, _ in sets]), [labels for _, labels in sets], strict=True))
            bases = own.model.bases if name == POSTERIOR else class_bases(*parts[0], config.d)
            columns[f"{name}_csnr"].append([csnr.csnr(x, labels, bases) for x, labels in parts[1:]])
            # Each class is symmetric about the origin: without the absolute value no linear probe can work.
            seen = [(x.abs() if name == POSTERIOR else x, labels) for x, labels in parts]
            probe = fit_many(seen[0][0][None], seen[0][1], l2=config.l2)[0]
            columns[f"{name}_accuracy"].append([probe.score(x, labels.numpy()) for x, labels in seen[1:]])
    return {key: np.transpose(values).tolist() for key, values in columns.items()}


def measure_learning(
    config: SweepConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """:func:`measure` for every variant of the base, with each of its seeds.

    Returns ``runs``, a list of results, each with its ``change``, a dictionary of the fields that differ from the base,
    and its ``seed``. With ``cache``, a folder, runs are kept there, and an interrupted sweep goes on from them.
    """
    runs = expand(config.base, config.variants)
    results = sweeps.run(_measured, [run.config for run in runs], cache=cache, progress=progress)
    told = [{"change": dict(run.variant.changes), "seed": run.config.seed} for run in runs]
    return {"runs": [one | result for one, result in zip(told, results, strict=True)]}


def _measured(config: LearningConfig, _folder: Path | None) -> dict[str, Any]:
    return measure(config)
