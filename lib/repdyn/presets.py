"""Named trainings: one place that says what was, or can be, trained, and with what budget."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from repdyn import pretrained, training
from repdyn.networks.unet import UNetConfig
from repdyn.training import CIFAR_UNET, FASHION_UNET, DDPMSteps, Epsilon, TrainConfig

__all__ = ["PRESETS", "get", "train"]

_CIFAR_SMALL = TrainConfig(dataset="cifar10-jpeg", network=CIFAR_UNET, images=25 * 50_000, batch_size=128, flip=True)
_FASHION_SMALL = TrainConfig(dataset="fashion-mnist", network=FASHION_UNET, images=20 * 60_000, batch_size=128)

PRESETS: dict[str, TrainConfig] = {
    "fashion-small": _FASHION_SMALL,
    "fashion-small-ddpm": replace(_FASHION_SMALL, preconditioning=Epsilon(), levels=DDPMSteps()),
    "cifar10-small": _CIFAR_SMALL,
    "cifar10-small-ddpm": replace(_CIFAR_SMALL, preconditioning=Epsilon(), levels=DDPMSteps()),
    # EDM's for CIFAR-10, but for augmentation: no scaling, quarter turns only, mirroring untold. Several GPUs, days.
    "cifar10-ddpmpp": TrainConfig(
        dataset="cifar10",
        network=UNetConfig(augment_dim=6),
        images=200_000_000,
        batch_size=512,
        warmup_images=10_000_000,
        flip=True,
        augment=0.12,
    ),
    "ccp59-small": TrainConfig(
        dataset="ccp4",  # its 804 training images; the 200 for testing are never seen
        network=UNetConfig(
            resolution=48,  # rows; an image has 32 columns
            channels=3,
            model_channels=16,
            channel_mult=(1, 2, 4, 4),
            num_blocks=1,
            attn_resolutions=(12,),
            dropout=0.0,
        ),
        images=100 * 804,
        batch_size=32,
        warmup_images=4_000,
        flip=True,
    ),
    "fashion-tiny": TrainConfig(
        dataset="fashion-mnist-mini",
        network=UNetConfig(
            resolution=28,
            channels=1,
            model_channels=16,
            channel_mult=(1, 2),
            num_blocks=1,
            attn_resolutions=(),
            dropout=0.0,
        ),
        images=20_000,
        batch_size=64,
        warmup_images=2_000,
    ),
}


def get(name: str) -> TrainConfig:
    """The training configuration called ``name``; raises ``ValueError`` with the known names when there is none."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def train(
    name: str,
    out: str | os.PathLike = "runs",
    *,
    dataset: str | None = None,
    cpu: bool = False,
    precision: str | None = None,
) -> Path:
    """Train the preset ``name`` with a progress bar, or go on where it stopped; return the averaged weights' file.

    The state lies in ``out/name/state.safetensors``, the weights end up beside it, ready for
    :func:`repdyn.pretrained.load`, and so do those after 1/32, 1/16, ..., 1/2 of the training. ``dataset`` takes
    the place of the preset's own, such as "cifar10" of its lossy copy. ``cpu`` keeps the training off the GPU, and
    ``precision`` takes the place of the preset's. Raises ``ValueError`` for an unknown preset or data set, and for a
    state of another data set or precision in the same place.
    """
    config = get(name)
    config = replace(config, dataset=dataset or config.dataset, precision=precision or config.precision)
    state_file = Path(out) / name / "state.safetensors"
    average, main, said = math.nan, True, False
    halvings = config.halvings(6)[1:]  # the end is exported from the state
    total = config.steps * config.batch_size
    with tqdm(total=total, unit="img", unit_scale=True, smoothing=0.01, delay=0.1) as bar:
        for step in training.train(config, state_file, cpu=cpu):
            main = step.main
            if not main:
                continue
            if not said:
                bar.write(f"Precision: {step.precision}")
                said = True
            if step.restored:  # the images of earlier starts took none of this one's time
                bar.initial = bar.n = bar.last_print_n = step.images
            average = step.loss if math.isnan(average) else 0.99 * average + 0.01 * step.loss
            bar.set_postfix(loss=f"{average:.4f}", refresh=False)
            bar.update(step.images - bar.n)
            if step.step in halvings:
                images = f"weights-{step.images}.safetensors"
                pretrained.export_step(step, config, state_file.with_name(images))
    weights = state_file.with_name("weights.safetensors")
    if main:
        pretrained.export(state_file, weights)
    return weights
