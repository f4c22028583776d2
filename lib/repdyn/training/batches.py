"""What a step of a training sees: images, noise levels, noise, labels; all from the seed and the step alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repdyn.images import ImageSet, to_unit_range
from repdyn.training.augment import augment, mirror
from repdyn.training.config import TrainConfig

__all__ = ["Batch", "batch_indices", "check", "draw", "dropout_seed", "share", "unlabelled"]

# What a draw is for: the first part of its key, after the configuration's seed.
_ORDER, _NOISE, _DROPOUT, _AUGMENT = range(4)


class Batch(NamedTuple):
    """Clean images (B, C, H, W) in [-1, 1], noise levels (B,), standard normal noise, and what the network is told.

    ``conditions`` holds ``class_labels``, one-hot (B, classes), for a network with classes, and ``augment_labels``
    for one with ``augment_dim``. ``labels`` (B, ...) are those of the images, for an objective that needs them; (0,) if
    the data has none.
    """

    x0: Tensor
    sigma: Tensor
    noise: Tensor
    conditions: dict[str, Tensor]
    labels: Tensor


def unlabelled(data: Tensor | ImageSet) -> ImageSet:
    """A data set of (N, *shape) floating-point samples without labels; ``ValueError`` for anything else.

    An image set is returned as it is.
    """
    if isinstance(data, ImageSet):
        return data
    if not data.is_floating_point() or data.ndim < 2 or not len(data) or not torch.isfinite(data).all():
        raise ValueError(
            f"data must be finite floating-point samples (N, *shape), got {data.dtype} {tuple(data.shape)}"
        )
    return ImageSet(data, torch.empty(0, dtype=torch.int64), (), "")


def check(config: TrainConfig, data: ImageSet) -> None:
    """Raise ``ValueError`` when the network is told classes that the data has not or has more of, or none can flip."""
    if config.flip and data.images.ndim != 4:
        raise ValueError(
            f"flip mirrors images (N, C, H, W), the data has shape {tuple(data.images.shape)}: leave it out"
        )
    classes = _told_classes(config)
    if classes and not len(data.labels):
        raise ValueError(f"network.num_classes is {classes}, but {config.dataset} has no labels: leave it 0")
    if classes and (data.labels.ndim > 1 or int(data.labels.max()) >= classes):
        has = "a label for every pixel" if data.labels.ndim > 1 else f"labels up to {int(data.labels.max())}"
        raise ValueError(f"network.num_classes is {classes}, but {config.dataset} has {has}: change it, or leave it 0")


def draw(step: int, config: TrainConfig, data: ImageSet) -> Batch:
    """The whole batch of step ``step``, on the CPU."""
    indices = batch_indices(step, config, len(data.images))
    x0 = data.images[indices]
    x0 = x0 if x0.is_floating_point() else to_unit_range(x0)
    generator = _generator(config.seed, _NOISE, step)
    sigma = config.levels.draw(len(x0), generator).clamp(max=config.preconditioning.sigma_max)
    noise = torch.randn(x0.shape, generator=generator)
    if config.flip:
        x0 = mirror(x0, generator)
    conditions = {}
    if classes := _told_classes(config):
        conditions["class_labels"] = F.one_hot(data.labels[indices].long(), classes).float()
    if config.augment:
        x0, conditions["augment_labels"] = augment(x0, config.augment, _generator(config.seed, _AUGMENT, step))
    elif config.network is not None and config.network.augment_dim:
        # Told "nothing was done": several processes need a gradient for every parameter.
        conditions["augment_labels"] = x0.new_zeros(len(x0), config.network.augment_dim)
    labels = data.labels[indices] if len(data.labels) else data.labels
    return Batch(x0, sigma, noise, conditions, labels)


def share(batch: Batch, index: int, of: int, device: torch.device) -> Batch:
    """Every ``of``-th image of a batch, from ``index`` on, moved to ``device``: what one process among ``of`` sees."""
    x0, sigma, noise, labels = (value[index::of].to(device) for value in (*batch[:3], batch.labels))
    conditions = {name: value[index::of].to(device) for name, value in batch.conditions.items()}
    return Batch(x0, sigma, noise, conditions, labels)


def _told_classes(config: TrainConfig) -> int:
    return 0 if config.network is None else config.network.num_classes


def batch_indices(step: int, config: TrainConfig, num_images: int) -> Tensor:
    """Positions in an endless stream of epochs, each a fresh permutation."""
    stream = torch.arange(step * config.batch_size, (step + 1) * config.batch_size)
    epochs, places = stream // num_images, stream % num_images
    indices = torch.empty_like(stream)
    for epoch in epochs.unique().tolist():
        order = torch.randperm(num_images, generator=_generator(config.seed, _ORDER, epoch))
        indices[epochs == epoch] = order[places[epochs == epoch]]
    return indices


def dropout_seed(config: TrainConfig, step: int, process: int) -> int:
    """Seed of the dropout of one process in one step: processes must not drop the same units."""
    return _seed(config.seed, _DROPOUT, step, process)


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*key))


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
