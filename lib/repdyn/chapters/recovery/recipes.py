"""The records of Chapter 7: recovery by method and world, and clusters of real images."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.recovery import clusters, measure
from repdyn.chapters.recovery.clusters import ClusterConfig
from repdyn.chapters.recovery.measure import RecoveryConfig, SubspaceWorld
from repdyn.records import Recipe
from repdyn.records.variants import grid

__all__ = ["RECIPES"]

_COMPARED = ("even", "0.3", "k-subspaces")
_LEVELS = ("0.1", "0.2", "0.3", "0.5", "0.7", "1.0", "2.0")
_OTHERS = ("ddpm", "edm", "even", "anneal", "k-subspaces", "em", "k-subspaces first", "wide", "alike")
_RECOVERY = RecoveryConfig(
    variants=(
        *grid(method=(*_LEVELS, *_OTHERS)),
        *grid(n=(20, 200), method=_COMPARED),
        *grid(d=(1, 2, 10), method=_COMPARED),
        *grid(K=(2, 5, 8), method=_COMPARED),
        *grid(num=(200, 500, 8000), method=_COMPARED),
        *grid(overlap=(0.3, 0.6, 0.8), method=_COMPARED),
        *grid(delta=(0.05, 0.1, 0.35, 0.5), method=("0.1", "0.3", "1.0", "even", "k-subspaces")),
        *grid(d=(2,), method=("alike", "wide")),
        *grid(K=(5, 8), method=("alike", "wide")),
    ),
)
# Well apart, so that the last bit of a processor's sum decides no start: angles are far from the bound on both sides.
_RECOVERY_SLICE = RecoveryConfig(
    SubspaceWorld(n=12, d=2, K=2, num=500),
    (*grid(method=("0.3", "k-subspaces")), *grid(num=(2000,), method=("0.3",))),
    worlds=1,
    starts=3,
    steps=300,
)


_CLUSTERS = ClusterConfig()
_CLUSTERS_SLICE = replace(_CLUSTERS, num=1500, dims=(2,), schedules=("0.3",), starts=2, steps=60)

RECIPES: tuple[Recipe, ...] = (
    Recipe("recovery-phase", measure.measure, _RECOVERY, _RECOVERY_SLICE),
    Recipe("fashion-clusters", clusters.measure, _CLUSTERS, _CLUSTERS_SLICE),
)
