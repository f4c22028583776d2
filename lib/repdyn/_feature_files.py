"""Features of many images at many noise levels, on disk: one file a level, from which one layer is read at a time."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from repdyn._files import write_tensors
from repdyn._kept import FOREIGN

__all__ = ["FeatureFolder", "LayerFeatures"]


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
