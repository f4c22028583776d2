"""Weights that others trained, and those that ship with the package: averaged, in half precision, as safetensors."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from repdyn._hub import ImageEncoder, LatentDenoiser, load_ddpm, load_dit, load_mae
from repdyn._snapshots import load_edm
from repdyn.denoisers import EDMDenoiser, VPDenoiser
from repdyn.training import Step, TrainConfig, config_from_dict, make_denoiser, read_state, write_tensors

__all__ = [
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
]

_SHIPPED = files("repdyn") / "assets/weights"


def available() -> list[str]:
    """Names of the denoisers that ship with the package."""
    return sorted(
        item.name.removesuffix(".safetensors") for item in _SHIPPED.iterdir() if item.name.endswith(".safetensors")
    )


def load(name_or_path: str | os.PathLike, device: torch.device | str = "cpu") -> EDMDenoiser | VPDenoiser:
    """Load a denoiser by its name, one of :func:`available`, or from a file written by :func:`export`.

    The weights are float32 on ``device``, the denoiser in evaluation mode. Raises ``ValueError`` for an unknown name
    and for a file that is damaged or lacks its configuration.
    """
    if Path(name_or_path).is_file():
        return _read(Path(name_or_path)).to(device)
    if name_or_path not in available():
        raise ValueError(f"{name_or_path!r} is neither a file nor shipped: shipped are {', '.join(available())}")
    with as_file(_SHIPPED / f"{name_or_path}.safetensors") as path:
        return _read(path).to(device)


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


def _read(path: Path) -> EDMDenoiser | VPDenoiser:
    tensors, metadata = read_state(path)
    if "config" not in metadata:
        raise ValueError(f"{path} holds no configuration: it was not written by repdyn.pretrained.export")
    denoiser = make_denoiser(config_from_dict(json.loads(metadata["config"])))
    try:
        denoiser.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network its configuration describes: {error}") from error
    return denoiser.eval().requires_grad_(False)
