"""Repairs of a DAE of one low noise level: a sweep over them, and its table."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Any

from repdyn.chapters.weight_sharing.measure import at_best_level, reading
from repdyn.chapters.weight_sharing.runs import DAEConfig, measure, pixels
from repdyn.noise import PAPER_SIGMAS
from repdyn.records import sweeps
from repdyn.records.variants import Variant, expand

__all__ = ["REPAIRS", "AblationConfig", "measure_ablations", "repair_table"]


_CHANGES: dict[str, dict[str, Any]] = {
    "untrained": {"images": 0},
    "as it is": {},
    "dropout 0.5": {"dropout": 0.5},
    "dropout 0.9": {"dropout": 0.9},
    "dropout 0.95": {"dropout": 0.95},
    "EDM preconditioning": {"preconditioning": "edm"},
    "three levels, near": {"sigmas": (0.002, 0.008, 0.023)},
    "three levels, spread": {"sigmas": (0.002, 0.14, 3.257)},
    "two levels, spread": {"sigmas": (0.002, 3.257)},
    "five levels, spread": {"sigmas": (0.002, 0.023, 0.14, 0.585, 3.257)},
    "ten levels": {"sigmas": PAPER_SIGMAS},
    "all levels": {"sigmas": None, "read": PAPER_SIGMAS},
    "no preconditioning": {"preconditioning": "none"},
    "weight decay": {"weight_decay": 1.0},
    "bottleneck": {"widths": (256, 32, 256)},
    "ten levels, even weights": {"sigmas": PAPER_SIGMAS, "weighting": "none"},
    "spread, EDM, dropout 0.5": {"sigmas": (0.002, 0.14, 3.257), "preconditioning": "edm", "dropout": 0.5},
}
#: The rows of Table 3 and those that go beyond it: what of the base configuration changes.
REPAIRS: tuple[Variant, ...] = tuple(
    Variant(tuple(changes.items()), (0, 1), name) for name, changes in _CHANGES.items()
)


@dataclass(frozen=True)
class AblationConfig:
    """A DAE of one low noise level, and its repairs."""

    base: DAEConfig = DAEConfig()
    """The DAE that is repaired."""
    variants: tuple[Variant, ...] = REPAIRS
    """The repairs, each with a name: see :mod:`repdyn.records.variants`."""


def measure_ablations(
    config: AblationConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """Train and read every variant of ``config.base`` with its seeds: ``rows``, each with ``name`` and plain lists.

    A row has the ``sigmas`` at which it was read, ``layers``, and ``validation`` and ``test`` (seed, layer, level),
    ``error``, ``change``, ``jacobian`` (seed, level) at the end. The base's own level is the first of each row.
    """
    runs = expand(config.base, config.variants)
    found = iter(sweeps.run(measure, [run.config for run in runs], cache=cache, progress=progress))
    rows = []
    for variant, group in itertools.groupby(runs, lambda run: run.variant):
        results = [next(found) for _ in group]
        ends = [result["checkpoints"][-1] for result in results]
        columns = {key: [end[key] for end in ends] for key in ends[0] if key != "images"}
        rows.append({"name": variant.name, "sigmas": results[0]["sigmas"], "layers": results[0]["layers"], **columns})
    return {"rows": rows, "pixels": pixels(config.base)}


def repair_table(result: dict[str, Any], layer: int) -> list[dict[str, Any]]:
    """Rows of :func:`measure_ablations` as ``name``, ``low`` and ``best``: test accuracies of one layer, by seed.

    ``low`` is read at the row's first level, ``best`` at the one that validation images choose, None if there is one.
    """
    rows = []
    for row in result["rows"]:
        found = reading(row, "seed").isel(layer=layer)
        best = at_best_level(found)[0].values.tolist() if len(row["sigmas"]) > 1 else None
        rows.append({"name": row["name"], "low": found.test.isel(sigma=0).values.tolist(), "best": best})
    return rows
