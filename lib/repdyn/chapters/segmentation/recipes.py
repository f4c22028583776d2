"""The records of Chapter 12: segmentation from few labelled images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repdyn.chapters.segmentation.config import PixelCurveConfig
from repdyn.chapters.segmentation.measure import measure
from repdyn.records import Recipe

__all__ = ["RECIPES"]

_PIXELS = PixelCurveConfig(
    weights="ccp59-small", dataset="ccp4", num_labelled=20, num_validation=60, apart=0.3, splits=5, max_epochs=10,
    precision="bf16",
)  # fmt: skip
_PIXELS_SLICE = replace(
    _PIXELS, num_labelled=8, num_validation=10, num_test=40, splits=1, sigmas=(0.14, 3.257), max_epochs=4
)
_ENDS_AND_MIDDLE = (0.002, 0.14, 3.257)


def _segmentation(name: str, *, full: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe(name, measure, replace(_PIXELS, **changes, **full), replace(_PIXELS_SLICE, **changes))


RECIPES: tuple[Recipe, ...] = (
    _segmentation("ccp59-segmentation-clean", full={"window": 7, "examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}),
    _segmentation(
        "ccp59-segmentation-noisy", full={"examples": 3, "example_sigmas": _ENDS_AND_MIDDLE}, noisy_input=True
    ),
    _segmentation("ccp59-segmentation-untrained", full={"sigmas": _ENDS_AND_MIDDLE}, untrained=True),
)
