"""All records by name: the recipes of the chapters, collected."""

from __future__ import annotations

from repdyn.chapters.csnr_real import recipes as csnr_real
from repdyn.chapters.dae_ablations import recipes as dae_ablations
from repdyn.chapters.ddpm import recipes as ddpm
from repdyn.chapters.ensembles import recipes as ensembles
from repdyn.chapters.feature_learning import recipes as feature_learning
from repdyn.chapters.generation import recipes as generation
from repdyn.chapters.memorisation import recipes as memorisation
from repdyn.chapters.recovery import recipes as recovery
from repdyn.chapters.segmentation import recipes as segmentation
from repdyn.chapters.unimodal import recipes as unimodal
from repdyn.chapters.weight_sharing import recipes as weight_sharing
from repdyn.records import Recipe

__all__ = ["RECIPES", "get"]

_CHAPTERS = (
    ddpm,
    recovery,
    feature_learning,
    unimodal,
    csnr_real,
    generation,
    segmentation,
    ensembles,
    weight_sharing,
    dae_ablations,
    memorisation,
)
#: Name -> recipe of a record, in the order of the chapters.
RECIPES: dict[str, Recipe] = {recipe.name: recipe for chapter in _CHAPTERS for recipe in chapter.RECIPES}


def get(name: str) -> Recipe:
    """The recipe of the record called ``name``; raises ``ValueError`` with the known names when there is none."""
    if name not in RECIPES:
        raise ValueError(f"unknown record {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
