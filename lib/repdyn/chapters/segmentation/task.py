"""Which images a segmentation is measured on: labelled sets, validation and test images, none in two of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repdyn import datasets
from repdyn.chapters.segmentation import pixels
from repdyn.chapters.segmentation.config import PixelCurveConfig
from repdyn.images import ImageSet, to_unit_range

__all__ = ["PixelTask", "draw", "some_pixels"]


class PixelTask(NamedTuple):
    """All images that are used, and where in them the labelled sets, the validation and the test images are."""

    images: Tensor  # (N, C, H, W)
    masks: Tensor  # (N, H, W)
    classes: tuple[str, ...]
    labelled: list[slice]
    validation: slice
    test: slice


def draw(config: PixelCurveConfig) -> PixelTask:
    """Draw the images of ``config`` from its seed, classes in equal numbers where an image has one."""
    train, test = (datasets.load(config.dataset, split) for split in ("train", "test"))
    sizes = [config.num_validation, *[config.num_labelled] * config.splits]
    parts = _disjoint(_strata(train), sizes, config.seed)
    allowed = _apart(test.images, train.images, config.apart)
    wanted = len(allowed) if config.num_test is None else config.num_test
    chosen = allowed[_disjoint(_strata(test)[allowed], [wanted], config.seed)[0]].sort().values
    masks, classes = pixels.masks(train, config.threshold)
    test_masks, _ = pixels.masks(test, config.threshold)
    drawn = torch.cat(parts)
    bounds = np.cumsum([0, *sizes, wanted]).tolist()
    validation, *labelled, last = (slice(*pair) for pair in zip(bounds[:-1], bounds[1:], strict=True))
    images = torch.cat([train.images[drawn], test.images[chosen]])
    return PixelTask(images, torch.cat([masks[drawn], test_masks[chosen]]), classes, labelled, validation, last)


def _apart(images: Tensor, others: Tensor, least: float | None) -> Tensor:
    """Indices of the images that are no nearly identical copy of one of ``others``."""
    if least is None:
        return torch.arange(len(images))
    x, y = (to_unit_range(part).flatten(1) for part in (images, others))
    return (torch.cdist(x, y).min(1).values >= least * x.shape[1] ** 0.5).nonzero().flatten()


def _strata(data: ImageSet) -> Tensor:
    """Classes to draw images from in equal numbers: theirs, or one for all where the labels are masks."""
    return data.labels if data.labels.ndim == 1 else torch.zeros(len(data.labels), dtype=torch.int64)


def _disjoint(strata: Tensor, sizes: list[int], seed: int) -> list[Tensor]:
    """Sets of indices of these sizes that share none."""
    rest, parts = torch.arange(len(strata)), []
    for size in sizes:
        chosen, others = datasets.stratified_split(strata[rest], size, seed)
        parts.append(rest[chosen])
        rest = rest[others]
    return parts


def some_pixels(config: PixelCurveConfig, num: int, split: int) -> Tensor:
    """Indices of as many pixels as the configuration asks for, the same ones at every noise level."""
    per_image = num // config.num_labelled
    wanted = min(config.pixels_per_image or per_image, per_image)
    generator = torch.Generator().manual_seed(config.seed + split)
    order = torch.rand(config.num_labelled, per_image, generator=generator).argsort(1)[:, :wanted]
    return (order + torch.arange(config.num_labelled)[:, None] * per_image).flatten()
