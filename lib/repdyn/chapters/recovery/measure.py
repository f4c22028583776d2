"""How often, and how well, training recovers the subspaces of a noisy MoLRG, by noise schedule and by world."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from repdyn.metrics import class_bases, match_subspaces
from repdyn.networks import MoLRGStarts
from repdyn.records import sweeps
from repdyn.records.variants import Variant, expand, grid
from repdyn.theory.molrg import NoisyMoLRG
from repdyn.theory.subspaces import alternate, overlapping, random_bases
from repdyn.training import DDPMSteps, EDMWeight, EpsilonWeight, Listed, NoWeight, Step, TrainConfig, train

__all__ = [
    "EVEN_LEVELS",
    "RecoveryConfig",
    "SubspaceWorld",
    "Trial",
    "dataset",
    "measure",
    "paired_difference",
    "phases",
    "start_losses",
    "success",
    "train_starts",
]

EVEN_LEVELS = tuple(float(sigma) for sigma in np.geomspace(0.05, 5, 40).round(4))
_ANNEALING = (2.0, 1.4, 1.0, 0.7, 0.5, 0.3)
_RECOVERED = 0.5  # radians: angles are below about 0.3 or above 1, as the chapter shows
_JUDGING_LEVELS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class SubspaceWorld:
    """A noisy MoLRG in R^n with K subspaces of dimension d, cosines ``overlap`` between them, and ``num`` samples."""

    n: int = 50
    d: int = 5
    K: int = 3
    delta: float = 0.2
    overlap: float = 0.0
    num: int = 2000
    seed: int = 0

    def model(self) -> NoisyMoLRG:
        """The distribution."""
        return overlapping(self.n, self.d, self.K, self.delta, self.overlap, self.seed)


@dataclass(frozen=True)
class Trial(SubspaceWorld):
    """A world, and the ``method`` by which its subspaces are looked for."""

    method: str = "0.3"


@dataclass(frozen=True)
class RecoveryConfig:
    """What is measured: ``variants`` of a :class:`Trial` in ``world``."""

    world: SubspaceWorld = SubspaceWorld()
    """The data. Its ``seed`` is that of the first draw."""
    variants: tuple[Variant, ...] = grid(method=("even", "0.3", "k-subspaces", "em"))
    """What a variant does not change stays as in ``world``. A method is a schedule of :func:`phases`; 'k-subspaces' or
    'em', from random starts; 'k-subspaces first', which trains from what k-subspaces finds; 'wide', which trains twice
    as many subspaces; or 'alike', where all subspaces of a start begin close to each other; these three on
    ``remedy_schedule``."""
    remedy_schedule: str = "0.3"
    """Schedule of the methods 'k-subspaces first', 'wide' and 'alike'."""
    worlds: int = 2
    """Draws of the subspaces and the data, everywhere."""
    starts: int = 10
    """Random starts of each draw."""
    steps: int = 600
    """Steps of a training, of all phases together."""
    batch_size: int = 128
    """Samples of one step."""
    learning_rate: float = 2e-2
    """Adam's, from the first step on."""
    seed: int = 0
    """Draws the starts, the noise and the order of the samples."""


def phases(schedule: str) -> list[dict[str, Any]]:
    """Fields of a :class:`repdyn.training.TrainConfig` that make a noise schedule, one entry for each phase.

    A number is that noise level alone. 'even': :data:`EVEN_LEVELS`, even in log sigma, error over sigma^2, which is
    maximum likelihood; 'ddpm': a DDPM's time steps and weights; 'edm': EDM's levels and weights; 'anneal': one level
    after the other, from high to low. Raises ``ValueError`` for anything else.

    Equation: ``eq-likelihood-weighting``
    """
    if schedule == "anneal":
        return [{"levels": Listed((sigma,)), "weighting": NoWeight()} for sigma in _ANNEALING]
    known: dict[str, dict[str, Any]] = {
        "even": {"levels": Listed(EVEN_LEVELS), "weighting": EpsilonWeight()},
        "ddpm": {"levels": DDPMSteps(), "weighting": EpsilonWeight()},
        "edm": {"weighting": EDMWeight()},
    }
    if schedule in known:
        return [known[schedule]]
    try:
        return [{"levels": Listed((float(schedule),)), "weighting": NoWeight()}]
    except ValueError:
        names = ", ".join(map(repr, known))
        raise ValueError(f"schedule must be a number, 'anneal', {names}, got {schedule!r}") from None


def train_starts(
    denoiser: MoLRGStarts,
    data: Tensor,
    schedule: str,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 2e-2,
    seed: int = 0,
) -> Iterator[Step]:
    """Train all starts of ``denoiser`` on ``data``, (N, n) for all of them or (N, S, n), yielding every step.

    ``steps`` is that of all :func:`phases` together. Plain Adam; ``step.ema`` is the average over the last twenty steps
    or so. Raises ``ValueError`` for an unknown schedule.
    """
    if data.ndim == 2:
        data = data[:, None].expand(-1, denoiser.starts, -1)
    parts = phases(schedule)
    for index, part in enumerate(parts):
        config = TrainConfig(
            dataset="molrg",
            network=None,
            images=steps // len(parts) * batch_size,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_images=0,
            ema_halflife_images=20 * batch_size,
            grad_clip=math.inf,  # a common clip would tie the starts together
            precision="float32",
            seed=seed + index,
            **part,
        )
        for step in train(config, denoiser=denoiser, data=data, cpu=True):
            yield replace(step, step=step.step + index * (steps // len(parts)))
        denoiser = step.denoiser


def start_losses(denoiser: MoLRGStarts, data: Tensor, seed: int = 0) -> Tensor:
    """Error over sigma^2 of every start (S,), a number, averaged over ``data``, (N, n) or (N, S, n), and six levels.

    All starts see the same noise, so that their losses can be compared.
    """
    data = data[:, None].expand(-1, denoiser.starts, -1) if data.ndim == 2 else data
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(())
    with torch.no_grad():
        for sigma in _JUDGING_LEVELS:
            noise = torch.randn(len(data), 1, data.shape[2], generator=generator).expand_as(data)
            error = denoiser(data + sigma * noise, sigma) - data
            total = total + error.square().mean((0, 2)) / sigma**2
    return total / len(_JUDGING_LEVELS)


def success(angles: object) -> float:
    """Share of starts that found every subspace: whose largest angle is below half a radian; NaN for NaN.

    ``angles`` may have any shape, such as (world, start).
    """
    angles = np.asarray(angles)
    return float("nan") if np.isnan(angles).any() else float((angles < _RECOVERED).mean())


def dataset(result: dict[str, Any], config: RecoveryConfig) -> xr.Dataset:
    """What :func:`measure` returned for ``config``, its axes by name: ``approach``, ``setting``, ``world``, ``start``.

    An approach is a method. ``angles`` and ``losses`` have all four axes, ``oracle`` the first three. A setting is
    called 'base' or by what changed, as in 'num=400', and has the fields of its :class:`SubspaceWorld` as coordinates.
    NaN stands where nothing was measured, and for the losses of a method that is not trained.
    """
    settings = {_called(cell["changed"]): asdict(config.world) | cell["changed"] for cell in result["cells"]}
    methods = list(dict.fromkeys(cell["method"] for cell in result["cells"]))
    shape = (len(methods), len(settings), config.worlds, config.starts)
    found = {key: np.full(shape, np.nan) for key in ("angles", "losses")} | {"oracle": np.full(shape[:3], np.nan)}
    for cell in result["cells"]:
        place = methods.index(cell["method"]), list(settings).index(_called(cell["changed"]))
        for key, values in found.items():
            if cell[key] is not None:
                values[place] = np.reshape(cell[key], values.shape[2:])
    axes = ("approach", "setting", "world", "start")
    fields = {name: ("setting", [world[name] for world in settings.values()]) for name in asdict(config.world)}
    return xr.Dataset(
        {key: (axes[: values.ndim], values) for key, values in found.items()},
        {"approach": methods, "setting": list(settings), **fields},
    )


def _called(changed: dict[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in changed.items()) or "base"


def paired_difference(data: xr.Dataset, first: str, second: str) -> tuple[float, float]:
    """Mean success rate of ``first`` less that of ``second``, and its standard error over pairs.

    ``data`` is a :func:`dataset`. A pair is one of its worlds in a setting where both were measured: the same data and,
    for trainings, the same starts. Raises ``ValueError`` when there are fewer than two pairs.
    """
    rates = (data.angles < _RECOVERED).mean("start").where(data.angles.notnull().all("start"))
    ours, theirs = (rates.sel(approach=method).values for method in (first, second))  # (setting, world)
    differences = (ours - theirs)[~np.isnan(ours - theirs)]
    if len(differences) < 2:
        raise ValueError(f"{first!r} and {second!r} were measured side by side in fewer than two worlds")
    return float(np.mean(differences)), float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def measure(
    config: RecoveryConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """Recovery from random starts, cell by cell: ``{"cells": [...]}``, plain numbers and lists.

    A cell has what ``changed`` in the world, a ``method``, for every start its largest principal ``angles``, and, of a
    trained one, its ``losses`` divided by that of the true bases. The starts of one world follow those of another;
    ``oracle`` is for each world the angle that principal components of the labelled classes reach. Cells are the runs
    of a :func:`repdyn.records.sweeps.run`: with ``cache``, a folder, they are kept there one by one.
    """
    plan = replace(config, variants=())  # a cell does not depend on them: with more of them the others stand
    runs = expand(Trial(**asdict(config.world)), config.variants)
    cells = [_Cell(plan, run.config, run.variant.changes) for run in runs]
    return {"cells": sweeps.run(_cell, cells, cache=cache, progress=progress, desc="recovery")}


class _Cell(NamedTuple):
    config: RecoveryConfig
    trial: Trial
    changes: tuple[tuple[str, Any], ...]


def _cell(cell: _Cell, _folder: Path | None) -> dict[str, Any]:
    config, trial, method = cell.config, cell.trial, cell.trial.method
    worlds = [replace(trial, seed=trial.seed + 1000 * i) for i in range(config.worlds)]
    models = [world.model() for world in worlds]
    samples = [model.sample(world.num, world.seed + 1) for model, world in zip(models, worlds)]
    true = [torch.stack(model.bases) for model in models]
    supervised = [class_bases(data, labels, trial.d) for data, labels in samples]
    result: dict[str, Any] = {
        "changed": {name: value for name, value in cell.changes if name != "method"},
        "method": method,
    }
    result |= {"oracle": [_angle(bases, target) for bases, target in zip(supervised, true)], "losses": None}
    if method in ("k-subspaces", "em"):
        found = torch.cat([_alternated(config, world, data, method) for world, (data, _) in zip(worlds, samples)])
    else:
        data = torch.stack([x.float() for x, _ in samples], dim=1).repeat_interleave(config.starts, 1)  # (N, S, n)
        trained = _trained(config, worlds, data, method)
        found = trained.bases.detach()
        judge = MoLRGStarts(len(found), worlds[0].n, worlds[0].d, worlds[0].K, worlds[0].delta)
        judge.bases = torch.stack(true).repeat_interleave(config.starts, 0)
        result["losses"] = (start_losses(trained, data[:1000]) / start_losses(judge, data[:1000])).tolist()
    return result | {"angles": [_angle(bases, true[i // config.starts]) for i, bases in enumerate(found)]}


def _trained(config: RecoveryConfig, worlds: Sequence[SubspaceWorld], data: Tensor, method: str) -> MoLRGStarts:
    world, remedy = worlds[0], method in ("wide", "alike", "k-subspaces first")
    K = world.K * (2 if method == "wide" else 1)
    alike = 0.1 if method == "alike" else None
    denoiser = MoLRGStarts(data.shape[1], world.n, world.d, K, world.delta, seed=config.seed, alike=alike)
    if method == "k-subspaces first":
        apart = data[:, :: config.starts].unbind(1)
        denoiser.bases = torch.cat([_alternated(config, world, x, "k-subspaces") for x in apart])
    *_, step = train_starts(
        denoiser,
        data,
        config.remedy_schedule if remedy else method,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    return step.ema


def _alternated(config: RecoveryConfig, world: SubspaceWorld, data: Tensor, method: str) -> Tensor:
    """Bases (starts, K, n, d)."""
    first = [random_bases(world.K, world.n, world.d, config.seed + 1000 + start) for start in range(config.starts)]
    return torch.stack([alternate(data, b, delta=world.delta if method == "em" else None).bases for b in first])


def _angle(found: Tensor, true: Tensor) -> float:
    return float(match_subspaces(found, true).angles.max())
