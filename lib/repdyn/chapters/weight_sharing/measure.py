"""One diffusion model against a DAE for every noise level: a sweep of trainings, and what is read from it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from repdyn.chapters.weight_sharing.runs import DAEConfig, measure, pixels
from repdyn.metrics import linear_cka, sliced_wasserstein
from repdyn.noise import PAPER_SIGMAS
from repdyn.records import sweeps

__all__ = [
    "SharingConfig",
    "at_best_level",
    "at_own_layer",
    "dataset",
    "measure_sharing",
    "reading",
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
    families: dict[str, dict[str, Any]] = {}
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


def dataset(result: dict[str, Any]) -> xr.Dataset:
    """What :func:`measure_sharing` returned, its axes by name.

    These are ``family``, ``kind``, ``stage`` ('early', 'end'), ``seed``, ``layer`` and ``sigma``, as far as a variable
    has them; the likeness of features is that at the end, and ``seeds_apart`` has the axis ``likeness``. ``untrained``
    (layer, sigma) is a test accuracy, ``pixels`` a number. NaN stands for a kind that a family does not have.
    """
    families = [
        _concat([_kind(found) for found in kinds.values()], xr.Variable("kind", list(kinds)))
        for kinds in result["families"].values()
    ]
    data = _concat(families, xr.Variable("family", list(result["families"])))
    data = data.assign_coords(layer=result["layers"], sigma=result["sigmas"], likeness=list(_LIKENESS))
    untrained = (("layer", "sigma"), np.array(result["untrained"]["test"]))
    return data.assign(untrained=untrained, pixels=result["pixels"])


def _kind(found: dict[str, Any]) -> xr.Dataset:
    stages = [reading(found["early"], "seed"), reading(found, "seed")]
    apart = [np.nan] * len(_LIKENESS) if found["seeds_apart"] is None else found["seeds_apart"]
    data = _concat(stages, xr.Variable("stage", ["early", "end"]))
    data = data.assign({key: (("seed", "sigma"), np.array(found[key])) for key in _LIKENESS})
    return data.assign(best=("seed", found["best"]), seeds_apart=("likeness", list(apart)))


def reading(found: dict[str, Any], *first: str) -> xr.Dataset:
    """Lists that were read of a model, with the axes ``layer`` and ``sigma``, and before them those called ``first``.

    ``found`` is a checkpoint of :func:`repdyn.chapters.weight_sharing.runs.measure`, or a row of
    :func:`repdyn.chapters.dae_ablations.measure.measure_ablations`, whose first axis is the seed.
    """
    axes: dict[str, tuple[str, ...]] = {"images": ()}
    axes |= dict.fromkeys(("validation", "test"), ("layer", "sigma"))
    axes |= dict.fromkeys(("error", "change", "jacobian"), ("sigma",))
    return xr.Dataset({key: ((*first, *dims), np.array(found[key])) for key, dims in axes.items() if key in found})


def _concat(parts: list[xr.Dataset], dim: xr.Variable) -> xr.Dataset:
    return xr.concat(parts, dim, data_vars="all", coords="minimal", compat="override", join="outer")


def at_best_level(found: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Test accuracies at the level that validation images choose, and that level's index; all axes but ``sigma`` stay.

    ``found`` has ``validation`` and ``test`` of one layer, such as (seed, sigma).
    """
    best = found.validation.argmax("sigma")
    return found.test.isel(sigma=best), best


def at_own_layer(found: xr.Dataset, *, one_model: bool) -> xr.DataArray:
    """Test accuracies in the layer that validation images choose; all axes but ``layer`` stay.

    ``found`` has ``validation`` and ``test``, such as (seed, layer, sigma). A DAE is a model of its own at each level,
    with a layer of its own; ``one_model`` for all levels has one layer, the one that is best at any of them.
    """
    validation = found.validation.max("sigma") if one_model else found.validation
    return found.test.isel(layer=validation.argmax("layer"))


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


def _joined(runs: list[dict[str, Any]]) -> tuple[xr.Dataset, list[Tensor]]:
    """Runs that were each read at some levels, as one that was read at all: (stage, layer, sigma); and its features."""
    stages = zip(*(run["checkpoints"] for run in runs), strict=True)
    parts = [xr.concat(map(reading, stage), "sigma", data_vars="minimal", **_EQUAL) for stage in stages]
    kept = [torch.tensor(level, dtype=torch.float64) for run in runs for level in run["kept"]]
    return xr.concat(parts, "stage", data_vars="all", **_EQUAL), [standardised(level) for level in kept]


_EQUAL: dict[str, Any] = {"coords": "minimal", "compat": "equals", "join": "exact"}


def _summary(runs: list[tuple[xr.Dataset, list[Tensor]]], config: SharingConfig) -> dict[str, Any]:
    """The runs of one kind, a seed each, as lists by seed."""
    data = xr.concat([run for run, _ in runs], "seed", data_vars="all", **_EQUAL)  # (seed, stage, layer, sigma)
    early, end = data.isel(stage=0), data.isel(stage=-1)
    best = end.validation.isel(layer=data.sizes["layer"] // 2).argmax("sigma").values.tolist()
    if config.reference is not None:
        best = [config.sigmas.index(config.reference)] * len(runs)
    tops = [kept[top] for (_, kept), top in zip(runs, best, strict=True)]
    apart = [
        [_likeness(top, level, config.projections) for level in kept] for (_, kept), top in zip(runs, tops, strict=True)
    ]
    return {
        **{str(key): values.values.tolist() for key, values in end.items()},
        "early": {str(key): values.values.tolist() for key, values in early.items()},
        "best": best,
        **{key: [[level[i] for level in one] for one in apart] for i, key in enumerate(_LIKENESS)},
        "seeds_apart": _likeness(tops[0], tops[1], config.projections) if len(tops) > 1 else None,
    }


_LIKENESS = ("distance", "distance_error", "cka")


def _likeness(x: Tensor, y: Tensor, projections: int) -> tuple[float, float, float]:
    distance = sliced_wasserstein(x, y, projections, normalisation="dimension", seed=0)
    return (*distance, linear_cka(x, y))
