"""Weights that others trained, and those that ship with the package: averaged, in half precision, as safetensors."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from repdyn._files import read_state, write_tensors
from repdyn.datasets import archives
from repdyn.denoisers import EDMDenoiser, PlainDenoiser, VPDenoiser
from repdyn.pretrained.edm import load_edm
from repdyn.pretrained.hub import ImageEncoder, LatentDenoiser, load_ddpm, load_dit, load_mae
from repdyn.training import Step, TrainConfig, config_from_dict, make_denoiser

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

_SHIPPED = files("repdyn") / "assets/weights"


def available() -> list[str]:
    """Names of the denoisers that ship with the package."""
    return sorted(
        item.name.removesuffix(".safetensors") for item in _SHIPPED.iterdir() if item.name.endswith(".safetensors")
    )


class Checkpoint(NamedTuple):
    """Where weights come from: a URL, a model of the hub or a file; the set they were trained on, and images seen."""

    source: str
    dataset: str
    images: int


_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"

#: Checkpoints of others that :func:`load` fetches by name. NVIDIA's weights are licensed for non-commercial use.
OFFICIAL: dict[str, Checkpoint] = {
    name: Checkpoint(f"{_EDM}{name}.pkl", "cifar10", 200_000_000)
    for name in (f"edm-cifar10-32x32-{kind}" for kind in ("uncond-vp", "uncond-ve", "cond-vp", "cond-ve"))
} | {"ddpm-cifar10-32": Checkpoint("google/ddpm-cifar10-32", "cifar10", 800_000 * 128)}  # Ho et al. (2020), appendix B


def load(
    name_or_path: str | os.PathLike, device: torch.device | str = "cpu"
) -> EDMDenoiser | VPDenoiser | PlainDenoiser:
    """Load a denoiser by name, or from a file.

    Names are those of :func:`available` and of :data:`OFFICIAL`, which are downloaded at first. "cifar10-small@39040"
    are the weights that ``repdyn train cifar10-small`` left behind after so many images, in the folder $REPDYN_RUNS
    (default: runs). A file is one written by :func:`export`, or an EDM snapshot (``.pkl``), which is read by
    :func:`load_edm`. The weights are float32 on ``device``, the denoiser in evaluation mode.

    Raises ``ValueError`` for an unknown name and for a file that is damaged or lacks its configuration, and
    ``ConnectionError`` when a download fails.
    """
    name_or_path = _along_a_training(name_or_path)
    if Path(name_or_path).is_file():
        return load_edm(name_or_path, device) if Path(name_or_path).suffix == ".pkl" else _read(name_or_path).to(device)
    if name_or_path in OFFICIAL:
        source = OFFICIAL[name_or_path].source
        if not source.startswith("https:"):
            return load_ddpm(source, device)
        try:
            return load_edm(place := _download(source), device)
        except ValueError as error:
            raise ValueError(f"{error}; remove {place}, which was downloaded, and load again") from error
    with _shipped(name_or_path) as path:
        return _read(path).to(device)


def provenance(name_or_path: str | os.PathLike) -> Checkpoint:
    """Where weights that :func:`load` takes come from; raises ``ValueError`` for unknown ones and EDM snapshots."""
    if name_or_path in OFFICIAL:
        return OFFICIAL[name_or_path]
    place = _along_a_training(name_or_path)
    with contextlib.nullcontext(place) if Path(place).is_file() else _shipped(place) as path:
        if Path(path).suffix == ".pkl":
            raise ValueError(f"{path} does not say which images it was trained on")
        _, metadata = read_state(path)
        config = _config(path, metadata)
        if "images" not in metadata:
            raise ValueError(f"{path} is the state of a training: pass what repdyn.pretrained.export makes of it")
        return Checkpoint(str(name_or_path), config.dataset, int(metadata["images"]))


def _along_a_training(name: str | os.PathLike) -> str | os.PathLike:
    """The file of a name "preset@images"; another name, or a path, as it is. ``ValueError`` if it is not there."""
    named = re.fullmatch(r"([\w.-]+)@(\d+)", str(name))
    if named is None or Path(name).is_file():
        return name
    preset, images = named.groups()
    runs = Path(os.environ.get("REPDYN_RUNS", "runs"))
    path = runs / preset / f"weights-{images}.safetensors"
    if not path.is_file():
        raise ValueError(
            f"{str(name)!r} is not in the folder {runs}: name the folder of your runs in REPDYN_RUNS, "
            f"or train with 'repdyn train {preset}'"
        )
    return path


def _shipped(name: str | os.PathLike) -> contextlib.AbstractContextManager[Path]:
    if name not in available():
        names = ", ".join(available())
        raise ValueError(f"{name!r} is neither a file nor shipped: shipped are {names}; known {', '.join(OFFICIAL)}")
    return as_file(_SHIPPED / f"{name}.safetensors")


def _download(url: str) -> Path:
    """A snapshot in the cache. Its publisher states no hash; a damaged one is refused when it is read."""
    folder = archives.cache() / "weights"
    try:
        return archives.fetch(url, folder)
    except OSError as error:
        raise ConnectionError(
            f"{url} could not be downloaded ({error}). Put it by hand into {folder}, or pass its path."
        ) from None


def export(state_file: str | os.PathLike, path: str | os.PathLike) -> None:
    """Write the averaged weights of a state file to ``path``: float16, with configuration and images seen."""
    tensors, metadata = read_state(state_file)
    if "step" not in metadata:
        raise ValueError(f"{state_file} is not the state of a training: pass the file that repdyn.training.train wrote")
    config = config_from_dict(json.loads(metadata["config"]))
    weights = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
    _write(weights, config, int(metadata["step"]) * config.batch_size, path)


def export_step(step: Step, config: TrainConfig, path: str | os.PathLike) -> None:
    """Write the averaged weights of a training that goes on, as :func:`export` writes those of a state file."""
    _write(step.ema.state_dict(), config, step.images, path)


def _write(weights: dict[str, Tensor], config: TrainConfig, images: int, path: str | os.PathLike) -> None:
    metadata = {"config": json.dumps(asdict(config)), "images": str(images)}
    write_tensors(path, {name: value.half() for name, value in weights.items()}, metadata)


def _read(path: str | os.PathLike) -> EDMDenoiser | VPDenoiser | PlainDenoiser:
    tensors, metadata = read_state(path)
    denoiser = make_denoiser(_config(path, metadata))
    try:
        denoiser.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network its configuration describes: {error}") from error
    return denoiser.eval().requires_grad_(False)


def _config(path: str | os.PathLike, metadata: dict[str, str]) -> TrainConfig:
    if "config" not in metadata:
        raise ValueError(f"{path} holds no configuration: it was not written by repdyn.pretrained.export")
    return config_from_dict(json.loads(metadata["config"]))
