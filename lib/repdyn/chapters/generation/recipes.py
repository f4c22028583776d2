"""The records of Chapter 11: distances to real images, accuracy and detail at each noise level."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.generation.measure import QualityConfig, measure
from repdyn.chapters.unimodal.recipes import CIFAR
from repdyn.records import Recipe

__all__ = ["RECIPES"]

_QUALITY = QualityConfig(
    dataset="fashion-mnist",
    num_train=10_000,
    samples=1500,
    sample_seeds=12,  # batches of 125: larger ones take twice as long an image on a CPU
    numbers=(250, 500, 1000, 1500),
    precision="bf16",
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
    weights=CIFAR.weights,
    dataset=CIFAR.dataset,
    embeddings=("cifar10-cnn",),
    num_train=8000,
    num_test=4000,
    samples=1000,
    sample_seeds=8,
    numbers=(250, 500, 1000),
)
_CIFAR_QUALITY_SLICE = replace(
    _QUALITY_SLICE,
    weights=CIFAR.weights,
    dataset=CIFAR.dataset,
    embeddings=_CIFAR_QUALITY.embeddings,
    num_reference=1000,
    num_train=600,
    num_test=300,
    samples=120,
    numbers=(120,),
)

RECIPES: tuple[Recipe, ...] = (
    Recipe("fashion-generation", measure, _QUALITY, _QUALITY_SLICE),
    Recipe("cifar10-generation", measure, _CIFAR_QUALITY, _CIFAR_QUALITY_SLICE),
)
