"""A nearest-neighbour probe, which has nothing to train."""

from __future__ import annotations

from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer

from repdyn import _checks

__all__ = ["KNNProbe"]


def KNNProbe(n_neighbors: int = 20) -> Pipeline:
    """The majority among the ``n_neighbors`` training features nearest in cosine distance, as a pipeline to be fitted.

    Features (N, D) are brought to length one, where the Euclidean order is that of the cosine. Take a mean that all
    features share off before: it makes every cosine close to one.

    Raises ``ValueError`` for fewer than one neighbour.
    """
    n_neighbors = _checks.integer("n_neighbors", n_neighbors, 1)
    return make_pipeline(Normalizer(), KNeighborsClassifier(n_neighbors, algorithm="brute"))
