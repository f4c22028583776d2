"""Trainings that generalise or memorise, by size of the training set, width of the network and length; many of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repdyn import training
from repdyn._files import replacing
from repdyn.chapters.memorisation.measure import MemoryConfig, read, scene
from repdyn.metrics import sliced_wasserstein
from repdyn.networks.unet import UNetConfig
from repdyn.records import sweeps
from repdyn.records.variants import Variant, expand, grid

__all__ = ["MemorySweep", "by_size", "learn_images", "measure", "measure_memorisation", "plan"]


@dataclass(frozen=True)
class MemorySweep:
    """The ``variants`` of ``base`` that are trained (:mod:`repdyn.records.variants`), each with its seeds."""

    base: MemoryConfig
    variants: tuple[Variant, ...] = grid(seeds=(0,))

    @property
    def dataset(self) -> str:
        """The images that all runs are about."""
        return self.base.dataset


def plan(config: MemoryConfig, resolution: int, channels: int = 1) -> training.TrainConfig:
    """The training of a configuration on images of ``resolution`` by ``resolution`` pixels."""
    network = UNetConfig(
        resolution=resolution, channels=channels, model_channels=config.width, channel_mult=(1, 2), num_blocks=1,
        attn_resolutions=(), dropout=0.0,
    )  # fmt: skip
    return training.TrainConfig(
        dataset=config.dataset, network=network, images=config.images, batch_size=config.batch_size,
        learning_rate=config.learning_rate, warmup_images=config.warmup_images,
        levels=training.LogNormal(mean=config.p_mean), seed=config.seed,
        precision="float32" if config.precision == "no" else config.precision,  # "no" is the records' word
    )  # fmt: skip


def learn_images(
    config: MemoryConfig, train: Tensor, state_file: str | os.PathLike | None = None
) -> Iterator[tuple[int, nn.Module]]:
    """Train on ``train`` (N, C, H, W), yielding (images seen, averaged denoiser) at each checkpoint not passed yet.

    The denoiser is the live one: measure it before going on. A run that finds ``state_file`` goes on from it.
    """
    own = plan(config, train.shape[-1], train.shape[1])
    stops = own.halvings(config.checkpoints)
    for step in training.train(own, state_file, data=train):
        if step.step in stops:
            yield step.images, step.ema


def measure(config: MemoryConfig, folder: Path | None = None) -> dict[str, Any]:
    """Train and measure: ``checkpoints``, for each ``images`` and what :func:`read` finds; and of the images alone
    ``floor``, the sliced Wasserstein distance of as many real images to the test images, with its error.

    In ``folder`` the training and each finished checkpoint are kept, and an interrupted run goes on from them.
    """
    own, found, state = scene(config), {}, None
    if folder is not None:
        state = folder / "state.safetensors"
        found = {int(path.stem): json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))}
    for images, denoiser in learn_images(config, own.train, state):
        if images not in found:
            found[images] = json.loads(json.dumps(read(denoiser, own, config)))  # what a file would give
            if folder is not None:
                with replacing(folder / f"{images}.json") as temporary:
                    temporary.write_text(json.dumps(found[images]))
    floor = sliced_wasserstein(own.probe[: config.samples], own.test, normalisation="dimension", seed=config.seed)
    checkpoints = [{"images": images, **found[images]} for images in sorted(found)]
    return {"sigmas": list(config.sigmas), "floor": list(floor), "checkpoints": checkpoints}


def measure_memorisation(
    config: MemorySweep, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """:func:`measure` for every variant of the base with each of its seeds.

    Returns ``runs``, a list of results, each with its ``change``, a dictionary of the fields that differ from the base,
    and its ``seed``. With ``cache``, a folder, runs and unfinished trainings are kept there.
    """
    runs = expand(config.base, config.variants)
    results = sweeps.run(measure, [run.config for run in runs], cache=cache, progress=progress, desc="memorisation")
    told = [{"change": dict(run.variant.changes), "seed": run.config.seed} for run in runs]
    return {"runs": [one | result for one, result in zip(told, results, strict=True)]}


def by_size(runs: list[dict[str, Any]], base: MemoryConfig, width: int, seed: int = 0) -> dict[int, dict[str, Any]]:
    """Size of the training set -> checkpoint after ``base.images``, of runs with ``width`` and ``seed``; sizes rise.

    ``runs`` are those of :func:`measure_memorisation`. Raises ``ValueError`` if there is none.
    """
    found: dict[int, dict[str, Any]] = {}
    for run in runs:
        fields = {"width": base.width, "num_train": base.num_train, **run["change"]}
        for checkpoint in run["checkpoints"]:
            if (fields["width"], run["seed"], checkpoint["images"]) == (width, seed, base.images):
                found[fields["num_train"]] = checkpoint
    if not found:
        raise ValueError(f"width: no run has {width}, seed {seed} and a checkpoint after {base.images} images")
    return dict(sorted(found.items()))
