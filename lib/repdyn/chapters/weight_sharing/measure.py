"""One diffusion model against a DAE for every noise level: a sweep of trainings, and what is read from it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repdyn.chapters.weight_sharing.runs import DAEConfig, measure, pixels
from repdyn.metrics import linear_cka, sliced_wasserstein
from repdyn.noise import PAPER_SIGMAS
from repdyn.records import sweeps

__all__ = [
    "SharingConfig",
    "at_best_level",
    "at_own_layer",
    "measure_sharing",
    "standardised",
]


@dataclass(frozen=True)
class SharingConfig:
    """One diffusion model against DAEs of its network, one at each of ``sigmas``, with equally many images each."""

    base: DAEConfig = DAEConfig()
    """All else of every model."""
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    """Noise levels: each has a DAE of its own, and the diffusion model is read there."""
    families: tuple[str, ...] = ("vp", "edm", "none")
    """Preconditionings of :class:`repdyn.chapters.weight_sharing.runs.DAEConfig`, each with both kinds of model."""
    long: tuple[str, ...] = ()
    """Those of the families for which a diffusion model also sees as many images as all DAEs together."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds, with each of which everything is trained."""
    projections: int = 200
    """Random directions over which the distances between features are taken."""
    reference: float | None = None
    """Distances are from the features at this one of ``sigmas``; None: from those at the level with the highest
    validation accuracy in the middle layer, of each kind and seed its own."""

    def __post_init__(self) -> None:
        if self.reference is not None and self.reference not in self.sigmas:
            raise ValueError(f"reference must be one of the sigmas {self.sigmas}, got {self.reference}")
        if not set(self.long) <= set(self.families):
            raise ValueError(f"long must be among the families {self.families}, got {self.long}")


def measure_sharing(
    config: SharingConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """Train and read all models of ``config``: plain lists, with one entry of ``families`` for each of them.

    Its 'daes' and 'diffusion' (and 'long') hold, first index the seed, then the level: what
    :func:`repdyn.chapters.weight_sharing.runs.measure` finds at the end, ``validation`` and ``test`` (seed, layer,
    level), ``error``, ``change``, ``jacobian``; the same after the early stop as ``early``; ``best``, the index of the
    level whose features in the middle layer are the reference; from there to each level ``distance`` and its Monte
    Carlo ``distance_error``, a sliced Wasserstein distance of :func:`standardised` features, and ``cka``,
    :func:`repdyn.metrics.alignment.linear_cka`. ``seeds_apart`` are these three between the references of the
    first two seeds. ``pixels`` is the accuracy of the images themselves, ``untrained`` a measurement.

    With ``cache``, a folder, runs are kept there, and an interrupted sweep goes on from them.
    """
    plans = {(f, kind, seed): _plans(config, f, kind, seed) for f in config.families for kind in _kinds(config, f)
             for seed in config.seeds}  # fmt: skip
    untrained = replace(config.base, images=0, sigmas=config.sigmas)
    flat = [one for group in plans.values() for one in group] + [untrained]
    found = dict(zip(flat, sweeps.run(measure, flat, cache=cache, progress=progress), strict=True))
    families = {}
    for family in config.families:
        families[family] = {}
        for kind in _kinds(config, family):
            runs = [_joined([found[one] for one in plans[family, kind, seed]]) for seed in config.seeds]
            families[family][kind] = _summary(runs, config)
    last = found[untrained]
    return {
        "sigmas": list(config.sigmas),
        "layers": last["layers"],
        "families": families,
        "untrained": last["checkpoints"][-1],
        "pixels": pixels(config.base),
    }


def at_best_level(found: dict[str, Any], layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracies (seed,) of one layer at the level that validation images choose, and that level's index (seed,).

    ``found`` is a kind of :func:`measure_sharing` or a row of
    :func:`repdyn.chapters.dae_ablations.measure.measure_ablations`.
    """
    validation, test = (np.array(found[key])[:, layer] for key in ("validation", "test"))  # (seed, level)
    best = validation.argmax(1)
    return np.take_along_axis(test, best[:, None], axis=1)[:, 0], best


def at_own_layer(kind: dict[str, Any], *, one_model: bool) -> np.ndarray:
    """Test accuracies (seed, level) of a kind of :func:`measure_sharing` in the layer that validation images choose.

    A DAE is a model of its own at each level, with a layer of its own; ``one_model`` for all levels has one layer, the
    one that is best at any of them.
    """
    validation, test = np.array(kind["validation"]), np.array(kind["test"])  # (seed, layer, level)
    if one_model:
        layers = np.repeat(validation.max(2).argmax(1)[:, None], validation.shape[2], axis=1)
    else:
        layers = validation.argmax(1)
    return np.take_along_axis(test, layers[:, None], axis=1)[:, 0]


def standardised(features: Tensor) -> Tensor:
    """Features (N, D) with mean 0 and variance 1 in each channel, as a probe sees them; a constant channel is 0."""
    centred = features - features.mean(0)
    scale = centred.square().mean(0).sqrt()
    return centred / torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)


def _kinds(config: SharingConfig, family: str) -> tuple[str, ...]:
    return ("daes", "diffusion", "long") if family in config.long else ("daes", "diffusion")


def _plans(config: SharingConfig, family: str, kind: str, seed: int) -> list[DAEConfig]:
    own = replace(config.base, preconditioning=family, seed=seed)
    if kind == "daes":
        return [replace(own, sigmas=(sigma,)) for sigma in config.sigmas]
    images = own.images * (len(config.sigmas) if kind == "long" else 1)
    return [replace(own, sigmas=None, read=config.sigmas, images=images)]


def _joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs that were each read at some levels, as one that was read at all of them."""
    checkpoints = []
    for stage in zip(*(run["checkpoints"] for run in runs), strict=True):
        entry = {"images": stage[0]["images"]}
        for key in ("validation", "test"):
            entry[key] = np.concatenate([one[key] for one in stage], axis=1).tolist()
        for key in ("error", "change", "jacobian"):
            entry[key] = np.concatenate([one[key] for one in stage]).tolist()
        checkpoints.append(entry)
    kept = [torch.tensor(level, dtype=torch.float64) for run in runs for level in run["kept"]]
    return {"checkpoints": checkpoints, "kept": [standardised(level) for level in kept]}


def _summary(runs: list[dict[str, Any]], config: SharingConfig) -> dict[str, Any]:
    """The runs of one kind, a seed each, as lists by seed."""
    ends, starts = ([run["checkpoints"][i] for run in runs] for i in (-1, 0))
    middle = len(ends[0]["validation"]) // 2
    best = [int(np.argmax(end["validation"][middle])) for end in ends]
    if config.reference is not None:
        best = [config.sigmas.index(config.reference)] * len(runs)
    tops = [run["kept"][top] for run, top in zip(runs, best, strict=True)]
    apart = [
        [_likeness(top, level, config.projections) for level in run["kept"]]
        for run, top in zip(runs, tops, strict=True)
    ]
    return {
        **{key: [end[key] for end in ends] for key in ends[0]},
        "early": {key: [start[key] for start in starts] for key in starts[0]},
        "best": best,
        **{key: [[level[i] for level in one] for one in apart] for i, key in enumerate(_LIKENESS)},
        "seeds_apart": _likeness(*tops[:2], config.projections) if len(tops) > 1 else None,
    }


_LIKENESS = ("distance", "distance_error", "cka")


def _likeness(x: Tensor, y: Tensor, projections: int) -> tuple[float, float, float]:
    distance = sliced_wasserstein(x, y, projections, normalisation="dimension", seed=0)
    return (*distance, linear_cka(x, y))
