"""The records of Chapter 15: repairs of a DAE of one low noise level."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.dae_ablations.measure import AblationConfig, measure_ablations
from repdyn.chapters.weight_sharing.recipes import CIFAR_UNET, CIFAR_UNET_SLICE, DAES, DAES_SLICE
from repdyn.records import Recipe

__all__ = ["RECIPES"]

# 24 trainings of a perceptron: 5 CPU-minutes.
_ABLATIONS = AblationConfig(DAES)
_ABLATIONS_SLICE = replace(
    _ABLATIONS, base=DAES_SLICE, seeds=(0,),
    repairs=tuple(row for row in _ABLATIONS.repairs if row[0] in ("dropout 0.5", "three levels, spread", "bottleneck")),
)  # fmt: skip

# Table 3 on its data, with that U-Net: the layers that are read are its narrowest, so the bottleneck has no row. Thirty
# trainings, 80 CPU-minutes.
_CIFAR_REPAIRS = tuple(row for row in _ABLATIONS.repairs if row[0] != "bottleneck")
_CIFAR_ABLATIONS = AblationConfig(replace(CIFAR_UNET.base, early=()), _CIFAR_REPAIRS)
_CIFAR_ABLATIONS_SLICE = replace(
    _ABLATIONS_SLICE,
    base=CIFAR_UNET_SLICE.base,
    repairs=tuple(row for row in _CIFAR_REPAIRS if row in _ABLATIONS_SLICE.repairs),
)

RECIPES: tuple[Recipe, ...] = (
    Recipe("dae-ablations", measure_ablations, _ABLATIONS, _ABLATIONS_SLICE),
    Recipe("dae-ablations-cifar10", measure_ablations, _CIFAR_ABLATIONS, _CIFAR_ABLATIONS_SLICE),
)
