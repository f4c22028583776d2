"""What determines a training: a frozen configuration, to and from JSON; the untrained denoiser it describes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from repdyn.denoisers import EDMDenoiser, VPDenoiser
from repdyn.networks.unet import UNet, UNetConfig
from repdyn.noise import VP_TIMES, vp_sigma
from repdyn.training.augment import NUM_LABELS

__all__ = ["CIFAR_UNET", "FASHION_UNET", "TrainConfig", "config_from_dict", "make_denoiser"]

#: Shapes of U-Nets that presets and records share.
FASHION_UNET = UNetConfig(
    resolution=28,
    channels=1,
    model_channels=32,
    channel_mult=(1, 1, 3),
    num_blocks=1,
    attn_resolutions=(7,),
    dropout=0.0,
)


CIFAR_UNET = UNetConfig(
    resolution=32,
    channels=3,
    model_channels=32,
    channel_mult=(1, 1, 4, 4),
    num_blocks=1,
    attn_resolutions=(8,),
    dropout=0.0,
)

_WEIGHTINGS = ("denoiser", "edm", "epsilon", "none")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training. Lengths are counted in images, so budgets compare across batch sizes.

    ``batch_size`` is that of all processes together. ``preconditioning`` is 'edm', with noise levels
    log sigma ~ N(``p_mean``, ``p_std``^2); 'epsilon': a DDPM, with time steps drawn evenly and the error of the
    predicted noise as the loss; or 'vp', the same in continuous time (Karras et al., 2022, table 1). ``sigmas``, if
    given, are the only noise levels, drawn evenly: one makes a denoising auto-encoder. ``weighting`` of the squared
    error at a noise level is that of the 'denoiser' for its preconditioning, 'edm' or 'epsilon' for any, or 'none'.
    ``network`` is None for a denoiser that is passed to :func:`train`. ``flip`` mirrors every other image. ``augment``
    is the probability of each transform of a non-leaking augmentation: mirroring, quarter turns, translation, of which
    the network is told (``network.augment_dim`` must be 6). A network with ``num_classes`` is told each image's class.
    ``weight_decay``, if positive, is AdamW's, per step and unit of learning rate.
    The learning rate rises linearly over ``warmup_images``; the exponential moving average of the weights has a
    half-life of ``ema_halflife_images``, or of ``ema_rampup`` times the images seen, whichever is shorter. Defaults
    follow Karras et al. (2022) where the scale allows.
    """

    dataset: str
    network: UNetConfig | None
    images: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_images: int = 20_000
    ema_halflife_images: int = 500_000
    ema_rampup: float = 0.05
    flip: bool = False
    augment: float = 0.0
    preconditioning: str = "edm"
    sigmas: tuple[float, ...] | None = None
    weighting: str = "denoiser"
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5
    grad_clip: float = 1.0
    weight_decay: float = 0.0
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        positive = "images batch_size learning_rate ema_halflife_images ema_rampup p_std sigma_data grad_clip"
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in ("bf16", "no"):
            raise ValueError(f"precision must be 'bf16' or 'no', got {self.precision!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and at least 0, got {self.weight_decay}")
        if self.preconditioning not in ("edm", "epsilon", "vp"):
            raise ValueError(f"preconditioning must be 'edm', 'epsilon' or 'vp', got {self.preconditioning!r}")
        if self.weighting not in _WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(_WEIGHTINGS)}, got {self.weighting!r}")
        if self.sigmas is not None and not (self.sigmas and all(0 < sigma < math.inf for sigma in self.sigmas)):
            raise ValueError(f"sigmas must be positive and finite, at least one, got {self.sigmas}")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment must be a probability, got {self.augment}")
        if self.network is None:
            if self.augment:
                raise ValueError("augment needs a network that is told of it: give its configuration, or leave it 0")
        elif self.augment and self.network.augment_dim != NUM_LABELS:
            raise ValueError(
                f"network.augment_dim must be {NUM_LABELS} for augment > 0, got {self.network.augment_dim}"
            )

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return -(-self.images // self.batch_size)

    def halvings(self, num: int) -> list[int]:
        """The steps at the end of the training, of its half, its quarter, ...: ``num`` of them, the last first."""
        return [max(1, self.steps >> i) for i in range(num)]


def config_from_dict(values: dict) -> TrainConfig:
    """Rebuild a :class:`TrainConfig` from its JSON form; raises ``ValueError`` for fields it does not have."""
    unknown = set(values) - {field.name for field in fields(TrainConfig)}
    unknown |= set(values["network"] or {}) - {field.name for field in fields(UNetConfig)}
    if unknown:
        raise ValueError(f"config has unknown fields: {', '.join(sorted(unknown))}")
    values = _tuples(values)
    return TrainConfig(**{**values, "network": values["network"] and UNetConfig(**_tuples(values["network"]))})


def _tuples(values: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def make_denoiser(config: TrainConfig) -> EDMDenoiser | VPDenoiser:
    """The untrained denoiser of a configuration, its weights drawn from the configuration's seed.

    Raises ``ValueError`` for a configuration without a network.
    """
    if config.network is None:
        raise ValueError("config.network is None: pass the denoiser, or a configuration of its network")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # and not the GPU's, which is not restored
        network = UNet(config.network)
    if config.preconditioning == "edm":
        return EDMDenoiser(network, config.sigma_data)
    return VPDenoiser(network, None if config.preconditioning == "epsilon" else 1 / (1 + vp_sigma(VP_TIMES) ** 2))
