"""Parts of a measurement kept on disk: results and features, each marked with all that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from repdyn._files import read_state, write_tensors

__all__ = ["FOREIGN", "FeatureFolder", "LayerFeatures", "digest", "identity", "kept"]

FOREIGN = "{} belongs to another measurement: remove the folder, or choose another cache"
Part = tuple[dict[str, Any], dict[str, Tensor]]


def kept(path: Path | None, mark: str, compute: Callable[[], Part]) -> Part:
    """The numbers and tensors that ``compute`` returns, from the file ``path`` if it is there; None keeps nothing.

    ``mark`` tells all that they depend on. Raises ``ValueError`` for a file with another mark.
    """
    if path is None:
        return compute()
    if not path.exists():
        numbers, tensors = compute()
        write_tensors(path, tensors, {"measurement": mark, "numbers": json.dumps(numbers)})
    tensors, metadata = read_state(path)
    if metadata.get("measurement") != mark:
        raise ValueError(FOREIGN.format(path))
    return json.loads(metadata["numbers"]), tensors


def identity(denoiser: nn.Module) -> str:
    """What a denoiser's features depend on: its weights and buffers, and what its preconditioning is told besides."""
    told = {k: v for k, v in vars(denoiser).items() if isinstance(v, (bool, int, float, str)) and k != "training"}
    tensors = [*denoiser.parameters(), *denoiser.buffers()]
    return f"{type(denoiser).__name__} {told}, weights {digest(tensors)}"


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the tensors' values, by which a cache knows what it was made from."""
    content = hashlib.sha256()
    for value in tensors:
        content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # bfloat16 too
    return content.hexdigest()


class FeatureFolder:
    """A folder of files ``features-<level>.safetensors``; without ``path`` a temporary one, which goes with the object.

    Files that are there already are kept and used, if the text they were marked with is the one asked for.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.temporary = path is None
        self.path = Path(tempfile.mkdtemp(prefix="repdyn-")) if path is None else Path(path)
        if self.temporary:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def file(self, level: int) -> Path:
        """Where the features of a noise level are, or will be."""
        return self.path / f"features-{level}.safetensors"

    def provide(self, level: int, mark: str, compute: Callable[[], dict[str, Tensor]]) -> None:
        """Write what ``compute`` returns, unless the file is there; ``ValueError`` if that one has another mark."""
        path = self.file(level)
        if not path.exists():
            write_tensors(path, compute(), {"measurement": mark})
            return
        with _opened(path) as file:
            if (file.metadata() or {}).get("measurement") != mark:
                raise ValueError(FOREIGN.format(path))


class LayerFeatures:
    """Features of one layer at S noise levels: a sequence of S tensors (N, D), each read when it is asked for."""

    def __init__(self, folder: FeatureFolder, name: str, levels: int) -> None:
        self.folder, self.name, self.levels = folder, name, levels

    def __len__(self) -> int:
        return self.levels

    def __getitem__(self, level: int) -> Tensor:
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
