"""Images as the package passes them around: uint8 sets with labels, and the unit range in which noise is measured."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repdyn import _checks

__all__ = ["ImageSet", "to_unit_range"]


class ImageSet(NamedTuple):
    """Images uint8 (N, C, H, W), labels int64, the classes' names, and a hash that identifies the content.

    Labels are (N,), or (N, H, W) for the sets with a class for every pixel.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    sha256: str


def to_unit_range(images: Tensor, pool: int = 1) -> Tensor:
    """Turn uint8 pixels 0..255 into float32 in [-1, 1], the range in which EDM's noise levels are stated.

    With ``pool`` images (N, C, H, W) are averaged over squares of ``pool`` by ``pool`` pixels; what is left over at an
    edge is dropped. Raises ``ValueError`` for another type of pixels and a ``pool`` that is not positive.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    unit = images.to(torch.float32) / 127.5 - 1
    return unit if _checks.integer("pool", pool, 1) == 1 else F.avg_pool2d(unit, pool)
