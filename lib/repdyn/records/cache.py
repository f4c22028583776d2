"""Parts of a measurement kept on disk: results and features, each marked with all that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from repdyn import features
from repdyn._files import read_state, write_tensors
from repdyn.records._starts import lap
from repdyn.records.fresh import describe, require

__all__ = ["Extraction", "FeatureFolder", "LayerFeatures", "content", "digest", "identity", "kept"]

Part = tuple[dict[str, Any], dict[str, Tensor]]


def kept(path: Path | None, config: Any, inputs: Mapping[str, str], compute: Callable[[], Part]) -> Part:
    """The numbers and tensors that ``compute`` returns, from the file ``path`` if it is there; None keeps nothing.

    ``config`` and ``inputs``, of :func:`content`, tell all that they depend on. Raises ``ValueError`` for a file that
    others made, and says what differs.
    """
    if path is None:
        return compute()
    if not path.exists():
        numbers, tensors = compute()
        write_tensors(path, tensors, _metadata(config, inputs) | {"numbers": json.dumps(numbers)})
        lap()
    tensors, metadata = read_state(path)
    require(path, _described(metadata), config, inputs)
    return json.loads(metadata["numbers"]), tensors


def content(denoiser: nn.Module, *tensors: Tensor) -> dict[str, str]:
    """What a measurement depends on that no configuration can hold: the network, and its images and labels."""
    return {"network": identity(denoiser), "images": digest(tensors)}


def identity(denoiser: nn.Module) -> str:
    """What a denoiser's features depend on: the kinds of its modules, what these are told, weights and buffers."""
    told = [f"{name} {type(module).__qualname__} {_told(module)}" for name, module in denoiser.named_modules()]
    modules = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    weights = digest([*denoiser.parameters(), *denoiser.buffers()])
    return f"{type(denoiser).__name__} {_told(denoiser)}, modules {modules}, weights {weights}"


def _told(module: nn.Module) -> dict[str, Any]:
    kinds = (bool, int, float, str, tuple)
    settings = {k: v for k, v in vars(module).items() if isinstance(v, kinds) and not k.startswith("_")}
    return {k: v for k, v in settings.items() if k != "training"}


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the tensors' kinds, shapes and values, by which a cache knows what it was made from."""
    sha256 = hashlib.sha256()
    for value in tensors:
        sha256.update(f"{value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        sha256.update(flat.view(torch.uint8).numpy().data)  # bytes: numpy has no bfloat16
    return sha256.hexdigest()


@dataclass(frozen=True)
class Extraction:
    """What :func:`repdyn.features.extract` is asked for: all that features depend on, but network and images."""

    sigma: float
    layers: tuple[str, ...]
    noisy_input: bool = False
    draws: int = 1
    pool: str = "mean"
    seed: int = 0
    precision: str = "float32"


class FeatureFolder:
    """A folder of files ``features-<level>.safetensors``; without ``path`` a temporary one, which goes with the object.

    Files that are there already are kept and used, if they are what is asked for.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        self.temporary = path is None
        self.path = Path(tempfile.mkdtemp(prefix="repdyn-")) if path is None else Path(path)
        if self.temporary:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def file(self, level: int) -> Path:
        """Where the features of a noise level are, or will be."""
        return self.path / f"features-{level}.safetensors"

    def provide(self, level: int, denoiser: nn.Module, images: Tensor, asked: Extraction) -> None:
        """Extract features and write them, unless the file is there.

        Raises ``ValueError`` for a file of another network, other images or another extraction, and says what differs.
        """
        path = self.file(level)
        inputs = {} if self.temporary else content(denoiser, images)
        if path.exists():
            with _opened(path) as file:
                metadata = file.metadata() or {}
            require(path, _described(metadata), asked, inputs)
            return
        write_tensors(path, features.extract(denoiser, images, **vars(asked)), _metadata(asked, inputs))
        lap()


class LayerFeatures(Sequence[Tensor]):
    """Features of one layer at S noise levels: a sequence of S tensors (N, D), each read when it is asked for."""

    def __init__(self, folder: FeatureFolder, name: str, levels: int) -> None:
        self.folder, self.name, self.levels = folder, name, levels

    def __len__(self) -> int:
        return self.levels

    def __getitem__(self, level: int) -> Tensor:  # type: ignore[override]  # one at a time: no slices
        if not 0 <= level < self.levels:
            raise IndexError(f"level {level} of {self.levels}")
        with _opened(self.folder.file(level)) as file:
            return file.get_tensor(self.name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}): remove it, or restore it from a copy"
        ) from error


def _metadata(config: Any, inputs: Mapping[str, str]) -> dict[str, str]:
    return {"description": json.dumps(describe(config, inputs))}


def _described(metadata: Mapping[str, str]) -> dict[str, Any]:
    return json.loads(metadata.get("description", "{}"))
