"""The record of Chapter 16: trainings by size of the set, width and length."""

from __future__ import annotations

from repdyn.chapters.memorisation.measure import MemoryConfig
from repdyn.chapters.memorisation.sweep import MemorySweep, measure_memorisation
from repdyn.records import Recipe
from repdyn.records.variants import Variant, grid

__all__ = ["RECIPES"]

# Chosen such that copying sets in within the budget: with 16 channels 750 images a CPU-second and 90 seconds a
# training (8 channels: 60), and 14 for each checkpoint. In all 45 CPU-minutes.
_VARIANTS = (
    Variant((("num_train", 32), ("checkpoints", 5), ("steps", (10, 20))), (0,)),
    *grid(num_train=(8192,), checkpoints=(4,), seeds=(0,)),
    *grid(num_train=(16, 128, 1024), seeds=(0,)),
    *grid(num_train=(32, 128, 8192, 16, 1024), width=(8,), seeds=(0,)),
    *grid(num_train=(64,), images=(131_072,), checkpoints=(6,), seeds=(0,)),
    *grid(num_train=(64,), width=(8,), seeds=(0,)),
    *grid(num_train=(16, 128, 1024, 8192), seeds=(1, 2)),
    *grid(num_train=(16, 128, 1024, 8192), width=(8,), seeds=(1, 2)),
)
_MEMORY_SLICE = MemoryConfig(
    dataset="fashion-mnist-mini", num_train=16, width=8, images=1280, precision="no", num_probe=400, num_test=300,
    sigmas=(0.14, 3.257), samples=32, thresholds=(0.2, 1 / 3), loss_sigmas=(0.585,), num_loss=200, validation=0.5,
    read_precision="bf16",
)  # fmt: skip

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "memorisation-sweep",
        measure_memorisation,
        MemorySweep(MemoryConfig(read_precision="bf16"), _VARIANTS),
        MemorySweep(_MEMORY_SLICE),
    ),
)
