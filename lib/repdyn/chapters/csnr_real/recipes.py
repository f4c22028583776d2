"""The records of Chapter 10: CSNR and accuracy of the same features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn.chapters.csnr_real.measure import CSNRConfig, measure
from repdyn.chapters.unimodal.recipes import CIFAR, CIFAR_SLICE, SLICE
from repdyn.records import Recipe

__all__ = ["RECIPES"]

# Bases from all training images; probes are fitted to a quarter of them, to save time.
_CSNR = CSNRConfig(dataset="fashion-mnist", validation=0.75, precision="bf16")
# No resampling, and no choice that could turn on one image.
_CSNR_SLICE = replace(
    _CSNR,
    dataset="fashion-mnist-mini",
    num_train=600,
    num_test=300,
    sigmas=SLICE.sigmas,
    layers=SLICE.layers,
    ranks=(1, 5),
    resamples=0,
    l2=1e-2,
)
# The features and probes of the accuracy curves. Of the slice no posterior: bases in 3072 dimensions take minutes.
_CIFAR_CSNR = CSNRConfig(**vars(replace(CIFAR, pixels=False)))
_CIFAR_CSNR_SLICE = replace(
    CSNRConfig(**vars(replace(CIFAR_SLICE, pixels=False, posterior=False))), ranks=_CSNR_SLICE.ranks, resamples=0
)


def _csnr(full: CSNRConfig, part: CSNRConfig, name: str, **changes: Any) -> Recipe:
    return Recipe(name, measure, replace(full, **changes), replace(part, **changes))


RECIPES: tuple[Recipe, ...] = (
    _csnr(_CSNR, _CSNR_SLICE, "fashion-csnr-clean"),
    _csnr(_CSNR, _CSNR_SLICE, "fashion-csnr-noisy", noisy_input=True),
    _csnr(_CIFAR_CSNR, _CIFAR_CSNR_SLICE, "cifar10-csnr-clean"),
    _csnr(_CIFAR_CSNR, _CIFAR_CSNR_SLICE, "cifar10-csnr-noisy", noisy_input=True),
)
