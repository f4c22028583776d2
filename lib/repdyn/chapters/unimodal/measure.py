"""Accuracy against noise level along a training: when the unimodal curve appears, what no training at all gives."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repdyn import curves, pretrained
from repdyn.curves import CurveConfig
from repdyn.records import sweeps
from repdyn.records.cache import identity

__all__ = ["TrainingCurveConfig", "measure"]


@dataclass(frozen=True)
class TrainingCurveConfig:
    """The measurement ``curve`` for each of ``weights``, of one training or of several."""

    curve: CurveConfig
    """What is measured; its own ``weights`` and ``untrained`` are not looked at."""
    weights: tuple[str, ...]
    """Names or files. ``repdyn train`` leaves such files behind: the weights after 1/32, 1/16, ..., 1/2 of a
    training."""
    untrained: bool = True
    """The first one's network with weights of ``curve.seed`` comes before all others, as after no image at all."""


def measure(
    config: TrainingCurveConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """One result of :func:`repdyn.curves.measure` for each of the weights, named, with how many ``images`` they saw.

    Returns ``{"stages": [...]}``. With ``cache``, a folder, finished stages are kept there, and so are the features of
    the one at work. Raises ``ConnectionError`` for images that are not to be had, ``ValueError`` for weights that do
    not say how long they were trained, and :class:`repdyn.records.sweeps.SweepError` for a stage that failed.
    """
    images = [pretrained.provenance(name).images for name in config.weights]
    plans = [replace(config.curve, weights=name, untrained=False) for name in config.weights]
    if config.untrained:
        plans.insert(0, replace(plans[0], untrained=True))
        images.insert(0, 0)
    results = sweeps.run(_curve, plans, cache=cache, progress=progress, desc="weights", inputs=_inputs)
    return {
        "stages": [
            {"weights": plan.weights, "images": num, **result}
            for plan, num, result in zip(plans, images, results, strict=True)
        ]
    }


def _inputs(config: CurveConfig) -> dict[str, str]:
    """A name may stand for other weights after another training."""
    return {"network": identity(pretrained.load(config.weights))}


def _curve(config: CurveConfig, folder: Path | None) -> dict[str, Any]:
    return curves.measure(config, cache=folder)
