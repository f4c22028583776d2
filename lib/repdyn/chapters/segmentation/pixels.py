"""What a probe of pixels sees: a feature vector and a label for every pixel of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.images import ImageSet, to_unit_range

__all__ = ["decoder_layers", "masks", "patches", "rows", "stack_maps"]


def decoder_layers(denoiser: nn.Module) -> list[str]:
    """Names of the first layer of each resolution in a U-Net's decoder, from the coarsest to the finest.

    Raises ``ValueError`` for a denoiser without such layers.
    Source: Li et al., arXiv 2502.05743, experimental details of Figure 1(b).
    """
    first: dict[str, str] = {}
    for name in getattr(denoiser, "feature_layers", dict)():
        if name.startswith("dec/"):
            first.setdefault(name.split("_")[0], name)
    if not first:
        raise ValueError("denoiser has no decoder with several resolutions: name the layers yourself")
    return list(first.values())


def stack_maps(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Bring activations (N, C_l, h_l, w_l) to one ``size`` (H, W) and concatenate them: (N, sum C_l, H, W).

    The upsampling is bilinear, with weights that sum to one at every pixel.

    Raises ``ValueError`` when there is nothing to stack, or a map is not 4-dimensional.
    Source: Baranchuk et al. (2022).

    Equation: ``eq-pixel-features``
    """
    if not maps or any(part.ndim != 4 for part in maps):
        raise ValueError(f"maps must be tensors (N, C, h, w), got shapes {[tuple(part.shape) for part in maps]}")
    parts = [part if part.shape[2:] == size else F.interpolate(part, size, mode="bilinear") for part in maps]
    return torch.cat(parts, dim=1)


def rows(stacked: Tensor) -> Tensor:
    """One row for each pixel, image by image: (N, C, H, W) to (N * H * W, C)."""
    return stacked.permute(0, 2, 3, 1).flatten(0, 2)


def patches(images: Tensor, window: int, *, position: bool = False) -> Tensor:
    """Raw pixels as features: the square of side ``window`` around each pixel, (N, C * window^2, H, W), in [-1, 1].

    ``images`` is uint8 (N, C, H, W); its border is repeated outwards. With ``position``, the pixel's row and column,
    from -1 to 1, are two more features: a network knows them from its zero padding.

    Raises ``ValueError`` unless ``window`` is odd and positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and positive, so that it has a centre, got {window}")
    num, _, height, width = images.shape
    padded = F.pad(to_unit_range(images), [window // 2] * 4, mode="replicate")
    found = F.unfold(padded, window).unflatten(2, (height, width))  # (N, C * window^2, H, W)
    if not position:
        return found
    place = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.cat([found, torch.stack(place).expand(num, -1, -1, -1)], dim=1)


def masks(data: ImageSet, threshold: int | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (N, H, W) of all pixels, int64, and the names of their classes.

    A set that has masks keeps them. Of a set with one label an image, grey objects before a black ground, a pixel
    brighter than ``threshold`` (0..255, in any channel) gets its image's class, counted from 1, and every other pixel
    the class 0, 'background'.

    Raises ``ValueError`` when such a set comes without a threshold, or one with masks comes with it.
    """
    if data.labels.ndim == 3:
        if threshold is not None:
            raise ValueError("threshold is for sets with one label an image; this one has masks, leave it out")
        return data.labels, data.classes
    if threshold is None or not 0 <= threshold <= 255:
        raise ValueError(f"threshold must be in 0..255, got {threshold}: it tells objects from background")
    inside = (data.images > threshold).any(1)  # (N, H, W)
    return torch.where(inside, data.labels[:, None, None] + 1, 0), ("background", *data.classes)
