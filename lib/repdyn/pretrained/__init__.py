"""Weights that others trained, and those that ship with the package; models of other libraries as denoisers."""

from repdyn.pretrained.edm import load_edm
from repdyn.pretrained.hub import ImageEncoder, LatentDenoiser, load_ddpm, load_dit, load_mae
from repdyn.pretrained.names import OFFICIAL, Checkpoint, available, export, export_step, load, provenance

__all__ = [
    "OFFICIAL",
    "Checkpoint",
    "ImageEncoder",
    "LatentDenoiser",
    "available",
    "export",
    "export_step",
    "load",
    "load_ddpm",
    "load_dit",
    "load_edm",
    "load_mae",
    "provenance",
]
