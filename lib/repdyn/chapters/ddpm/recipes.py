"""The record of Chapter 6: trainings on a noisy MoLRG."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.ddpm.measure import LearningConfig, SweepConfig, measure_learning
from repdyn.records import Recipe

__all__ = ["RECIPES"]

_LEARNING = LearningConfig(
    images=800_000, checkpoints=7, timesteps=(1, 10, 40, 80, 120, 160, 180, 240, 280), layers=True
)
_LEARNING_CHANGES = (
    *(("num_train", num) for num in (50, 200, 1000, 16_000)),
    ("hidden", 64),
    *(("delta", delta) for delta in (0.1, 0.3)),
    ("schedule", 1000),
)
_SHORT = (("images", 200_000), ("checkpoints", 1), ("layers", False))
_PAPER_WIDTH = (("hidden", 1024),)
_LEARNING_SLICE = replace(
    _LEARNING, n=10, d=2, hidden=32, images=12_800, num_test=200, num_tests=2, num_probe=300, timesteps=(1, 80, 240),
    checkpoints=2,
)  # fmt: skip

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "ddpm-learning",
        measure_learning,
        SweepConfig(_LEARNING, (_PAPER_WIDTH, *((change, *_SHORT) for change in _LEARNING_CHANGES))),
        SweepConfig(_LEARNING_SLICE, ((("num_train", 20),),), seeds=(0,)),
    ),
)
