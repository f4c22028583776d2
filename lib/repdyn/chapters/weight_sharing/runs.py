"""One denoising auto-encoder, of one noise level or many: its training, and what is read from it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from repdyn import datasets, features, training
from repdyn._torch import seeded
from repdyn.datasets.subset import image_subset
from repdyn.images import to_unit_range
from repdyn.metrics.identity import closeness
from repdyn.networks import MLP, UNet, UNetConfig
from repdyn.noise import PAPER_SIGMAS
from repdyn.probes import probe_curves
from repdyn.training import (
    EDM,
    VP,
    EDMWeight,
    EpsilonWeight,
    Listed,
    LogNormal,
    NoWeight,
    OwnWeight,
    Plain,
    TrainConfig,
    VPTime,
)
from repdyn.training.terms import Levels, Preconditioning, Weighting

__all__ = ["DAEConfig", "Material", "learn", "levels", "material", "measure", "pixels", "untrained"]

# What the words of a configuration stand for.
_AROUND: dict[str, Preconditioning] = {"vp": VP(), "edm": EDM(), "none": Plain()}
_LEVELS: dict[str, Levels] = {"vp": VPTime(), "edm": LogNormal(), "none": LogNormal()}
_WEIGHTINGS: dict[str, Weighting] = {
    "denoiser": OwnWeight(),
    "edm": EDMWeight(),
    "epsilon": EpsilonWeight(),
    "none": NoWeight(),
}


@dataclass(frozen=True)
class DAEConfig:
    """What is learned, by what, for how long, and what is read from it."""

    dataset: str = "fashion-mnist"
    """Name of the images: the training has all of its training images."""
    pool: int = 2
    """Images are averaged over blocks of ``pool`` pixels a side; 1 leaves them as they are."""
    sigmas: tuple[float, ...] | None = (0.002,)
    """Noise levels of the training, drawn evenly, in units of images in [-1, 1]: one makes a single-level DAE, None a
    diffusion model, at the continuous levels of its ``preconditioning``."""
    preconditioning: str = "vp"
    """'vp', 'edm', or 'none': the network alone, with the levels of 'edm'."""
    weighting: str = "denoiser"
    """Of the squared error: that of the 'denoiser' for its preconditioning, which for 'none' is the plain one; 'edm' or
    'epsilon' for any; or 'none'."""
    dropout: float = 0.0
    """Probability with which a hidden activation is dropped in training."""
    weight_decay: float = 0.0
    """AdamW's, per step and unit of learning rate."""
    network: str = "mlp"
    """An 'mlp' or a 'unet'."""
    widths: tuple[int, ...] = (256, 256, 256)
    """Units of the hidden layers of an 'mlp'; of a 'unet' the channels at each resolution, from the highest, multiples
    of the first."""
    images: int = 64_000
    """Images seen in the training in all, one that is seen again counted again; 0 leaves the network untrained."""
    batch_size: int = 64
    """Images of one step."""
    learning_rate: float = 1e-3
    """Adam's, after a warm-up over a twentieth of the training."""
    early: tuple[float, ...] = (0.1,)
    """Shares of the training, each between 0 and 1, after which the network is read too; it is always read at the
    end."""
    read: tuple[float, ...] = ()
    """Noise levels that are read, of clean images; if empty, those of the training, of a diffusion model the paper's
    ten."""
    num_train: int = 3000
    """Training images for the probes, the same for all seeds."""
    num_test: int = 2000
    """Test images, the same for all seeds."""
    validation: float = 1 / 3
    """Share of the probes' images that is set aside."""
    num_noisy: int = 100
    """Test images that show how close the denoiser is to the identity."""
    num_kept: int = 500
    """Test images whose features are returned."""
    l2: float = 1e-2
    """The probes' penalty, on features that are standardised."""
    seed: int = 0
    """Draws weights, order, noise and dropout."""

    def __post_init__(self) -> None:
        choices = (("preconditioning", _AROUND), ("weighting", _WEIGHTINGS), ("network", ("mlp", "unet")))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.network == "unet" and (not self.widths or any(width % self.widths[0] for width in self.widths)):
            raise ValueError(f"widths of a 'unet' must be multiples of the first, got {self.widths}")
        if self.images < 0 or not all(0 < share < 1 for share in self.early):
            raise ValueError(f"images must not be negative, early between 0 and 1, got {self.images}, {self.early}")


class Material(NamedTuple):
    """Images in [-1, 1], averaged over blocks, and labels: for the training, the probes, and the test."""

    images: Tensor
    probed: tuple[Tensor, Tensor]
    tested: tuple[Tensor, Tensor]


def levels(config: DAEConfig) -> tuple[float, ...]:
    """The noise levels at which a configuration is read."""
    return config.read or config.sigmas or PAPER_SIGMAS


def material(config: DAEConfig) -> Material:
    """The images of a configuration; those of probes and test do not depend on its seed."""
    default = DAEConfig(dataset=config.dataset, pool=config.pool, num_train=config.num_train, num_test=config.num_test)
    return _material(default)


@functools.lru_cache(maxsize=1)  # the runs of a sweep have the same
def _material(config: DAEConfig) -> Material:
    read = [image_subset(config, split) for split in ("train", "test")]
    probed, tested = ((to_unit_range(part.images, config.pool), part.labels) for part in read)
    return Material(to_unit_range(datasets.load(config.dataset, "train").images, config.pool), probed, tested)


def untrained(config: DAEConfig, shape: Sequence[int]) -> nn.Module:
    """The untrained denoiser of a configuration for images of ``shape`` (C, H, W), its weights from its seed."""
    network: nn.Module
    with seeded(config.seed):
        if config.network == "mlp":
            network = MLP(shape[0] * shape[1] * shape[2], config.widths, config.dropout)
        else:
            channels = config.widths[0]
            network = UNet(
                UNetConfig(
                    resolution=shape[1], channels=shape[0], model_channels=channels, num_blocks=1, attn_resolutions=(),
                    channel_mult=tuple(width // channels for width in config.widths), dropout=config.dropout,
                )
            )  # fmt: skip
    return _AROUND[config.preconditioning].wrap(network)


def learn(config: DAEConfig, images: Tensor) -> Iterator[tuple[int, nn.Module]]:
    """Train on ``images`` (N, C, H, W), yielding (images seen, averaged denoiser) at each stop.

    The denoiser is the live one: measure it before going on.
    """
    denoiser = untrained(config, images.shape[1:])
    if not config.images:
        yield 0, denoiser.eval()
        return
    plan = TrainConfig(
        dataset=config.dataset, network=None, images=config.images, batch_size=config.batch_size,
        learning_rate=config.learning_rate, warmup_images=config.images // 20,
        levels=_LEVELS[config.preconditioning] if config.sigmas is None else Listed(config.sigmas),
        weighting=_WEIGHTINGS[config.weighting], weight_decay=config.weight_decay, seed=config.seed,
        precision="float32",  # bfloat16 rounds a pixel by more than the lowest noise levels
    )  # fmt: skip
    stops = {plan.steps, *(max(1, round(share * plan.steps)) for share in config.early)}
    for step in training.train(plan, denoiser=denoiser, data=images):
        if step.step in stops:
            yield step.images, step.ema


def measure(config: DAEConfig, _folder: Path | None = None) -> dict[str, Any]:
    """Train and read one configuration: ``sigmas``, ``layers``, ``kept``, one entry of ``checkpoints`` for each stop.

    A checkpoint has ``images``, the ``validation`` and ``test`` accuracy of linear probes (layer, level) and
    :func:`repdyn.metrics.identity.closeness` at each level: ``error``, ``change``, ``jacobian``. Layers are all hidden
    ones of an MLP, and those of lowest resolution of a U-Net, averaged over positions. ``kept`` are features of test
    images at the middle one of these, at the end of the training, (level, image, channel). Plain lists.
    """
    own, checkpoints, found = material(config), [], {}
    for seen, denoiser in learn(config, own.images):
        found = _features(config, denoiser, own)
        checkpoints.append({"images": seen, **_accuracies(config, found, own), **_closeness(config, denoiser, own)})
    names = list(found)
    every = max(1, config.num_test // config.num_kept)
    kept = [level[config.num_train :: every][: config.num_kept] for level in found[names[len(names) // 2]]]
    kept = torch.stack(kept).double().tolist()
    return {"sigmas": list(levels(config)), "layers": names, "checkpoints": checkpoints, "kept": kept}


def pixels(config: DAEConfig) -> float:
    """Test accuracy of the same probe on the averaged images themselves."""
    own = material(config)
    images = torch.cat([own.probed[0], own.tested[0]]).flatten(1)
    return _accuracies(config, {"pixels": [images]}, own)["test"][0][0]


def _features(config: DAEConfig, denoiser: nn.Module, own: Material) -> dict[str, list[Tensor]]:
    """Layer -> features (N, D) at each level, of the images of the probes, then those of the test."""
    *names, _ = features.layers(denoiser)
    if config.network == "unet":
        lowest = own.images.shape[2] >> (len(config.widths) - 1)
        names = [name for name in names if f"/{lowest}x{lowest}_" in name and "down" not in name]
    images = torch.cat([own.probed[0], own.tested[0]])
    read = [features.extract(denoiser, images, sigma, names) for sigma in levels(config)]
    return {name: [level[name] for level in read] for name in names}


def _accuracies(config: DAEConfig, found: dict[str, list[Tensor]], own: Material) -> dict[str, list[list[float]]]:
    labels, tested = own.probed[1], own.tested[1]
    splits = [datasets.stratified_split(labels, round(config.validation * len(labels)), seed=0)]
    curves = [probe_curves(activations, labels, tested, splits, config.l2) for activations in found.values()]
    return {
        "validation": [curve.validation[0].tolist() for curve in curves],
        "test": [curve.correct[0].mean(1).tolist() for curve in curves],
    }


def _closeness(config: DAEConfig, denoiser: nn.Module, own: Material) -> dict[str, list[float]]:
    images = own.tested[0][:: max(1, config.num_test // config.num_noisy)][: config.num_noisy]
    images = images.to(next(denoiser.parameters()).device)
    found = [closeness(denoiser, images, sigma, seed=0) for sigma in levels(config)]
    return {key: [getattr(level, key) for level in found] for key in ("error", "change", "jacobian")}
