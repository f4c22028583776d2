"""Distances between sets of samples or features, segmentation scores, copies, the class subspaces behind a CSNR."""

from repdyn.metrics.frechet import FrechetDistance, frechet_distance, frechet_from_moments
from repdyn.metrics.memorisation import Memorisation, memorised
from repdyn.metrics.segmentation import class_iou, confusion, iou_of_confusion, mean_iou
from repdyn.metrics.subspaces import ClassMoments, class_bases, projected_csnr
from repdyn.metrics.wasserstein import SlicedWasserstein, sliced_wasserstein

__all__ = [
    "ClassMoments",
    "FrechetDistance",
    "Memorisation",
    "SlicedWasserstein",
    "class_bases",
    "class_iou",
    "confusion",
    "frechet_distance",
    "frechet_from_moments",
    "iou_of_confusion",
    "mean_iou",
    "memorised",
    "projected_csnr",
    "sliced_wasserstein",
]
