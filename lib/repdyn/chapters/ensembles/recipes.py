"""The records of Chapter 13: ensembles under label noise, networks of equal budget, transfers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn.chapters.ensembles.measure import EnsembleConfig, measure
from repdyn.records import Recipe
from repdyn.training import CIFAR_UNET, FASHION_UNET, TrainConfig

__all__ = ["RECIPES"]

# Half the width of fashion-small and a thirteenth of its images. Measured on one busy core: 280 images a
# CPU-second as a diffusion model or a masked auto-encoder, 1100 as an encoder alone; bf16, because fp32 was a quarter
# slower. So 6 + 6 + 1.5 CPU-minutes of training, and about 15 for the features and the probes of all sources.
_EQUAL_BUDGET = TrainConfig(
    dataset="fashion-mnist",
    network=replace(FASHION_UNET, model_channels=16),
    images=96_000,
    precision="bf16",  # as recorded, whatever the machine would choose
)
# The classifiers have the learning rate of repdyn.chapters.generation.image_classifier: EDM's, a quarter of it,
# leaves them far from trained after so few steps (0.79 instead of 0.87 on test images).
_ENSEMBLES = EnsembleConfig(
    targets=("fashion-mnist", "mnist"),
    training=_EQUAL_BUDGET,
    learning_rates=(("supervised", 4e-3), ("end to end", 4e-3)),
    precision="bf16",
)
# Levels apart, one layer, one penalty: nothing is chosen that could turn on one image.
_ENSEMBLES_SLICE = replace(
    _ENSEMBLES,
    sources=("weights", "pixels"),
    targets=("fashion-mnist-mini",),
    training=None,
    learning_rates=(),
    num_train=800,
    num_test=400,
    sigmas=(0.06, 3.257, 20.0),
    neighbours=1,
    shares=(0.0, 0.6),
    label_seeds=(0,),
    layers=("dec/7x7_block1",),
    l2=(1e-2,),
    components=(32,),
)


def _again(seed: int) -> Recipe:
    """Whatever was trained for the record of equal budget, once more, from another start and in another order."""
    sources = ("diffusion", "masked", "supervised", "untrained", "end to end")
    plan = replace(_EQUAL_BUDGET, seed=seed)
    part = replace(_ENSEMBLES_SLICE, sources=("untrained",), training=plan, num_train=400, num_test=200)
    return Recipe(f"ensembles-fashion-seed{seed}", measure, replace(_ENSEMBLES, sources=sources, training=plan), part)


# The network trained on CIFAR-10, on its own images and on photographs of other things; nothing is trained for these.
_OBJECTS = EnsembleConfig(
    sources=("weights", "untrained", "pixels"),
    weights="cifar10-small",
    # Of the untrained one: its shape.
    training=TrainConfig(dataset="cifar10-jpeg", images=128, network=CIFAR_UNET, precision="bf16"),
    size=32,
    layers=("dec/4x4_in1", "dec/4x4_block1", "dec/8x8_up", "dec/8x8_block0", "dec/8x8_block1"),
    draws_of=(),
    precision="bf16",
)
# Images that do not ship: verify says NOT CHECKED where they are not at hand.
_OBJECTS_SLICE = replace(_ENSEMBLES_SLICE, weights="cifar10-small", num_test=200, size=32, layers=("dec/8x8_block0",))


def _transfer(name: str, *targets: str, labelled: int = 400, **changes: Any) -> Recipe:
    part = replace(_OBJECTS_SLICE, targets=targets[:1], num_train=labelled)
    return Recipe(name, measure, replace(_OBJECTS, targets=targets, **changes), part)


RECIPES: tuple[Recipe, ...] = (
    Recipe("ensembles-fashion", measure, _ENSEMBLES, _ENSEMBLES_SLICE),
    _again(1),
    _again(2),
    _transfer("ensembles-cifar10", "cifar10-jpeg"),
    _transfer("ensembles-tinyimagenet", "tinyimagenet100-32", labelled=2000),
    _transfer("ensembles-photographs", "dtd10", "flowers17", num_train=None, num_test=None),
)
