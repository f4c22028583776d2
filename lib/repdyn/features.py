"""Activations of a denoiser at (layer, sigma): all layers asked for in one pass, which stops at the deepest of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from repdyn.images import to_unit_range

__all__ = ["POSTERIOR", "default_device", "extract", "layers", "supports_bf16"]

#: Name under which :func:`extract` returns the denoiser's output itself, never averaged over positions.
POSTERIOR = "posterior"


class _Done(Exception):
    """Raised by the deepest hook: nothing further down is needed."""


def layers(denoiser: nn.Module) -> list[str]:
    """Names of the layers that :func:`extract` can read, in the order of the forward pass, the posterior last."""
    if not hasattr(denoiser, "feature_layers"):
        raise ValueError("denoiser has no feature_layers(), so it has no layers to read")
    return [*denoiser.feature_layers(), POSTERIOR]


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(device: torch.device | str) -> bool:
    """Whether matrix products in bfloat16 run natively, and so fast, on ``device``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)  # older GPUs emulate it
    native = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(native and native())


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
    bf16: bool | None = None,
) -> dict[str, Tensor]:
    """Features of ``images`` at noise level ``sigma``: for each layer a float32 tensor, (N, C) or maps, on the CPU.

    ``images`` is uint8 (N, C, H, W), or float in the units the denoiser was trained in; for a denoiser of vectors,
    float (N, n). ``layers`` are names from :func:`layers` (default: all). The input is the clean image, as Li et al.
    (2025) propose; with ``noisy_input`` it is the image plus ``sigma`` times noise, and features are averaged over
    ``draws`` draws that depend on ``seed`` alone.
    ``pool`` is 'mean' (over positions), 'none' (flattened), or 'maps': activations as they are, (N, C, h, w), for a
    probe of pixels. ``bf16`` is decided by :func:`supports_bf16` unless given. The denoiser is used on the device its
    weights are on, in evaluation mode.

    Raises ``ValueError`` for an unknown layer or ``pool``, a wrong shape, NaN, or a sigma that is not positive.
    """
    sigma = float(sigma)
    known = denoiser.feature_layers()
    wanted = list(known) + [POSTERIOR] if layers is None else list(dict.fromkeys(layers))
    _check(wanted, known, images, sigma, draws, pool)
    device = next(denoiser.parameters(), images).device
    bf16 = supports_bf16(device) if bf16 is None else bf16
    draws = draws if noisy_input else 1
    rngs = [np.random.default_rng([seed, draw]) for draw in range(draws)]
    results: dict[str, Tensor] = {}
    was_training = denoiser.training
    denoiser.eval()
    try:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            batch = to_unit_range(batch) if batch.dtype == torch.uint8 else batch.float()
            sums: dict[str, Tensor] = {}
            for rng in rngs:
                noise = (
                    torch.from_numpy(rng.standard_normal(batch.shape, dtype=np.float32)).to(batch)
                    if noisy_input
                    else 0.0
                )
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    found = _read(denoiser, (batch + sigma * noise).to(device), sigma, wanted, known, pool)
                sums = {name: sums.get(name, 0) + value for name, value in found.items()}
            for name in wanted:
                found = sums[name].cpu() / draws
                if name not in results:  # one array for all images: joining parts would need the memory twice
                    results[name] = torch.empty(len(images), *found.shape[1:])
                results[name][start : start + batch_size] = found
    finally:
        denoiser.train(was_training)
    return results


def _read(
    denoiser: nn.Module, x: Tensor, sigma: float, wanted: list[str], known: dict[str, nn.Module], pool: str
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    hidden = [name for name in known if name in wanted]  # in the order of the forward pass
    deepest = None if POSTERIOR in wanted else hidden[-1]
    with _hooks(hidden, known, deepest, pool, found):
        try:
            output = denoiser(x, sigma)
        except _Done:
            return found
    if POSTERIOR in wanted:
        found[POSTERIOR] = output.float() if pool == "maps" else output.float().flatten(1)
    return found


@contextlib.contextmanager
def _hooks(
    hidden: list[str], known: dict[str, nn.Module], deepest: str | None, pool: str, found: dict[str, Tensor]
) -> Iterator[None]:
    def keep(name: str):
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            found[name] = _pooled(output.float(), pool)
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


def _check(wanted: list[str], known: dict, images: Tensor, sigma: float, draws: int, pool: str) -> None:
    unknown = [name for name in wanted if name not in known and name != POSTERIOR]
    if unknown or not wanted:
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
