"""The records of Chapter 14: one diffusion model against DAEs of one level each."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.weight_sharing.measure import SharingConfig, measure_sharing
from repdyn.chapters.weight_sharing.runs import DAEConfig
from repdyn.records import Recipe

__all__ = ["RECIPES", "CIFAR_UNET", "CIFAR_UNET_SLICE", "DAES", "DAES_SLICE"]

# 66 short trainings of a perceptron and four long ones: about 16 CPU-minutes.
DAES = DAEConfig()
_SHARING = SharingConfig(DAES, long=("vp", "edm"))
DAES_SLICE = replace(
    DAES, dataset="fashion-mnist-mini", widths=(64, 64, 64), images=6400, num_train=900, num_test=600, num_noisy=20,
    num_kept=100,
)  # fmt: skip
# Which level is best may turn on a single image: the slice is told from which one distances count.
_SHARING_SLICE = replace(
    _SHARING, base=DAES_SLICE, sigmas=(0.002, 3.257), families=("vp",), long=(), reference=3.257
)  # fmt: skip
# The perceptron on CIFAR-10, 16 by 16 pixels in colour: 33 trainings, 8 CPU-minutes.
_CIFAR = replace(_SHARING, base=replace(DAES, dataset="cifar10-jpeg"), families=("vp",), long=(), seeds=(0, 1, 2))
_CIFAR_SLICE = replace(_SHARING_SLICE, base=replace(DAES_SLICE, pool=1), seeds=(0,))
# A U-Net for a look, not a curve: twelve trainings, 9 CPU-minutes.
_UNET = SharingConfig(
    replace(DAES, network="unet", widths=(8, 32), images=24_000, learning_rate=2e-3),
    sigmas=(0.002, 0.14, 3.257), families=("vp",), seeds=(0, 1, 2),
)  # fmt: skip
_UNET_SLICE = replace(_SHARING_SLICE, base=replace(DAES_SLICE, network="unet", widths=(4, 8), images=1280), seeds=(0,))
# Figure 7 in small: all ten levels, on its data. 22 trainings, 51 CPU-minutes.
CIFAR_UNET = replace(
    _CIFAR,
    seeds=(0, 1),
    base=replace(_CIFAR.base, network="unet", widths=(16, 32), images=48_000, learning_rate=_UNET.base.learning_rate),
)
CIFAR_UNET_SLICE = replace(_UNET_SLICE, base=replace(_UNET_SLICE.base, dataset="cifar10-jpeg"))
# The panel of a hundred classes: sixty images of each fit the probes, thirty choose the level, fifty test. 22
# trainings, 62 CPU-minutes.
_HUNDRED = replace(
    CIFAR_UNET, base=replace(CIFAR_UNET.base, dataset="tinyimagenet100-32", num_train=9000, num_test=5000)
)
_HUNDRED_SLICE = replace(
    CIFAR_UNET_SLICE, base=replace(CIFAR_UNET_SLICE.base, dataset="tinyimagenet100-32", num_train=1500)
)

RECIPES: tuple[Recipe, ...] = (
    Recipe("weight-sharing", measure_sharing, _SHARING, _SHARING_SLICE),
    Recipe("weight-sharing-unet", measure_sharing, _UNET, _UNET_SLICE),
    Recipe("weight-sharing-cifar10-unet", measure_sharing, CIFAR_UNET, CIFAR_UNET_SLICE),
    Recipe("weight-sharing-tinyimagenet-unet", measure_sharing, _HUNDRED, _HUNDRED_SLICE),
    Recipe("weight-sharing-cifar10", measure_sharing, _CIFAR, _CIFAR_SLICE),
)
