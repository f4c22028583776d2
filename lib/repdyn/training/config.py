"""What determines a training: a frozen configuration, to and from JSON; the untrained denoiser it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from repdyn._torch import seeded
from repdyn.denoisers import EDMDenoiser, PlainDenoiser, VPDenoiser
from repdyn.networks.unet import UNet, UNetConfig
from repdyn.training.augment import NUM_LABELS
from repdyn.training.precision import PRECISIONS
from repdyn.training.terms import (
    EDM,
    FAMILIES,
    VP,
    DDPMSteps,
    EDMWeight,
    Epsilon,
    EpsilonWeight,
    Levels,
    Listed,
    LogNormal,
    NoWeight,
    OwnWeight,
    Preconditioning,
    VPTime,
    Weighting,
    from_json,
)

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


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training. Lengths are counted in images, so budgets compare across batch sizes.

    Defaults follow Karras et al. (2022) where the scale allows. Raises ``ValueError`` for a value out of range.
    """

    dataset: str
    """Name of the images; of data that is passed to :func:`train`, what it is."""
    network: UNetConfig | None
    """Shape of the network; None for a denoiser that is passed to :func:`train`. With ``num_classes`` it is told each
    image's class."""
    images: int
    """Images seen in all, one that is seen again counted again; rounded up to whole batches."""
    batch_size: int = 128
    """Images of one step, of all processes together."""
    learning_rate: float = 1e-3
    """Adam's, after the warm-up."""
    warmup_images: int = 20_000
    """Images over which the learning rate rises linearly from 0."""
    ema_halflife_images: int = 500_000
    """Half-life of the exponential moving average of the weights, in images."""
    ema_rampup: float = 0.05
    """The half-life is at most this share of the images seen so far."""
    flip: bool = False
    """Mirror every other image."""
    augment: float = 0.0
    """Probability of each transform of a non-leaking augmentation: mirroring, quarter turns, translation. The network
    is told of them: its ``augment_dim`` must be 6."""
    preconditioning: Preconditioning = EDM()
    """What is around the network; not looked at for a denoiser that is passed to :func:`train`."""
    levels: Levels = LogNormal()
    """Distribution of the noise levels. Those above what the preconditioning can be told are drawn as its largest."""
    weighting: Weighting = OwnWeight()
    """Weight of the squared error at a noise level."""
    grad_clip: float = 1.0
    """Largest norm of the gradient of all weights together; longer ones are shortened to it."""
    weight_decay: float = 0.0
    """AdamW's, per step and unit of learning rate."""
    precision: str = "auto"
    """Of the products in a step: 'bf16', 'fp16' with scaled losses, 'float32', or 'auto', which is the first of these
    that the device has natively. Weights and their average are float32."""
    seed: int = 0
    """Draws the weights, and for each step images, noise levels, noise, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name in "images batch_size learning_rate ema_halflife_images ema_rampup grad_clip".split():
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}: choose one")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and at least 0, got {self.weight_decay}")
        for name, family in FAMILIES.items():
            if not isinstance(getattr(self, name), family):
                names = ", ".join(known.__name__ for known in family)
                raise ValueError(f"{name} must be one of {names}, got {getattr(self, name)!r}: make one of these")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment must be a probability, got {self.augment}")
        self._check_network()

    def _check_network(self) -> None:
        if self.network is None:
            if self.augment:
                raise ValueError("augment needs a network that is told of it: give its configuration, or leave it 0")
            return
        if self.augment and self.network.augment_dim != NUM_LABELS:
            raise ValueError(
                f"network.augment_dim must be {NUM_LABELS} for augment > 0, got {self.network.augment_dim}"
            )
        largest = self.preconditioning.sigma_max
        if isinstance(self.levels, Listed) and max(self.levels.sigmas) > largest * (1 + 1e-4):
            raise ValueError(
                f"levels.sigmas must be at most {largest:.4g} for {self.preconditioning}, "
                f"got {max(self.levels.sigmas)}: leave larger ones out, or choose another preconditioning"
            )

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainConfig:
        """:func:`config_from_dict`, by which a recorded configuration is read."""
        return config_from_dict(values)

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return -(-self.images // self.batch_size)

    def halvings(self, num: int) -> list[int]:
        """The steps at the end of the training, of its half, its quarter, ...: ``num`` of them, the last first."""
        return [max(1, self.steps >> i) for i in range(num)]


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Rebuild a :class:`TrainConfig` from its JSON form, today's or the older flat one, whose choices were words.

    Raises ``ValueError`` for fields that it does not have and values out of range.
    """
    values = _from_flat(values)
    unknown = set(values) - {field.name for field in fields(TrainConfig)}
    unknown |= set(values["network"] or {}) - {field.name for field in fields(UNetConfig)}
    if unknown:
        raise ValueError(f"config has unknown fields: {', '.join(sorted(unknown))}")
    if values["network"]:
        values["network"] = UNetConfig(**_tuples(values["network"]))
    for family in FAMILIES:
        if family in values:
            values[family] = from_json(family, values[family])
    return TrainConfig(**values)


# Fields of the flat form that today's has not.
_FLAT = ("p_mean", "p_std", "sigma_data", "sigmas")


def _from_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Today's form of ``values``; those in the flat form were written before the three choices were apart.

    There ``preconditioning`` named the noise levels too, unless ``sigmas`` listed them or ``levels``, in one variant,
    named another preconditioning whose levels they were.
    """
    rest = dict(values)
    named = any(isinstance(rest.get(family), str) for family in FAMILIES)
    if not named and not set(_FLAT) & set(rest):
        return rest
    p_mean, p_std, sigma_data, sigmas = map(rest.pop, _FLAT, (-1.2, 1.2, 0.5, None))
    around, levels, weighting = map(rest.pop, FAMILIES, ("edm", "preconditioning", "denoiser"))
    known = {"edm": LogNormal(p_mean, p_std), "epsilon": DDPMSteps(), "vp": VPTime()}
    choices: dict[str, dict[str, Any]] = {
        "preconditioning": {"edm": EDM(sigma_data), "epsilon": Epsilon(), "vp": VP()},
        "levels": {**known, "preconditioning": known.get(around)},
        "weighting": {
            "denoiser": OwnWeight(),
            "edm": EDMWeight(sigma_data),
            "epsilon": EpsilonWeight(),
            "none": NoWeight(),
        },
    }
    for name, given in (("preconditioning", around), ("levels", levels), ("weighting", weighting)):
        if given not in choices[name]:
            raise ValueError(f"{name} must be one of {', '.join(choices[name])}, got {given!r}: choose one")
        rest[name] = asdict(choices[name][given])
    if sigmas is not None:
        rest["levels"] = asdict(Listed(tuple(sigmas)))
    precision = rest.get("precision", "bf16")
    return {**rest, "precision": "float32" if precision == "no" else precision}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def make_denoiser(config: TrainConfig) -> EDMDenoiser | VPDenoiser | PlainDenoiser:
    """The untrained denoiser of a configuration, its weights drawn from the configuration's seed.

    Raises ``ValueError`` for a configuration without a network.
    """
    if config.network is None:
        raise ValueError("config.network is None: pass the denoiser, or a configuration of its network")
    with seeded(config.seed):
        network = UNet(config.network)
    return config.preconditioning.wrap(network)
