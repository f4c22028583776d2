"""The records of Chapter 15: repairs of a DAE of one low noise level."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.dae_ablations.measure import REPAIRS, AblationConfig, measure_ablations
from repdyn.chapters.weight_sharing.recipes import CIFAR_UNET, CIFAR_UNET_SLICE, DAES, DAES_SLICE
from repdyn.records import Recipe

__all__ = ["RECIPES"]

# 24 trainings of a perceptron: 5 CPU-minutes.
_ABLATIONS = AblationConfig(DAES)
_SLICED = tuple(
    replace(repair, seeds=(0,))
    for repair in REPAIRS
    if repair.name in ("dropout 0.5", "three levels, spread", "bottleneck")
)
_ABLATIONS_SLICE = AblationConfig(DAES_SLICE, _SLICED)

# Table 3 on its data, with that U-Net: the layers that are read are its narrowest, so the bottleneck has no row. Thirty
# trainings, 80 CPU-minutes.
_CIFAR_ABLATIONS = AblationConfig(
    replace(CIFAR_UNET.base, early=()), tuple(repair for repair in REPAIRS if repair.name != "bottleneck")
)
_CIFAR_ABLATIONS_SLICE = AblationConfig(
    CIFAR_UNET_SLICE.base, tuple(repair for repair in _SLICED if repair.name != "bottleneck")
)

RECIPES: tuple[Recipe, ...] = (
    Recipe("dae-ablations", measure_ablations, _ABLATIONS, _ABLATIONS_SLICE),
    Recipe("dae-ablations-cifar10", measure_ablations, _CIFAR_ABLATIONS, _CIFAR_ABLATIONS_SLICE),
)
