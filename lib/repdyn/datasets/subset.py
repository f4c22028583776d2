"""The images of a set that a measurement uses: some, drawn evenly by class, or all."""

from __future__ import annotations

from typing import Any

from repdyn import datasets
from repdyn.images import ImageSet

__all__ = ["image_subset"]


def image_subset(config: Any, split: str) -> ImageSet:
    """The images of ``config.dataset`` that a measurement uses: ``num_train`` or ``num_test``, drawn evenly by class.

    ``config`` is any object with these fields and ``seed``; a number that is None means all images of the split.
    Raises ``ValueError`` for labels of pixels, and for more images of a class than there are.
    """
    data = datasets.load(config.dataset, split)
    if data.labels.ndim != 1:
        raise ValueError(
            f"{config.dataset} labels pixels, {tuple(data.labels.shape)}: a curve needs one label an image, "
            "repdyn.chapters.segmentation.measure measures the others"
        )
    num = config.num_train if split == "train" else config.num_test
    if num is None:
        return data
    chosen, _ = datasets.stratified_split(data.labels, num, config.seed)
    return data._replace(images=data.images[chosen], labels=data.labels[chosen])
