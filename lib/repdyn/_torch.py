"""What is set in torch for a while and then put back: a seed, a precision, the mode of evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["autocast", "evaluating", "seeded"]

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


@contextlib.contextmanager
def evaluating(model: object) -> Iterator[None]:
    """A context with ``model``, if it is a module, in evaluation mode; then each of its modules is as before."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
