"""The records that exist or can be made: what each measures in full, and the slice by which it is verified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn._practice_recipes import PRACTICE
from repdyn.chapters.csnr_real import measure as csnr_curves
from repdyn.chapters.csnr_real.measure import CSNRConfig
from repdyn.chapters.ddpm import measure as molrg_curves
from repdyn.chapters.ddpm.measure import LearningConfig, SweepConfig
from repdyn.chapters.feature_learning import measure as two_patch_curves
from repdyn.chapters.feature_learning import noisy_digits
from repdyn.chapters.feature_learning.measure import TwoPatchConfig
from repdyn.chapters.feature_learning.noisy_digits import NoisyDigitsConfig
from repdyn.chapters.generation import measure as quality_curves
from repdyn.chapters.generation.measure import QualityConfig
from repdyn.chapters.recovery import clusters
from repdyn.chapters.recovery import measure as recovery
from repdyn.chapters.recovery.clusters import ClusterConfig
from repdyn.chapters.recovery.measure import RecoveryConfig, World
from repdyn.chapters.segmentation import measure as pixel_curves
from repdyn.chapters.segmentation.measure import PixelCurveConfig
from repdyn.chapters.unimodal import measure as training_curves
from repdyn.chapters.unimodal.measure import TrainingCurveConfig
from repdyn.curves import CurveConfig, measure
from repdyn.records import Recipe

__all__ = ["RECIPES"]

_FULL = CurveConfig(dataset="fashion-mnist", splits=1)
# One layer and two levels: which of several is best may turn on a single image, and so on how a processor rounds.
_SLICE = replace(
    _FULL,
    dataset="fashion-mnist-mini",
    num_train=600,
    num_test=300,
    sigmas=(0.06, 3.257),
    layers=("dec/7x7_block1",),
)


def _curve(name: str, **changes: bool) -> Recipe:
    return Recipe(name, measure, replace(_FULL, **changes), replace(_SLICE, **changes))


# A fifth of the training and half of the test images, to save time. The copy of CIFAR-10 does not ship, and so neither
# do the images of a slice.
_CIFAR = replace(
    _FULL, weights="cifar10-small", dataset="cifar10-jpeg", num_train=10_000, num_test=5000, l2=(1e-1, 1e-2, 1e-3)
)
_CIFAR_SLICE = replace(_CIFAR, num_train=300, num_test=150, sigmas=(0.06, 3.257), layers=("dec/8x8_block1",), l2=1e-2)


def _cifar_curve(name: str, **changes: Any) -> Recipe:
    return Recipe(name, measure, replace(_CIFAR, **changes), replace(_CIFAR_SLICE, **changes))


# Few images and levels: there are many networks.
_CIFAR_STAGE = replace(
    _CIFAR,
    num_train=4000,
    num_test=3000,
    sigmas=(0.002, 0.06, 0.296, 1.088, 3.257),
    splits=3,
    l2=_FULL.l2,
    pixels=False,
)


def _stages(preset: str, images: tuple[int, ...]) -> tuple[str, ...]:
    """What ``repdyn train`` leaves behind along the way."""
    return tuple(f"runs/{preset}/weights-{num}.safetensors" for num in images)


_CIFAR_TRAINING = TrainingCurveConfig(
    _CIFAR_STAGE,
    (
        *_stages("cifar10-small", (39_040, 156_160, 312_448, 625_024)),
        "cifar10-small",
        *_stages("cifar10-small-ddpm", (39_040, 156_160, 312_448, 625_024)),
        "cifar10-small-ddpm",
    ),
)

# Bases from all training images; probes are fitted to a quarter of them, to save time.
_CSNR = CSNRConfig(dataset="fashion-mnist", validation=0.75)
# No resampling, and no choice that could turn on one image.
_CSNR_SLICE = replace(
    _CSNR,
    dataset="fashion-mnist-mini",
    num_train=600,
    num_test=300,
    sigmas=_SLICE.sigmas,
    layers=_SLICE.layers,
    ranks=(1, 5),
    resamples=0,
    l2=1e-2,
)
# The features and probes of the accuracy curves. Of the slice no posterior: bases in 3072 dimensions take minutes.
_CIFAR_CSNR = CSNRConfig(**vars(replace(_CIFAR, pixels=False)))
_CIFAR_CSNR_SLICE = replace(
    CSNRConfig(**vars(replace(_CIFAR_SLICE, pixels=False, posterior=False))), ranks=_CSNR_SLICE.ranks, resamples=0
)


def _csnr(full: CSNRConfig, part: CSNRConfig, name: str, **changes: bool) -> Recipe:
    return Recipe(name, csnr_curves.measure, replace(full, **changes), replace(part, **changes))


_PIXELS = PixelCurveConfig(
    weights="ccp59-small", dataset="ccp4", num_labelled=20, num_validation=60, apart=0.3, splits=5, max_epochs=10
)
_PIXELS_SLICE = replace(
    _PIXELS, num_labelled=8, num_validation=10, num_test=40, splits=1, sigmas=(0.14, 3.257), max_epochs=4
)
_ENDS_AND_MIDDLE = (0.002, 0.14, 3.257)


def _segmentation(name: str, *, full: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe(name, pixel_curves.measure, replace(_PIXELS, **changes, **full), replace(_PIXELS_SLICE, **changes))


_QUALITY = QualityConfig(
    dataset="fashion-mnist",
    num_train=10_000,
    samples=1500,
    sample_seeds=12,  # batches of 125: larger ones take twice as long an image on a CPU
    numbers=(250, 500, 1000, 1500),
)
_QUALITY_SLICE = replace(
    _QUALITY,
    dataset="fashion-mnist-mini",
    embeddings=_QUALITY.embeddings[:1],
    num_train=1500,
    num_test=600,
    sigmas=(0.585, 3.257),
    probe_seeds=1,
    validation=0.4,  # many images to count on: what early stopping leaves of one processor's rounding is then small
    steps=8,
    samples=100,
    sample_seeds=1,
    numbers=(100,),
)

# Without pixels as an embedding: it needs more test images than it has dimensions, 3072, and hundreds of distances.
_CIFAR_QUALITY = replace(
    _QUALITY,
    weights=_CIFAR.weights,
    dataset=_CIFAR.dataset,
    embeddings=("cifar10-cnn",),
    num_train=8000,
    num_test=4000,
    samples=1000,
    sample_seeds=8,
    numbers=(250, 500, 1000),
)
_CIFAR_QUALITY_SLICE = replace(
    _QUALITY_SLICE,
    weights=_CIFAR.weights,
    dataset=_CIFAR.dataset,
    embeddings=_CIFAR_QUALITY.embeddings,
    num_reference=1000,
    num_train=600,
    num_test=300,
    samples=120,
    numbers=(120,),
)

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
_COMPARED = ("even", "0.3", "k-subspaces")
_LEVELS = ("0.1", "0.2", "0.3", "0.5", "0.7", "1.0", "2.0")
_RECOVERY = RecoveryConfig(
    methods=(*_LEVELS, "ddpm", "edm", "even", "anneal", "k-subspaces", "em", "k-subspaces first", "wide", "alike"),
    axes=(
        ("n", (20, 200), _COMPARED),
        ("d", (1, 2, 10), _COMPARED),
        ("K", (2, 5, 8), _COMPARED),
        ("num", (200, 500, 8000), _COMPARED),
        ("overlap", (0.3, 0.6, 0.8), _COMPARED),
        ("delta", (0.05, 0.1, 0.35, 0.5), ("0.1", "0.3", "1.0", "even", "k-subspaces")),
        ("d", (2,), ("alike", "wide")),
        ("K", (5, 8), ("alike", "wide")),
    ),
)
# Well apart, so that the last bit of a processor's sum decides no start: angles are far from the bound on both sides.
_RECOVERY_SLICE = RecoveryConfig(
    World(n=12, d=2, K=2, num=500), ("0.3", "k-subspaces"), (("num", (2000,), ("0.3",)),), worlds=1, starts=3, steps=300
)


_CLUSTERS = ClusterConfig()
_CLUSTERS_SLICE = replace(_CLUSTERS, num=1500, dims=(2,), schedules=("0.3",), starts=2, steps=60)


# Quarters of a decade, over three of them, around the classifier's switch near 2.
_TWO_PATCH = TwoPatchConfig(
    n_snr2=tuple(round(0.1 * 10 ** (k / 4), 4) for k in range(13)), strengths=(0.1, 0.3, 1.0, 5.0), seeds=5
)
_TWO_PATCH_SLICE = replace(_TWO_PATCH, n_snr2=(0.1, 10.0), strengths=(0.1, 5.0), seeds=1)

_NOISY_MNIST = NoisyDigitsConfig(dataset="mnist", pool=2, num_train=2000, num_test=2000, hidden=512)
_NOISY_SLICE = NoisyDigitsConfig(num_train=200, num_test=200, snrs=(1.0,), hidden=64, images=12_800, seeds=1)

RECIPES: dict[str, Recipe] = {
    "ddpm-learning": Recipe(
        "ddpm-learning",
        molrg_curves.measure_sweep,
        SweepConfig(_LEARNING, (_PAPER_WIDTH, *((change, *_SHORT) for change in _LEARNING_CHANGES))),
        SweepConfig(_LEARNING_SLICE, ((("num_train", 20),),), seeds=(0,)),
    ),
    "recovery-phase": Recipe("recovery-phase", recovery.measure, _RECOVERY, _RECOVERY_SLICE),
    "fashion-clusters": Recipe("fashion-clusters", clusters.measure, _CLUSTERS, _CLUSTERS_SLICE),
    "two-patch": Recipe("two-patch", two_patch_curves.measure, _TWO_PATCH, _TWO_PATCH_SLICE),
    "noisy-mnist": Recipe("noisy-mnist", noisy_digits.measure, _NOISY_MNIST, _NOISY_SLICE),
    "fashion-curve-clean": _curve("fashion-curve-clean"),
    "fashion-curve-noisy": _curve("fashion-curve-noisy", noisy_input=True, pixels=False),
    "fashion-csnr-clean": _csnr(_CSNR, _CSNR_SLICE, "fashion-csnr-clean"),
    "fashion-csnr-noisy": _csnr(_CSNR, _CSNR_SLICE, "fashion-csnr-noisy", noisy_input=True),
    "cifar10-curve-clean": _cifar_curve("cifar10-curve-clean"),
    "cifar10-curve-noisy": _cifar_curve("cifar10-curve-noisy", noisy_input=True, pixels=False),
    "cifar10-ddpm-curve-clean": _cifar_curve("cifar10-ddpm-curve-clean", weights="cifar10-small-ddpm", pixels=False),
    "cifar10-ddpm-curve-noisy": _cifar_curve(
        "cifar10-ddpm-curve-noisy", weights="cifar10-small-ddpm", noisy_input=True, pixels=False
    ),
    "cifar10-training": Recipe(
        "cifar10-training",
        training_curves.measure,
        _CIFAR_TRAINING,
        TrainingCurveConfig(_CIFAR_SLICE, ("cifar10-small",)),
    ),
    "cifar10-csnr-clean": _csnr(_CIFAR_CSNR, _CIFAR_CSNR_SLICE, "cifar10-csnr-clean"),
    "cifar10-csnr-noisy": _csnr(_CIFAR_CSNR, _CIFAR_CSNR_SLICE, "cifar10-csnr-noisy", noisy_input=True),
    "fashion-generation": Recipe("fashion-generation", quality_curves.measure, _QUALITY, _QUALITY_SLICE),
    "cifar10-generation": Recipe("cifar10-generation", quality_curves.measure, _CIFAR_QUALITY, _CIFAR_QUALITY_SLICE),
    "ccp59-segmentation-clean": _segmentation(
        "ccp59-segmentation-clean", full={"window": 7, "examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}
    ),
    "ccp59-segmentation-noisy": _segmentation(
        "ccp59-segmentation-noisy", full={"examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}, noisy_input=True
    ),
    "ccp59-segmentation-untrained": _segmentation(
        "ccp59-segmentation-untrained", full={"sigmas": _ENDS_AND_MIDDLE}, untrained=True
    ),
    **PRACTICE,
}
