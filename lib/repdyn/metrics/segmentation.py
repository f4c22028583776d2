"""Confusion counts of segmentations, and the scores made of them: intersection over union, pixel accuracy."""

from __future__ import annotations

import numpy as np
import torch

from repdyn import _checks

__all__ = ["class_iou", "confusion", "iou_of_confusion", "mean_iou"]


def mean_iou(pred: object, target: object, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean of :func:`class_iou` over the classes that occur in ``pred`` or ``target``; takes the same arguments."""
    return float(np.nanmean(class_iou(pred, target, num_classes, ignore_index)))


def class_iou(pred: object, target: object, num_classes: int, ignore_index: int | None = None) -> np.ndarray:
    """Intersection over union of each class, (num_classes,): over all pixels together, not image by image.

    A class that occurs in neither ``pred`` nor ``target`` is NaN. Arguments and errors are those of :func:`confusion`;
    when every pixel is ignored, that is a ``ValueError`` too.

    Equation: ``eq-iou``
    """
    counts = confusion(pred, target, num_classes, ignore_index)
    if not counts.sum():
        raise ValueError("target has no pixel to score: all are ignored, or there is none")
    return iou_of_confusion(counts)


def iou_of_confusion(counts: np.ndarray) -> np.ndarray:
    """Intersection over union (..., K) of each class, from counts (..., K, K) whose rows are the true classes.

    Counts of several images add: sum them first for the score of a set. A class with neither pixels nor predictions is
    NaN.

    Equation: ``eq-iou``
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(-1) + counts.sum(-2) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def confusion(pred: object, target: object, num_classes: int, ignore_index: int | None = None) -> np.ndarray:
    """How many pixels of each true class (rows) were given to each class (columns): int64 (num_classes, num_classes).

    ``pred`` and ``target`` are integers in 0..num_classes-1, of one shape. Pixels whose target is ``ignore_index`` do
    not count, whatever was predicted there.

    Raises ``ValueError`` for other shapes, types or classes.
    """
    num_classes = _checks.integer("num_classes", num_classes, 1)
    pred, target = torch.as_tensor(pred), torch.as_tensor(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have one shape, got {tuple(pred.shape)} and {tuple(target.shape)}")
    given, true = pred.cpu().numpy().ravel(), target.cpu().numpy().ravel()
    if ignore_index is not None:
        given, true = given[true != ignore_index], true[true != ignore_index]
    for name, labels in (("pred", given), ("target", true)):
        if len(labels) and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_classes):
            raise ValueError(
                f"{name} must hold integers in 0..{num_classes - 1}, got {labels.dtype} in {labels.min()}.."
                f"{labels.max()}: pass class indices, or an ignore_index"
            )
    places = true.astype(np.int64) * num_classes + given.astype(np.int64)
    return np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)
