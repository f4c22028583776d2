"""The records of Chapter 9: accuracy curves, and curves along a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn import curves
from repdyn.chapters.unimodal.measure import TrainingCurveConfig, measure
from repdyn.curves import CurveConfig
from repdyn.records import Recipe

__all__ = ["RECIPES", "CIFAR", "CIFAR_SLICE", "FULL", "SLICE"]

FULL = CurveConfig(dataset="fashion-mnist", splits=1, precision="bf16")
# One layer and two levels: which of several is best may turn on a single image, and so on how a processor rounds.
SLICE = replace(
    FULL,
    dataset="fashion-mnist-mini",
    num_train=600,
    num_test=300,
    sigmas=(0.06, 3.257),
    layers=("dec/7x7_block1",),
)


def _curve(name: str, **changes: Any) -> Recipe:
    return Recipe(name, curves.measure, replace(FULL, **changes), replace(SLICE, **changes))


# A fifth of the training and half of the test images, to save time. The copy of CIFAR-10 does not ship, and so neither
# do the images of a slice.
CIFAR = replace(
    FULL, weights="cifar10-small", dataset="cifar10-jpeg", num_train=10_000, num_test=5000, l2=(1e-1, 1e-2, 1e-3)
)
CIFAR_SLICE = replace(CIFAR, num_train=300, num_test=150, sigmas=(0.06, 3.257), layers=("dec/8x8_block1",), l2=1e-2)


def _cifar_curve(name: str, **changes: Any) -> Recipe:
    return Recipe(name, curves.measure, replace(CIFAR, **changes), replace(CIFAR_SLICE, **changes))


# Few images and levels: there are many networks.
_CIFAR_STAGE = replace(
    CIFAR,
    num_train=4000,
    num_test=3000,
    sigmas=(0.002, 0.06, 0.296, 1.088, 3.257),
    splits=3,
    l2=FULL.l2,
    pixels=False,
)


def _stages(preset: str, images: tuple[int, ...]) -> tuple[str, ...]:
    """What ``repdyn train`` leaves behind along the way, in the folder of runs."""
    return tuple(f"{preset}@{num}" for num in images)


_CIFAR_TRAINING = TrainingCurveConfig(
    _CIFAR_STAGE,
    (
        *_stages("cifar10-small", (39_040, 156_160, 312_448, 625_024)),
        "cifar10-small",
        *_stages("cifar10-small-ddpm", (39_040, 156_160, 312_448, 625_024)),
        "cifar10-small-ddpm",
    ),
)

RECIPES: tuple[Recipe, ...] = (
    _curve("fashion-curve-clean"),
    _curve("fashion-curve-noisy", noisy_input=True, pixels=False),
    _cifar_curve("cifar10-curve-clean"),
    _cifar_curve("cifar10-curve-noisy", noisy_input=True, pixels=False),
    _cifar_curve("cifar10-ddpm-curve-clean", weights="cifar10-small-ddpm", pixels=False),
    _cifar_curve("cifar10-ddpm-curve-noisy", weights="cifar10-small-ddpm", noisy_input=True, pixels=False),
    Recipe("cifar10-training", measure, _CIFAR_TRAINING, TrainingCurveConfig(CIFAR_SLICE, ("cifar10-small",))),
)
