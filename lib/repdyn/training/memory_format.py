"""Which layout of images in memory trains fastest here: on a GPU it is timed, on a CPU it is known."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["FORMATS", "fastest", "seconds_in"]

FORMATS = (torch.contiguous_format, torch.channels_last)
_WARM_UP, _TIMED = 3, 5  # steps: the first choose algorithms


def fastest(denoiser: nn.Module, x0: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]) -> torch.memory_format:
    """The faster format of a step's forward and backward pass, ``loss(denoiser, x0)``, where ``x0`` lies.

    On a CPU group normalisation in bfloat16 is 28 times slower with the channels last, so there is nothing to time;
    nor is there for samples (N, D), which have one format.
    """
    if x0.device.type != "cuda" or x0.ndim != 4:
        return torch.contiguous_format
    return min(FORMATS, key=lambda memory_format: seconds_in(memory_format, denoiser, x0, loss))


def seconds_in(
    memory_format: torch.memory_format, denoiser: nn.Module, x0: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]
) -> float:
    """Seconds of one forward and backward pass in ``memory_format``; ``denoiser`` and random numbers stay as they are.

    ``x0`` (N, C, H, W) and the denoiser are on the same device.
    """
    on_gpu = x0.device.type == "cuda"
    x0 = x0.to(memory_format=memory_format)
    trial = copy.deepcopy(denoiser).to(memory_format=memory_format)  # type: ignore[call-overload]
    with torch.random.fork_rng([x0.device] if on_gpu else []):
        for step in range(_WARM_UP + _TIMED):
            if step == _WARM_UP:
                started = _now(on_gpu)
            loss(trial, x0).backward()
        return (_now(on_gpu) - started) / _TIMED


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()
