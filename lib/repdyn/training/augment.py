"""Geometric augmentation that does not leak: each image is moved at random, and the network is told how.

Told nothing (zeros), a network trained so denoises images that were not moved. Only transforms that copy pixels: no
interpolation, so that no image gets a blur that the data has not.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MAX_SHIFT", "NUM_LABELS", "augment", "mirror"]

#: Length of the vector that says what was done, the ``augment_dim`` of the network.
NUM_LABELS = 6
#: Largest translation along each axis, as a fraction of the side.
MAX_SHIFT = 0.125


def augment(images: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, turn and shift square ``images`` (B, C, S, S), and say how in labels (B, ``NUM_LABELS``).

    In this order, each for an image with ``probability`` and independently of the others: mirroring left to right and
    top to bottom (label 1), one to three quarter turns counter-clockwise (labels sin and 1 - cos of the angle), and a
    translation down and right, uniform in whole pixels up to ``MAX_SHIFT`` of the side, the image continued by its
    reflection (labels: the fraction of the largest shift). Labels are zero for what was not done; the number of random
    draws does not depend on ``probability``.

    Raises ``ValueError`` when the images are not square. Source: Karras et al. (2022), appendix F.2, after Karras et
    al. (2020).
    """
    num, side = len(images), images.shape[-1]
    if images.shape[-2] != side:
        raise ValueError(f"images must be square to be turned, got {tuple(images.shape[-2:])}: set augment=0")
    done = torch.rand(4, num, generator=generator) < probability
    mirrored_x, mirrored_y = done[0], done[1]
    turns = torch.randint(1, 4, (num,), generator=generator) * done[2]
    largest = int(MAX_SHIFT * side)
    shifts = torch.randint(-largest, largest + 1, (2, num), generator=generator) * done[3]
    images = torch.where(_per_image(mirrored_x), images.flip(3), images)
    images = torch.where(_per_image(mirrored_y), images.flip(2), images)
    for quarter in (1, 2, 3):
        images = torch.where(_per_image(turns == quarter), images.rot90(quarter, (2, 3)), images)
    angle = turns * (torch.pi / 2)
    told = [mirrored_x, mirrored_y, angle.sin().round(), 1 - angle.cos().round(), *(shifts / max(largest, 1))]
    return _translate(images, *shifts), torch.stack([label.float() for label in told], dim=1)


def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
    """``images`` (B, C, H, W), each mirrored left to right with probability one half; nobody is told."""
    return torch.where(
        _per_image(torch.rand(len(images), generator=generator) < 0.5).to(images.device), images.flip(3), images
    )


def _per_image(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]


def _translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    num, channels, side, _ = images.shape
    rows, columns = (_reflect(torch.arange(side) - shift[:, None], side) for shift in (down, right))  # (B, S)
    images = images.gather(2, rows[:, None, :, None].expand(num, channels, side, side))
    return images.gather(3, columns[:, None, None, :].expand(num, channels, side, side))


def _reflect(position: Tensor, side: int) -> Tensor:
    """Positions beyond either edge, mirrored at the pixel of the edge."""
    return side - 1 - (side - 1 - position.abs()).abs()
