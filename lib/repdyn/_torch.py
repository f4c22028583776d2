"""What is set in torch for a while and then put back: the seed of its random numbers, the precision of its products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["autocast", "seeded"]

_ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Random numbers of the CPU, and of ``device``, from ``seed``; afterwards the generators are as they were.

    Without ``device`` no other generator than the CPU's is touched.
    """
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        (torch.default_generator.manual_seed if device is None else torch.manual_seed)(seed)
        yield


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """A context in which products on ``device`` are computed in ``precision``: 'bf16', 'fp16' or 'float32'.

    Raises ``ValueError`` for another precision.
    """
    if precision != "float32" and precision not in _ROUNDED:
        raise ValueError(f"precision must be 'float32', 'bf16' or 'fp16', got {precision!r}: choose one")
    dtype = _ROUNDED.get(precision, torch.bfloat16)
    return torch.autocast(torch.device(device).type, dtype, enabled=precision in _ROUNDED)
