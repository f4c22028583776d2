"""The results of ``measure.measure``, read: all scores with named axes, several trainings together."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["ROWS", "dataset"]

#: What the scores are of: the best single probe, what can be made of five members, and a network's own output.
ROWS = ("best", "levels", "concatenated", "layers", "bootstrap", "draws")
_SCORES = ("accuracy", "nll", "ece", "members", "correlation")
_AXES = ("source", "target", "share", "seed", "training")


def dataset(first: dict[str, Any], *others: dict[str, Any]) -> xr.Dataset:
    """What ``measure`` returned, its axes by name: ``source``, ``target``, ``share``, ``seed``, ``training``, ``row``.

    ``training`` counts ``first`` and ``others``, the results of ``measure`` with other trainings. Variables are the
    scores of :func:`repdyn.chapters.ensembles.measure.measure_network`; ``sigma_chosen``, without ``row``; and
    ``curve``, with the axis ``sigma`` instead of it. NaN stands where nothing was measured.

    Raises ``ValueError`` for a source on a target that is not in ``first``, and for one whose shares of wrong labels or
    label seeds are others.
    """
    trainings = [first, *others]
    for other in others:
        _same_draws(first, other)
    entries = [found for result in trainings for found in result["results"]]
    axes: dict[str, list[Any]] = {key: list(dict.fromkeys(found[key] for found in entries)) for key in _AXES[:2]}
    axes |= {key: sorted({run[key] for found in entries for run in found["runs"]}) for key in _AXES[2:4]}
    axes |= {"training": list(range(len(trainings))), "row": list(ROWS)}
    axes |= {"sigma": sorted({sigma for found in entries for sigma in found.get("sigmas") or ()})}

    def empty(*dims: str) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, np.full([len(axes[dim]) for dim in dims], np.nan)

    data = {score: empty(*_AXES, "row") for score in _SCORES}
    data |= {"sigma_chosen": empty(*_AXES), "curve": empty(*_AXES, "sigma")}
    for training, result in enumerate(trainings):
        for found in result["results"]:
            levels = [axes["sigma"].index(sigma) for sigma in found.get("sigmas") or ()]
            for run in found["runs"]:
                names: dict[str, Any] = {
                    "source": found["source"],
                    "target": found["target"],
                    "training": training,
                    **run,
                }
                place = tuple(axes[dim].index(names[dim]) for dim in _AXES)
                for row, score in ((row, score) for row in ROWS if row in run for score in _SCORES):
                    data[score][1][(*place, ROWS.index(row))] = _number(run[row].get(score))
                if levels:
                    data["curve"][1][place][levels] = run["curve"]
                    data["sigma_chosen"][1][place] = _number(run["sigma"])
    return xr.Dataset(data, axes)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _same_draws(first: dict[str, Any], other: dict[str, Any]) -> None:
    def drawn(result: dict[str, Any]) -> dict[tuple[str, str], set[tuple[float, int]]]:
        return {
            (found["source"], found["target"]): {(run["share"], run["seed"]) for run in found["runs"]}
            for found in result["results"]
        }

    expected = drawn(first)
    for (source, target), draws in drawn(other).items():
        if (source, target) not in expected:
            there = ", ".join(" on ".join(pair) for pair in expected)
            raise ValueError(f"there is no {source} on {target}: choose from {there}")
        if draws != expected[source, target]:
            raise ValueError(f"{source} on {target} was measured with other shares or label seeds")
