"""Recorded results: metrics with configuration and provenance, found again only under the same configuration."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from repdyn._files import replacing
from repdyn.records._starts import Starts
from repdyn.records.fresh import differences, plain

__all__ = ["Recipe", "disagreements", "make", "obtain", "provenance", "read", "read_any", "state", "verify", "write"]

_SHIPPED = files("repdyn") / "assets/records"
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "accelerate")


@dataclass(frozen=True)
class Recipe:
    """How a record is made, and how it can be verified anywhere."""

    name: str
    """Of the record and, with ``.json`` after it, of its file."""
    measure: Callable[..., dict[str, Any]]
    """Called as ``measure(config, cache=..., progress=...)``; returns the metrics, as JSON has them."""
    config: Any
    """A frozen dataclass: what is measured."""
    slice_config: Any
    """A smaller one that runs in seconds on shipped data, by which a record can be verified anywhere."""
    version: int = 1
    """Raised when the code changes what it measures: a record of another version is stale."""


def make(recipe: Recipe, *, cache: str | os.PathLike | None = None, progress: bool = True) -> dict[str, Any]:
    """Run a recipe in full and on its slice; return the record, ready for :func:`write`.

    With ``cache``, a folder, an interrupted measurement goes on from what is kept there, and its time is that of all
    its starts. Raises ``ValueError`` for a cache that another version of the recipe left behind.
    """
    record = _run(recipe, cache, progress)
    record["slice"] = {"config": plain(recipe.slice_config), "metrics": recipe.measure(recipe.slice_config)}
    return record


def obtain(recipe: Recipe, *, rerun: bool = False, **changes: Any) -> dict[str, Any]:
    """The record of ``recipe`` as :func:`read` finds it, or, with ``rerun``, measured here and now in full.

    ``changes`` are fields of its configuration that a rerun replaces, such as the weights; a field that it does not
    have raises ``TypeError``. A rerun has no slice and is not written.
    """
    if not rerun:
        return read(recipe)
    return _run(replace(recipe, config=replace(recipe.config, **changes)), None, progress=False)


def _run(recipe: Recipe, cache: str | os.PathLike | None, progress: bool) -> dict[str, Any]:
    with Starts(cache, recipe.version) as starts:
        metrics = recipe.measure(recipe.config, cache=cache, progress=progress)
        seconds = round(starts.seconds, 1)
    return {
        "name": recipe.name,
        "version": recipe.version,
        "config": plain(recipe.config),
        "metrics": metrics,
        "provenance": {**provenance(), "command": f"repdyn record {recipe.name}", "seconds": seconds},
    }


def provenance() -> dict[str, Any]:
    """Where and with what a result is made: date, commit, device, threads, versions of the libraries."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def write(record: dict[str, Any], folder: str | os.PathLike) -> Path:
    """Write a record to ``folder/<name>.json`` under a temporary name, then rename it; return its path."""
    path = Path(folder) / f"{record['name']}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def read_any(name: str, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """The record ``name``, shipped or in ``folder``, whatever its configuration; ``ValueError`` if there is none."""
    source = _file(name, folder)
    if not source.is_file():
        raise ValueError(f"there is no record {name!r}: make it with 'repdyn record {name}'")
    try:
        record = json.loads(source.read_text())
        record["config"], record["metrics"], record["slice"], record["provenance"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"record {name!r} is damaged ({error}): restore the file, or make it anew") from error
    return record


def _file(name: str, folder: str | os.PathLike | None) -> Any:
    return (_SHIPPED if folder is None else Path(folder)) / f"{name}.json"


def read(recipe: Recipe, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """The record of ``recipe``. One of another configuration or version is not found: ``ValueError`` says why."""
    record = read_any(recipe.name, folder)
    reasons = differences(record, recipe.config, version=recipe.version)
    if reasons:
        raise ValueError(
            f"record {recipe.name!r} is not what its recipe asks for ({'; '.join(reasons)}): "
            f"make it anew with 'repdyn record {recipe.name}'"
        )
    return record


def state(recipe: Recipe, folder: str | os.PathLike | None = None) -> str:
    """'recorded', 'missing', or 'stale: ...' with the reason: what of it differs, or a damaged file."""
    if not _file(recipe.name, folder).is_file():
        return "missing"
    try:
        reasons = differences(read(recipe, folder)["slice"], recipe.slice_config)
    except ValueError as error:
        return f"stale: {error}"
    return f"stale: another slice ({'; '.join(reasons)})" if reasons else "recorded"


def verify(recipe: Recipe, tolerance: float, folder: str | os.PathLike | None = None) -> list[str]:
    """Recompute the slice of a record; return a line for every number that is off by more than ``tolerance``."""
    record = read(recipe, folder)
    reasons = differences(record["slice"], recipe.slice_config)
    if reasons:
        return [f"{recipe.name}: the slice was recorded with another configuration ({'; '.join(reasons)})"]
    return disagreements(recipe.measure(recipe.slice_config), record["slice"]["metrics"], tolerance, recipe.name)


def disagreements(now: Any, then: Any, tolerance: float, where: str) -> list[str]:
    """Compare two nested results; numbers may differ by ``tolerance``, everything else not at all."""
    now, then = json.loads(json.dumps([now, then]))
    if isinstance(now, dict) and isinstance(then, dict) and now.keys() == then.keys():
        return [line for key in now for line in disagreements(now[key], then[key], tolerance, f"{where}.{key}")]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        pairs = enumerate(zip(now, then, strict=True))
        return [line for i, (a, b) in pairs for line in disagreements(a, b, tolerance, f"{where}[{i}]")]
    both_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (now, then))
    agree = abs(now - then) <= tolerance if both_numbers else now == then
    return [] if agree else [f"{where}: recorded {then}, recomputed {now}"]


def _commit() -> str:
    root = Path(__file__).resolve().parents[3]
    if not (root / "_toc.yml").is_file():  # installed, perhaps below a repository of somebody else's
        return "unknown (not a checkout)"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (not a checkout)"
