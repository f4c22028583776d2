"""The record of Chapter 6: trainings on a noisy MoLRG."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.ddpm.measure import LearningConfig, SweepConfig, measure_learning
from repdyn.records import Recipe
from repdyn.records.variants import grid

__all__ = ["RECIPES"]

_LEARNING = LearningConfig(
    images=800_000, checkpoints=7, timesteps=(1, 10, 40, 80, 120, 160, 180, 240, 280), layers=True
)
_SEEDS = (0, 1, 2)
_SHORT = {"images": (200_000,), "checkpoints": (1,), "layers": (False,), "seeds": _SEEDS}
_VARIANTS = (
    *grid(seeds=_SEEDS),
    *grid(hidden=(1024,), seeds=_SEEDS),  # the paper's width
    *grid(num_train=(50, 200, 1000, 16_000), **_SHORT),
    *grid(hidden=(64,), **_SHORT),
    *grid(delta=(0.1, 0.3), **_SHORT),
    *grid(schedule=(1000,), **_SHORT),
)
_LEARNING_SLICE = replace(
    _LEARNING, n=10, d=2, hidden=32, images=12_800, num_test=200, num_tests=2, num_probe=300, timesteps=(1, 80, 240),
    checkpoints=2,
)  # fmt: skip

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "ddpm-learning",
        measure_learning,
        SweepConfig(_LEARNING, _VARIANTS),
        SweepConfig(_LEARNING_SLICE, (*grid(seeds=(0,)), *grid(num_train=(20,), seeds=(0,)))),
    ),
)
