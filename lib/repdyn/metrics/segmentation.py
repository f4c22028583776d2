"""Intersection over union of segmentations, accumulated over all pixels of a set."""

from __future__ import annotations

import numpy as np
import torch

from repdyn import _checks

__all__ = ["class_iou", "mean_iou"]


def mean_iou(pred: object, target: object, num_classes: int, ignore_index: int | None = None) -> float:
    """Mean of :func:`class_iou` over the classes that occur in ``pred`` or ``target``; takes the same arguments."""
    return float(np.nanmean(class_iou(pred, target, num_classes, ignore_index)))


def class_iou(pred: object, target: object, num_classes: int, ignore_index: int | None = None) -> np.ndarray:
    """Intersection over union of each class, (num_classes,): over all pixels together, not image by image.

    ``pred`` and ``target`` are integers in 0..num_classes-1, of one shape. Pixels whose target is ``ignore_index`` do
    not count, whatever was predicted there. A class that occurs in neither is NaN.

    Raises ``ValueError`` for other shapes, types or classes, or when every pixel is ignored.
    """
    num_classes = _checks.integer("num_classes", num_classes, 1)
    pred, target = torch.as_tensor(pred), torch.as_tensor(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have one shape, got {tuple(pred.shape)} and {tuple(target.shape)}")
    pred, target = pred.cpu().numpy().ravel(), target.cpu().numpy().ravel()
    if ignore_index is not None:
        pred, target = pred[target != ignore_index], target[target != ignore_index]
    if not len(target):
        raise ValueError("target has no pixel to score: all are ignored, or there is none")
    for name, labels in (("pred", pred), ("target", target)):
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"{name} must hold integers in 0..{num_classes - 1}, got {labels.dtype} in {labels.min()}.."
                f"{labels.max()}: pass class indices, or an ignore_index"
            )
    counts = np.bincount(target.astype(np.int64) * num_classes + pred, minlength=num_classes**2)
    confusion = counts.reshape(num_classes, num_classes)  # (target, pred)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return np.where(union > 0, np.diag(confusion) / np.maximum(union, 1), np.nan)
