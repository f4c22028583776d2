"""The records of the part on practice, whose networks are trained for them: plans, slices and what they cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn.chapters.ensembles import measure as ensembles
from repdyn.chapters.ensembles.measure import EnsembleConfig
from repdyn.chapters.memorisation import sweep as memorisation_sweep
from repdyn.chapters.memorisation.measure import MemoryConfig
from repdyn.chapters.memorisation.sweep import MemorySweep
from repdyn.chapters.weight_sharing import measure as dae_curves
from repdyn.chapters.weight_sharing.measure import AblationConfig, SharingConfig
from repdyn.chapters.weight_sharing.runs import DAEConfig
from repdyn.records import Recipe
from repdyn.training import CIFAR_UNET, FASHION_UNET, TrainConfig

__all__ = ["PRACTICE"]

# 66 short trainings of a perceptron and four long ones: about 16 CPU-minutes. Of the repairs, 24 more trainings: 5.
_DAES = DAEConfig()
_SHARING = SharingConfig(_DAES, long=("vp", "edm"))
_ABLATIONS = AblationConfig(_DAES)
_DAES_SLICE = replace(
    _DAES, dataset="fashion-mnist-mini", widths=(64, 64, 64), images=6400, num_train=900, num_test=600, num_noisy=20,
    num_kept=100,
)  # fmt: skip
# Which level is best may turn on a single image: the slice is told from which one distances count.
_SHARING_SLICE = replace(
    _SHARING, base=_DAES_SLICE, sigmas=(0.002, 3.257), families=("vp",), long=(), reference=3.257
)  # fmt: skip
_ABLATIONS_SLICE = replace(
    _ABLATIONS, base=_DAES_SLICE, seeds=(0,),
    repairs=tuple(row for row in _ABLATIONS.repairs if row[0] in ("dropout 0.5", "three levels, spread", "bottleneck")),
)  # fmt: skip

# The perceptron on CIFAR-10, 16 by 16 pixels in colour: 33 trainings, 8 CPU-minutes.
_CIFAR = replace(_SHARING, base=replace(_DAES, dataset="cifar10-jpeg"), families=("vp",), long=(), seeds=(0, 1, 2))
_CIFAR_SLICE = replace(_SHARING_SLICE, base=replace(_DAES_SLICE, pool=1), seeds=(0,))
# A U-Net for a look, not a curve: twelve trainings, 9 CPU-minutes.
_UNET = SharingConfig(
    replace(_DAES, network="unet", widths=(8, 32), images=24_000, learning_rate=2e-3),
    sigmas=(0.002, 0.14, 3.257), families=("vp",), seeds=(0, 1, 2),
)  # fmt: skip
_UNET_SLICE = replace(_SHARING_SLICE, base=replace(_DAES_SLICE, network="unet", widths=(4, 8), images=1280), seeds=(0,))
# Figure 7 in small: all ten levels, on its data. 22 trainings, 51 CPU-minutes.
_CIFAR_UNET = replace(
    _CIFAR,
    seeds=(0, 1),
    base=replace(_CIFAR.base, network="unet", widths=(16, 32), images=48_000, learning_rate=_UNET.base.learning_rate),
)
_CIFAR_UNET_SLICE = replace(_UNET_SLICE, base=replace(_UNET_SLICE.base, dataset="cifar10-jpeg"))
# The panel of a hundred classes: sixty images of each fit the probes, thirty choose the level, fifty test. 22
# trainings, 62 CPU-minutes.
_HUNDRED = replace(
    _CIFAR_UNET, base=replace(_CIFAR_UNET.base, dataset="tinyimagenet100-32", num_train=9000, num_test=5000)
)
_HUNDRED_SLICE = replace(
    _CIFAR_UNET_SLICE, base=replace(_CIFAR_UNET_SLICE.base, dataset="tinyimagenet100-32", num_train=1500)
)
# Table 3 on its data, with that U-Net: the layers that are read are its narrowest, so the bottleneck has no row. Thirty
# trainings, 80 CPU-minutes.
_CIFAR_REPAIRS = tuple(row for row in _ABLATIONS.repairs if row[0] != "bottleneck")
_CIFAR_ABLATIONS = AblationConfig(replace(_CIFAR_UNET.base, early=()), _CIFAR_REPAIRS)
_CIFAR_ABLATIONS_SLICE = replace(
    _ABLATIONS_SLICE,
    base=_CIFAR_UNET_SLICE.base,
    repairs=tuple(row for row in _CIFAR_REPAIRS if row in _ABLATIONS_SLICE.repairs),
)
# Half the width of fashion-small and a thirteenth of its images. Measured on one busy core: 280 images a
# CPU-second as a diffusion model or a masked auto-encoder, 1100 as an encoder alone; bf16, because fp32 was a quarter
# slower. So 6 + 6 + 1.5 CPU-minutes of training, and about 15 for the features and the probes of all sources.
_EQUAL_BUDGET = TrainConfig(
    dataset="fashion-mnist",
    network=replace(FASHION_UNET, model_channels=16),
    images=96_000,
)
# The classifiers have the learning rate of repdyn.chapters.generation.image_classifier: EDM's, a quarter of it, leaves them far from
# trained after so few steps (0.79 instead of 0.87 on test images).
_ENSEMBLES = EnsembleConfig(
    targets=("fashion-mnist", "mnist"),
    training=_EQUAL_BUDGET,
    learning_rates=(("supervised", 4e-3), ("end to end", 4e-3)),
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
    return Recipe(
        f"ensembles-fashion-seed{seed}", ensembles.measure, replace(_ENSEMBLES, sources=sources, training=plan), part
    )


# The network trained on CIFAR-10, on its own images and on photographs of other things; nothing is trained for these.
_OBJECTS = EnsembleConfig(
    sources=("weights", "untrained", "pixels"),
    weights="cifar10-small",
    training=TrainConfig(dataset="cifar10-jpeg", images=128, network=CIFAR_UNET),  # of the untrained one: its shape
    size=32,
    layers=("dec/4x4_in1", "dec/4x4_block1", "dec/8x8_up", "dec/8x8_block0", "dec/8x8_block1"),
    draws_of=(),
)
# Images that do not ship: verify says NOT CHECKED where they are not at hand.
_OBJECTS_SLICE = replace(_ENSEMBLES_SLICE, weights="cifar10-small", num_test=200, size=32, layers=("dec/8x8_block0",))


def _transfer(name: str, *targets: str, labelled: int = 400, **changes: Any) -> Recipe:
    part = replace(_OBJECTS_SLICE, targets=targets[:1], num_train=labelled)
    return Recipe(name, ensembles.measure, replace(_OBJECTS, targets=targets, **changes), part)


# Chosen such that copying sets in within the budget: with 16 channels 750 images a CPU-second and 90 seconds a
# training (8 channels: 60), and 14 for each checkpoint. In all 45 CPU-minutes.
_MEMORY_CHANGES = (
    ((("num_train", 32), ("checkpoints", 5), ("steps", (10, 20))), (0,)),
    ((("num_train", 8192), ("checkpoints", 4)), (0,)),
    *(((("num_train", num),), (0,)) for num in (16, 128, 1024)),
    *(((("num_train", num), ("width", 8)), (0,)) for num in (32, 128, 8192, 16, 1024)),
    ((("num_train", 64), ("images", 131_072), ("checkpoints", 6)), (0,)),
    ((("num_train", 64), ("width", 8)), (0,)),
    *(((("num_train", num),), (1, 2)) for num in (16, 128, 1024, 8192)),
    *(((("num_train", num), ("width", 8)), (1, 2)) for num in (16, 128, 1024, 8192)),
)
_MEMORY_SLICE = MemoryConfig(
    dataset="fashion-mnist-mini", num_train=16, width=8, images=1280, precision="no", num_probe=400, num_test=300,
    sigmas=(0.14, 3.257), samples=32, thresholds=(0.2, 1 / 3), loss_sigmas=(0.585,), num_loss=200, validation=0.5,
)  # fmt: skip

PRACTICE: dict[str, Recipe] = {
    "ensembles-fashion": Recipe("ensembles-fashion", ensembles.measure, _ENSEMBLES, _ENSEMBLES_SLICE),
    **{recipe.name: recipe for recipe in (_again(1), _again(2))},
    "ensembles-cifar10": _transfer("ensembles-cifar10", "cifar10-jpeg"),
    "ensembles-tinyimagenet": _transfer("ensembles-tinyimagenet", "tinyimagenet100-32", labelled=2000),
    "ensembles-photographs": _transfer("ensembles-photographs", "dtd10", "flowers17", num_train=None, num_test=None),
    "weight-sharing": Recipe("weight-sharing", dae_curves.measure_sharing, _SHARING, _SHARING_SLICE),
    "weight-sharing-unet": Recipe("weight-sharing-unet", dae_curves.measure_sharing, _UNET, _UNET_SLICE),
    "weight-sharing-cifar10-unet": Recipe(
        "weight-sharing-cifar10-unet", dae_curves.measure_sharing, _CIFAR_UNET, _CIFAR_UNET_SLICE
    ),
    "weight-sharing-tinyimagenet-unet": Recipe(
        "weight-sharing-tinyimagenet-unet", dae_curves.measure_sharing, _HUNDRED, _HUNDRED_SLICE
    ),
    "weight-sharing-cifar10": Recipe("weight-sharing-cifar10", dae_curves.measure_sharing, _CIFAR, _CIFAR_SLICE),
    "dae-ablations": Recipe("dae-ablations", dae_curves.measure_ablations, _ABLATIONS, _ABLATIONS_SLICE),
    "dae-ablations-cifar10": Recipe(
        "dae-ablations-cifar10", dae_curves.measure_ablations, _CIFAR_ABLATIONS, _CIFAR_ABLATIONS_SLICE
    ),
    "memorisation-sweep": Recipe(
        "memorisation-sweep",
        memorisation_sweep.measure_sweep,
        MemorySweep(MemoryConfig(), _MEMORY_CHANGES),
        MemorySweep(_MEMORY_SLICE),
    ),
}
