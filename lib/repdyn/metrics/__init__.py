"""Distances and likeness of samples or features, retained detail, segmentation, copies, subspaces, predictions."""

from repdyn.metrics.alignment import linear_cka
from repdyn.metrics.detail import retained_power, scatter_shares
from repdyn.metrics.frechet import frechet_bias, frechet_from_moments, frechet_of_posterior
from repdyn.metrics.matching import Match, clustering_accuracy, match_subspaces
from repdyn.metrics.memorisation import Memorisation, memorised
from repdyn.metrics.predictions import calibration_error, error_correlation
from repdyn.metrics.segmentation import class_iou, confusion, iou_of_confusion, mean_iou
from repdyn.metrics.subspaces import ClassMoments, class_bases, projected_csnr
from repdyn.metrics.wasserstein import SlicedWasserstein, sliced_wasserstein

__all__ = [
    "ClassMoments",
    "Memorisation",
    "Match",
    "SlicedWasserstein",
    "calibration_error",
    "class_bases",
    "class_iou",
    "clustering_accuracy",
    "confusion",
    "error_correlation",
    "frechet_bias",
    "frechet_from_moments",
    "frechet_of_posterior",
    "iou_of_confusion",
    "linear_cka",
    "match_subspaces",
    "mean_iou",
    "memorised",
    "projected_csnr",
    "retained_power",
    "scatter_shares",
    "sliced_wasserstein",
]
