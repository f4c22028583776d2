"""Named trainings and records: one place that says what was, or can be, run, and with what budget."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from repdyn import noisy_digits, pixel_curves, pretrained, training, two_patch_curves
from repdyn.curves import CurveConfig, measure
from repdyn.networks.unet import UNetConfig
from repdyn.noisy_digits import NoisyDigitsConfig
from repdyn.pixel_curves import PixelCurveConfig
from repdyn.records import Recipe
from repdyn.training import TrainConfig
from repdyn.two_patch_curves import TwoPatchConfig

__all__ = ["PRESETS", "RECIPES", "get", "recipe", "train"]

_CIFAR_SMALL = TrainConfig(
    dataset="cifar10-jpeg",
    network=UNetConfig(
        resolution=32,
        channels=3,
        model_channels=32,
        channel_mult=(1, 1, 4, 4),
        num_blocks=1,
        attn_resolutions=(8,),
        dropout=0.0,
    ),
    images=25 * 50_000,
    batch_size=128,
    flip=True,
)

PRESETS: dict[str, TrainConfig] = {
    "fashion-small": TrainConfig(
        dataset="fashion-mnist",
        network=UNetConfig(
            resolution=28,
            channels=1,
            model_channels=32,
            channel_mult=(1, 1, 3),
            num_blocks=1,
            attn_resolutions=(7,),
            dropout=0.0,
        ),
        images=20 * 60_000,
        batch_size=128,
    ),
    "cifar10-small": _CIFAR_SMALL,
    "cifar10-small-ddpm": replace(_CIFAR_SMALL, preconditioning="epsilon"),
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


def train(name: str, out: str | os.PathLike = "runs", *, cpu: bool = False) -> Path:
    """Train the preset ``name`` with a progress bar, or go on where it stopped; return the averaged weights' file.

    The state lies in ``out/name/state.safetensors``, the weights end up beside it, ready for
    :func:`repdyn.pretrained.load`, and so do those after 1/32, 1/16, ..., 1/2 of the training. ``cpu`` keeps the
    training off the GPU. Raises ``ValueError`` for an unknown preset.
    """
    config = get(name)
    state_file = Path(out) / name / "state.safetensors"
    average, main = None, True
    total = config.steps * config.batch_size
    with tqdm(total=total, unit="img", unit_scale=True, smoothing=0.01, delay=0.1) as bar:
        for step in training.train(config, state_file, cpu=cpu):
            main = step.main
            if not main:
                continue
            average = step.loss if average is None else 0.99 * average + 0.01 * step.loss
            bar.set_postfix(loss=f"{average:.4f}", refresh=False)
            bar.update(step.images - bar.n)
            if step.step in _halvings(config):
                images = f"weights-{step.images}.safetensors"
                pretrained.export_step(step, config, state_file.with_name(images))
    weights = state_file.with_name("weights.safetensors")
    if main:
        pretrained.export(state_file, weights)
    return weights


def _halvings(config: TrainConfig) -> list[int]:
    return [max(1, config.steps >> k) for k in range(1, 6)]


_FULL = CurveConfig(dataset="fashion-mnist", splits=1)
# One layer and two levels: which of several is best may turn on a single image, and so on how a processor rounds.
_SLICE = replace(
    _FULL,
    dataset="fashion-mnist-mini",
    num_train=600,
    num_test=300,
    sigmas=(0.06, 3.257),
    layers=("dec/7x7_block1",),
)


def _curve(name: str, **changes: bool) -> Recipe:
    return Recipe(name, measure, replace(_FULL, **changes), replace(_SLICE, **changes))


_PIXELS = PixelCurveConfig(
    weights="ccp59-small", dataset="ccp4", num_labelled=20, num_validation=60, apart=0.3, splits=5, max_epochs=10
)
_PIXELS_SLICE = replace(
    _PIXELS, num_labelled=8, num_validation=10, num_test=40, splits=1, sigmas=(0.14, 3.257), max_epochs=4
)
_ENDS_AND_MIDDLE = (0.002, 0.14, 3.257)


def _segmentation(name: str, *, full: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe(name, pixel_curves.measure, replace(_PIXELS, **changes, **full), replace(_PIXELS_SLICE, **changes))


# Quarters of a decade, over three of them, around the classifier's switch near 2.
_TWO_PATCH = TwoPatchConfig(
    n_snr2=tuple(round(0.1 * 10 ** (k / 4), 4) for k in range(13)), strengths=(0.1, 0.3, 1.0, 5.0), seeds=5
)
_TWO_PATCH_SLICE = replace(_TWO_PATCH, n_snr2=(0.1, 10.0), strengths=(0.1, 5.0), seeds=1)

_NOISY_MNIST = NoisyDigitsConfig(dataset="mnist", pool=2, num_train=2000, num_test=2000, hidden=512)
_NOISY_SLICE = NoisyDigitsConfig(num_train=200, num_test=200, snrs=(1.0,), hidden=64, images=12_800, seeds=1)

RECIPES: dict[str, Recipe] = {
    "fashion-curve-clean": _curve("fashion-curve-clean"),
    "fashion-curve-noisy": _curve("fashion-curve-noisy", noisy_input=True, pixels=False),
    "ccp59-segmentation-clean": _segmentation(
        "ccp59-segmentation-clean", full={"window": 7, "examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}
    ),
    "ccp59-segmentation-noisy": _segmentation(
        "ccp59-segmentation-noisy", full={"examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}, noisy_input=True
    ),
    "ccp59-segmentation-untrained": _segmentation(
        "ccp59-segmentation-untrained", full={"sigmas": _ENDS_AND_MIDDLE}, untrained=True
    ),
    "two-patch": Recipe("two-patch", two_patch_curves.measure, _TWO_PATCH, _TWO_PATCH_SLICE),
    "noisy-mnist": Recipe("noisy-mnist", noisy_digits.measure, _NOISY_MNIST, _NOISY_SLICE),
}


def recipe(name: str) -> Recipe:
    """The recipe of the record called ``name``; raises ``ValueError`` with the known names when there is none."""
    if name not in RECIPES:
        raise ValueError(f"unknown record {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
