"""In which precision the products of a training are computed on a device."""

from __future__ import annotations

import warnings

import torch

from repdyn.features import supports_bf16

__all__ = ["PRECISIONS", "effective"]

PRECISIONS = ("auto", "bf16", "fp16", "float32")


def effective(precision: str, device: torch.device) -> str:
    """What ``precision``, one of :data:`PRECISIONS`, is on ``device``: 'bf16', 'fp16' or 'float32'.

    'auto' is bf16 where the device has it, on a CPU or a GPU of capability 8.0, fp16 on an older GPU, and float32
    elsewhere. Warns when bf16 is asked for by name where it is emulated, and so slow.
    """
    native = device.type in ("cpu", "cuda") and supports_bf16(device)
    if precision == "auto":
        return "bf16" if native else "fp16" if device.type == "cuda" else "float32"
    if precision == "bf16" and not native:
        warnings.warn(f"precision 'bf16' is only emulated on {device}, and slow: choose 'auto'", stacklevel=3)
    return precision
