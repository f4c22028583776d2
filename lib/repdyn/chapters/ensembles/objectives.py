"""Other uses of a diffusion model's network, trained by the same loop: a masked auto-encoder and a classifier."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.networks.unet import UNet
from repdyn.training import Batch, Objective

__all__ = ["ClassifyingEncoder", "Unconditioned", "classification", "masked_reconstruction", "random_mask"]


class Unconditioned(nn.Module):
    """A U-Net that is told no noise level: F(x / sigma_data), whatever ``sigma`` is asked for.

    It has the interface of a denoiser, so that its features are read as a denoiser's are; ``model`` sees an input of
    unit variance, as EDM's networks do.
    """

    def __init__(self, model: UNet, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to (B, C, H, W)."""
        return self.model(x / self.sigma_data, x.new_zeros(len(x)))

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return self.model.feature_layers()


class ClassifyingEncoder(nn.Module):
    """The encoder of a U-Net, a mean over positions, and a linear layer: logits of ``num_classes`` classes.

    The decoder of ``model`` is dropped from it. The linear layer starts at zero, so everything random is in ``model``.
    """

    def __init__(self, model: UNet, num_classes: int, sigma_data: float = 0.5) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.model = model
        self.model.dec = nn.ModuleDict()
        self.sigma_data = float(sigma_data)
        self.head = nn.Linear(cast(Any, list(model.enc.values())[-1]).out_channels, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to logits (B, num_classes)."""
        return self.head(self.model.encode(x / self.sigma_data, x.new_zeros(len(x))).mean((2, 3)))

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return self.model.feature_layers()


def masked_reconstruction(patch: int = 4, share: float = 0.75) -> Objective:
    """The objective of a masked auto-encoder: squared error of the pixels in hidden patches, mean over them, (B,).

    A ``share`` of the ``patch`` by ``patch`` squares is set to zero in the model's input. Which ones is read off the
    batch's noise, so that a mask depends on the training's seed and the step alone.

    Source: He et al. (2022), with a convolutional network, for which hidden patches must be given some value.
    """
    return functools.partial(_masked_loss, patch=patch, share=share)


def _masked_loss(model: nn.Module, batch: Batch, patch: int, share: float) -> Tensor:
    hidden = random_mask(batch.noise, patch, share)  # (B, 1, H, W)
    errors = (model(batch.x0 * (1 - hidden), batch.sigma) - batch.x0).square().mean(1, keepdim=True)
    return (errors * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)


def random_mask(noise: Tensor, patch: int, share: float) -> Tensor:
    """1 in round(``share`` of the patches) of an image, 0 in the others: (B, 1, H, W) from standard normal ``noise``.

    ``noise`` is (B, C, H, W); the patches with the largest means of it are the hidden ones, which makes all choices
    equally likely.

    Raises ``ValueError`` for sides that are no multiple of ``patch``, and when all patches or none would be hidden.
    """
    height, width = noise.shape[-2:]
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patch must divide the sides of the image, {height} by {width}, got {patch}")
    means = F.avg_pool2d(noise.mean(1, keepdim=True), patch)  # (B, 1, H / patch, W / patch)
    scores = means.flatten(1)
    count = round(share * scores.shape[1])
    if not 0 < count < scores.shape[1]:
        raise ValueError(f"share must hide some of the {scores.shape[1]} patches and leave some, got {share}")
    chosen = torch.zeros_like(scores).scatter_(1, scores.topk(count).indices, 1.0)
    return F.interpolate(chosen.reshape(means.shape), scale_factor=patch, mode="nearest")


def classification(model: nn.Module, batch: Batch) -> Tensor:
    """The objective of a classifier: cross-entropy (B,) of its logits and the images' labels."""
    return F.cross_entropy(model(batch.x0, batch.sigma).float(), batch.labels, reduction="none")
