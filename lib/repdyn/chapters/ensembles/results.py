"""The results of ``measure.measure``, read: one entry, one table of scores, several trainings together."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["entry", "pooled", "table"]


def entry(metrics: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    """The entry of ``source`` on ``target`` in what ``measure`` returned; ``ValueError`` if there is none."""
    for found in metrics["results"]:
        if (found["source"], found["target"]) == (source, target):
            return found
    there = ", ".join(f"{found['source']} on {found['target']}" for found in metrics["results"])
    raise ValueError(f"there is no {source} on {target}: choose from {there}")


def table(found: dict[str, Any], row: str = "best", score: str = "accuracy") -> np.ndarray:
    """One score of one row of an entry, (shares, label seeds), shares in rising order; NaN for None.

    Of a :func:`pooled` entry (shares, label seeds times trainings), a seed's trainings side by side.
    """
    runs = sorted(found["runs"], key=lambda run: (run["share"], run["seed"]))
    values = np.array([run[row][score] for run in runs], dtype=float)
    return values.reshape(len({run["share"] for run in runs}), -1)


def pooled(first: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """``first`` with the runs of ``others``, results of ``measure`` with other trainings, put to its own.

    A source that was not trained again keeps the runs it has. Raises ``ValueError`` for a source on a target that is
    not in ``first``, and for one whose shares of wrong labels or label seeds are others.
    """
    runs = {(found["source"], found["target"]): list(found["runs"]) for found in first["results"]}
    for other in others:
        for found in other["results"]:
            source, target = found["source"], found["target"]
            expected = {_drawing(run) for run in entry(first, source, target)["runs"]}
            if {_drawing(run) for run in found["runs"]} != expected:
                raise ValueError(f"{source} on {target} was measured with other shares or label seeds")
            runs[source, target] += found["runs"]
    return {"results": [{**found, "runs": runs[found["source"], found["target"]]} for found in first["results"]]}


def _drawing(run: dict[str, Any]) -> tuple[float, int]:
    return run["share"], run["seed"]
