"""Distances between sets of samples or features, segmentation scores, subspaces and clusters up to permutation."""

from repdyn.metrics.frechet import FrechetDistance, frechet_distance, frechet_from_moments
from repdyn.metrics.matching import Match, clustering_accuracy, match_subspaces
from repdyn.metrics.segmentation import class_iou, confusion, iou_of_confusion, mean_iou
from repdyn.metrics.subspaces import class_bases
from repdyn.metrics.wasserstein import SlicedWasserstein, sliced_wasserstein

__all__ = [
    "FrechetDistance",
    "Match",
    "SlicedWasserstein",
    "class_bases",
    "class_iou",
    "clustering_accuracy",
    "confusion",
    "frechet_distance",
    "frechet_from_moments",
    "iou_of_confusion",
    "match_subspaces",
    "mean_iou",
    "sliced_wasserstein",
]
