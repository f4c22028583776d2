"""What a Frechet distance looks at: embeddings of images by name, and a judge that measures distances in one of them.

An embedding is anything that turns float images (N, C, H, W) in [-1, 1] into features (N, D) and has a ``name``. A
distance in Inception's features may be called FID; those of the embeddings here may not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repdyn.chapters.generation.image_classifier import ImageClassifier
from repdyn.images import to_unit_range
from repdyn.metrics.frechet import frechet_bias, frechet_from_moments

__all__ = ["PIXELS", "Embedding", "Judge", "load", "of_dataset"]

#: Name of the embedding that is the image itself.
PIXELS = "pixels"


class Embedding(NamedTuple):
    """A named function from float images (N, C, H, W) in [-1, 1] to features (N, D)."""

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, D) of ``images``."""
        return self.function(images)


def load(name: str) -> Embedding:
    """The embedding called ``name``: 'pixels', or a classifier, shipped or a file, whose features it then is.

    'fashion-cnn' embeds 28x28 grey images, 'cifar10-cnn' 32x32 RGB ones. What leaves [-1, 1] is cut off for a
    classifier, as it would be in a stored image; 'pixels' is linear and cuts nothing. Raises ``ValueError`` for an
    unknown name.
    """
    if name == PIXELS:
        return Embedding(name, lambda images: images.flatten(1))
    classifier = ImageClassifier.load(name)
    return Embedding(name, lambda images: classifier.transform(images.clamp(-1, 1)))


def of_dataset(dataset: str) -> str:
    """Name of the shipped classifier of images like those of ``dataset``; ``ValueError`` if there is none."""
    for prefix, name in (("fashion-mnist", "fashion-cnn"), ("cifar10", "cifar10-cnn")):
        if dataset == prefix or dataset.startswith(f"{prefix}-"):
            return name
    raise ValueError(f"no classifier of {dataset!r} ships: name an embedding, 'pixels' or a classifier's file")


class Judge:
    """Frechet distances to a fixed set of real images in one embedding, in units of the real features' variance.

    A set that is the mean of the real features over and over has distance 1. ``real`` images are uint8, or float in
    [-1, 1]. Raises ``ValueError`` for fewer images than features, and images that the embedding does not take.
    """

    def __init__(self, embedding: Embedding, real: Tensor) -> None:
        self.embedding = embedding
        features = self._features(real)
        self.num = len(features)
        self.mean, self.covariance = self._moments(features)
        self.scale = float(np.trace(self.covariance))

    def distance(self, images: Tensor, groups: int = 10) -> tuple[float, float]:
        """Distance of a set of images, and its standard error by a jackknife over ``groups`` interleaved blocks.

        The error is that of the choice of these images at their number; the bias that comes with the number is no
        part of it: see :meth:`bias`. Raises ``ValueError`` for too few images.
        """
        found = self._features(images)
        if not 2 <= groups <= len(found):
            raise ValueError(f"groups must be between 2 and the number of images, {len(found)}, got {groups}")
        block = np.arange(len(found)) % groups
        without = np.array([self._distance(found[block != group]) for group in range(groups)])
        return self._distance(found), float(np.sqrt((groups - 1) * without.var()))

    def by_number(self, images: Tensor, numbers: Sequence[int]) -> list[tuple[float, float]]:
        """For each of ``numbers``: mean and standard deviation of the distances of disjoint sets of so many images.

        The deviation is 0 where there is one set only. Raises ``ValueError`` for a number above that of the images.
        """
        found, rows = self._features(images), []
        for num in numbers:
            parts = [found[start : start + num] for start in range(0, len(found) - num + 1, num)]
            if not parts:
                raise ValueError(f"numbers must be at most {len(found)}, the number of images, got {num}")
            values = [self._distance(part) for part in parts]
            rows.append((float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0))
        return rows

    def bias(self, num: int) -> float:
        """The distance to expect of ``num`` real images, if their features were Gaussian:
        :func:`repdyn.metrics.frechet.frechet_bias`."""
        return frechet_bias(self.covariance, num, self.num) / self.scale

    def _features(self, images: Tensor) -> np.ndarray:
        images = to_unit_range(images) if images.dtype == torch.uint8 else images
        features = self.embedding(images)
        if len(features) <= features.shape[1]:
            raise ValueError(f"{len(features)} images are too few for the {features.shape[1]} features of "
                             f"{self.embedding.name}: pass more")  # fmt: skip
        return features.cpu().double().numpy()

    def _moments(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features.mean(0), np.cov(features, rowvar=False)

    def _distance(self, features: np.ndarray) -> float:
        return frechet_from_moments(*self._moments(features), self.mean, self.covariance) / self.scale
