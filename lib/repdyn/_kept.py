"""Finished parts of a measurement, kept in files that say of which measurement they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from repdyn._files import read_state, write_tensors

__all__ = ["FOREIGN", "kept"]

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
