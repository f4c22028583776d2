"""Activations of a denoiser at (layer, sigma): all layers asked for in one pass, which stops at the deepest of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from repdyn._torch import autocast, evaluating
from repdyn.images import to_unit_range

__all__ = [
    "POSTERIOR",
    "check_precision",
    "default_device",
    "extract",
    "layers",
    "supports_bf16",
]

#: Name under which :func:`extract` returns the denoiser's output itself, never averaged over positions.
POSTERIOR = "posterior"


class _Done(Exception):
    """Raised by the deepest hook: nothing further down is needed."""


def layers(denoiser: nn.Module) -> list[str]:
    """Names of the layers that :func:`extract` can read, in the order of the forward pass, the posterior last."""
    if not hasattr(denoiser, "feature_layers"):
        raise ValueError("denoiser has no feature_layers(), so it has no layers to read")
    return [*cast(Any, denoiser).feature_layers(), POSTERIOR]


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(device: torch.device | str) -> bool:
    """Whether matrix products in bfloat16 run natively, and so fast, on ``device``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)  # older GPUs emulate it
    native = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(native and native())


def check_precision(precision: str) -> None:
    """Raise ``ValueError`` unless ``precision`` is one that features can be measured in: 'float32' or 'bf16'."""
    if precision not in ("float32", "bf16"):
        raise ValueError(f"precision must be 'float32' or 'bf16', got {precision!r}")


@torch.no_grad()
def extract(
    denoiser: nn.Module,
    images: Tensor,
    sigma: float,
    layers: Sequence[str] | None = None,
    noisy_input: bool = False,
    draws: int = 1,
    pool: str = "mean",
    *,
    batch_size: int = 256,
    seed: int = 0,
    precision: str = "float32",
) -> dict[str, Tensor]:
    """Features of ``images`` at noise level ``sigma``: for each layer a float32 tensor, (N, C) or maps, on the CPU.

    ``images`` is uint8 (N, C, H, W), or float in the units the denoiser was trained in; for a denoiser of vectors,
    float (N, n). ``layers`` are names from :func:`layers` (default: all). The input is the clean image, as Li et al.
    (2025) propose; with ``noisy_input`` it is the image plus ``sigma`` times noise, and features are averaged over
    ``draws`` draws that depend on ``seed`` alone.
    ``pool`` is 'mean' (over positions), 'none' (flattened), or 'maps': activations as they are, (N, C, h, w), for a
    probe of pixels. The network computes in ``precision``, 'float32' or 'bf16', whatever the machine. The denoiser is
    used on the device its weights are on, in evaluation mode.

    Raises ``ValueError`` for an unknown layer, ``pool`` or ``precision``, a wrong shape, NaN, or a sigma that is not
    positive.
    """
    sigma, known = float(sigma), cast(Any, denoiser).feature_layers()
    layers = [*known, POSTERIOR] if layers is None else list(dict.fromkeys(layers))
    _check(layers, known, images, sigma, draws, pool)
    check_precision(precision)
    device = next(denoiser.parameters(), images).device
    rngs = [np.random.default_rng([seed, draw]) for draw in range(draws if noisy_input else 1)]
    activations: dict[str, Tensor] = {}
    with evaluating(denoiser), autocast(device, precision):
        for start in range(0, len(images), batch_size):
            x0 = images[start : start + batch_size]
            x0 = to_unit_range(x0) if x0.dtype == torch.uint8 else x0.float()
            sums: dict[str, Tensor] = {}
            for rng in rngs:
                x = x0 + sigma * _noise(rng, x0) if noisy_input else x0
                for name, value in _read(denoiser, x.to(device), sigma, layers, known, pool).items():
                    sums[name] = sums[name] + value if name in sums else value
            for name in layers:
                mean = sums[name].cpu() / len(rngs)
                if name not in activations:  # one array for all images: joining parts would need the memory twice
                    activations[name] = torch.empty(len(images), *mean.shape[1:])
                activations[name][start : start + batch_size] = mean
    return activations


def _noise(rng: np.random.Generator, x0: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)).to(x0)


def _read(
    denoiser: nn.Module, x: Tensor, sigma: float, layers: list[str], known: dict[str, nn.Module], pool: str
) -> dict[str, Tensor]:
    activations: dict[str, Tensor] = {}
    hidden = [name for name in known if name in layers]  # in the order of the forward pass
    deepest = None if POSTERIOR in layers else hidden[-1]
    with _hooks(hidden, known, deepest, pool, activations):
        try:
            estimate = denoiser(x, sigma).float()
        except _Done:
            return activations
    if POSTERIOR in layers:
        activations[POSTERIOR] = estimate if pool == "maps" else estimate.flatten(1)
    return activations


@contextlib.contextmanager
def _hooks(
    hidden: list[str], known: dict[str, nn.Module], deepest: str | None, pool: str, activations: dict[str, Tensor]
) -> Iterator[None]:
    def keep(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple, activation: Tensor) -> None:
            activations[name] = _pooled(activation.float(), pool)
            if name == deepest:
                raise _Done

        return hook

    handles = [known[name].register_forward_hook(keep(name)) for name in hidden]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pooled(activation: Tensor, pool: str) -> Tensor:
    if pool == "maps":
        return activation
    return activation.flatten(2).mean(2) if pool == "mean" and activation.ndim > 2 else activation.flatten(1)


def _check(layers: list[str], known: dict, images: Tensor, sigma: float, draws: int, pool: str) -> None:
    unknown = [name for name in layers if name not in known and name != POSTERIOR]
    if unknown or not layers:
        raise ValueError(f"unknown layer {unknown}: choose from {', '.join(known)}, {POSTERIOR}")
    if pool not in ("mean", "none", "maps"):
        raise ValueError(f"pool must be 'mean', 'none' or 'maps', got {pool!r}")
    vectors = images.ndim == 2 and images.is_floating_point()
    if not (images.ndim == 4 or vectors) or not len(images):
        raise ValueError(
            f"images must have shape (N, C, H, W) with N > 0, or be float vectors (N, n), got {tuple(images.shape)}"
        )
    if images.is_floating_point() and not torch.isfinite(images).all():
        raise ValueError("images hold NaN or infinity")
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
