"""Clothing Co-Parsing for a small experiment: its 59 classes merged to four, its pixels averaged two by two."""

from __future__ import annotations

import numpy as np

from repdyn.datasets import _decode
from repdyn.datasets.archives import Decoded

__all__ = ["FOUR_CLASSES", "four_classes", "halve_images", "halve_labels"]

#: The merged classes. Three names of the 59 stand for themselves; all others are worn or carried, and so 'clothes'.
FOUR_CLASSES = ("background", "skin", "hair", "clothes")
_MERGED = {"null": 0, "skin": 1, "hair": 2}
_CLOTHES = 3


def four_classes(content: bytes, layout: str, split: str, num_test: int | None) -> Decoded:
    """As :func:`repdyn.datasets._decode.masked_images`, then merged to :data:`FOUR_CLASSES` and halved in size."""
    full = _decode.masked_images(content, layout, split, num_test)
    merged = np.array([_MERGED.get(name, _CLOTHES) for name in full.classes], dtype=np.uint8)
    labels = halve_labels(merged[full.labels], len(FOUR_CLASSES))
    return Decoded(halve_images(full.images), labels, FOUR_CLASSES)


def halve_images(images: np.ndarray) -> np.ndarray:
    """Means of squares of 2x2 pixels, rounded half up: uint8 (N, C, 2H, 2W) to (N, C, H, W)."""
    sums = _squares(images.astype(np.uint16)).sum(-1)  # at most 1020
    return ((sums + 2) // 4).astype(np.uint8)


def halve_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The commonest label of each square of 2x2: (N, 2H, 2W) to (N, H, W); of equally common ones the top left's."""
    squares = _squares(labels)  # (N, H, W, 4)
    votes = np.stack([(squares == k).sum(-1) for k in range(num_classes)], axis=-1)  # (N, H, W, K)
    # The top left pixel settles ties, even for a class of two votes against two: no class is favoured.
    votes = 2 * votes + (squares[..., :1] == np.arange(num_classes))
    return votes.argmax(-1).astype(labels.dtype)


def _squares(array: np.ndarray) -> np.ndarray:
    """The 2x2 squares of the last two axes, row by row: (..., 2H, 2W) to (..., H, W, 4)."""
    *lead, height, width = array.shape
    if height % 2 or width % 2:
        raise ValueError(f"images of {height}x{width} cannot be halved: pass even sizes")
    blocks = array.reshape(*lead, height // 2, 2, width // 2, 2)
    return np.moveaxis(blocks, -3, -2).reshape(*lead, height // 2, width // 2, 4)
