"""repdyn: representation dynamics of diffusion models, the package behind the book.

Everything is a denoiser: a callable ``D(x, sigma) -> x0_hat``. The names below are the public surface; submodules are
imported when first used, so that ``import repdyn`` is quick.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version

__version__ = _version("repdyn")

_SUBMODULES = (
    "clusters",
    "csnr",
    "csnr_curves",
    "curves",
    "dae_curves",
    "dae_runs",
    "datasets",
    "denoisers",
    "early_stopping",
    "embeddings",
    "empirical",
    "ensemble_probe",
    "ensemble_results",
    "ensembles",
    "features",
    "identity",
    "image_classifier",
    "images",
    "knn_probe",
    "labels",
    "memorisation_curves",
    "memorisation_sweep",
    "metrics",
    "mlp_probe",
    "molrg",
    "molrg_curves",
    "networks",
    "noise",
    "noisy_digits",
    "notebook",
    "objectives",
    "pixel_curves",
    "pixels",
    "plots",
    "presets",
    "pretrained",
    "probes",
    "quality_curves",
    "records",
    "recovery",
    "references",
    "resampling",
    "sampling",
    "subspaces",
    "sweeps",
    "training",
    "training_curves",
    "two_patch",
    "two_patch_curves",
    "two_patch_dynamics",
)

__all__ = ["NoisyMoLRG", "__version__", *_SUBMODULES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name == "NoisyMoLRG":
        return _import_module("repdyn.theory.molrg").NoisyMoLRG
    if name in _SUBMODULES:
        return _import_module(f"repdyn.{name}")
    raise AttributeError(f"module 'repdyn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
