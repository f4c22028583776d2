"""repdyn: representation dynamics of diffusion models, the package behind the book.

Everything is a denoiser: a callable ``D(x, sigma) -> x0_hat``. The names below are the public surface; submodules are
imported when first used, so that ``import repdyn`` is quick.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version

__version__ = _version("repdyn")

#: Public name -> the module that it stands for. Imported when first used.
_MODULES = {
    "chapters": "repdyn.chapters",
    "curves": "repdyn.curves",
    "datasets": "repdyn.datasets",
    "denoisers": "repdyn.denoisers",
    "features": "repdyn.features",
    "images": "repdyn.images",
    "metrics": "repdyn.metrics",
    "networks": "repdyn.networks",
    "noise": "repdyn.noise",
    "notebook": "repdyn.notebook",
    "plots": "repdyn.plots",
    "presets": "repdyn.presets",
    "pretrained": "repdyn.pretrained",
    "probes": "repdyn.probes",
    "records": "repdyn.records",
    "sampling": "repdyn.sampling",
    "theory": "repdyn.theory",
    "training": "repdyn.training",
    "csnr": "repdyn.theory.csnr",
    "empirical": "repdyn.theory.empirical",
    "molrg": "repdyn.theory.molrg",
    "subspaces": "repdyn.theory.subspaces",
    "sweeps": "repdyn.records.sweeps",
    "mlp_probe": "repdyn.probes.mlp",
    "ensemble_probe": "repdyn.probes.voting",
    "identity": "repdyn.metrics.identity",
    "resampling": "repdyn.metrics.resampling",
    "recipes": "repdyn.chapters.recipes",
    "clusters": "repdyn.chapters.recovery.clusters",
    "csnr_curves": "repdyn.chapters.csnr_real.measure",
    "dae_curves": "repdyn.chapters.weight_sharing.measure",
    "dae_runs": "repdyn.chapters.weight_sharing.runs",
    "early_stopping": "repdyn.chapters.memorisation.early_stopping",
    "embeddings": "repdyn.chapters.generation.embeddings",
    "ensemble_results": "repdyn.chapters.ensembles.results",
    "ensembles": "repdyn.chapters.ensembles.measure",
    "image_classifier": "repdyn.chapters.generation.image_classifier",
    "labels": "repdyn.chapters.ensembles.labels",
    "memorisation_curves": "repdyn.chapters.memorisation.measure",
    "memorisation_sweep": "repdyn.chapters.memorisation.sweep",
    "molrg_curves": "repdyn.chapters.ddpm.measure",
    "noisy_digits": "repdyn.chapters.feature_learning.noisy_digits",
    "objectives": "repdyn.chapters.ensembles.objectives",
    "pixel_curves": "repdyn.chapters.segmentation.measure",
    "pixels": "repdyn.chapters.segmentation.pixels",
    "quality_curves": "repdyn.chapters.generation.measure",
    "recovery": "repdyn.chapters.recovery.measure",
    "references": "repdyn.chapters.ensembles.references",
    "training_curves": "repdyn.chapters.unimodal.measure",
    "two_patch": "repdyn.chapters.feature_learning.two_patch",
    "two_patch_curves": "repdyn.chapters.feature_learning.measure",
    "two_patch_dynamics": "repdyn.chapters.feature_learning.dynamics",
}

__all__ = ["NoisyMoLRG", "__version__", *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name == "NoisyMoLRG":
        return _import_module("repdyn.theory.molrg").NoisyMoLRG
    if name in _MODULES:
        return _import_module(_MODULES[name])
    raise AttributeError(f"module 'repdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
