"""What the loss is told, three choices apart: what is around the network, the noise levels, and the weight of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from repdyn.denoisers import EDMDenoiser, PlainDenoiser, VPDenoiser, edm_loss_weight
from repdyn.noise import VP_TIMES, ddpm_alpha_bar, ddpm_sigma, vp_sigma

__all__ = [
    "EDM",
    "VP",
    "DDPMSteps",
    "EDMWeight",
    "Epsilon",
    "EpsilonWeight",
    "Levels",
    "Listed",
    "LogNormal",
    "NoWeight",
    "OwnWeight",
    "Plain",
    "Preconditioning",
    "VPTime",
    "Weighting",
    "from_json",
]


# ---------------------------------------------------------------------------------------------- around the network


@dataclass(frozen=True)
class EDM:
    """:class:`repdyn.denoisers.EDMDenoiser` around the network. Source: Karras et al. (2022), table 1."""

    kind: str = field(default="edm", init=False, repr=False)
    """Its name in JSON."""
    sigma_data: float = 0.5
    """Standard deviation of the data, positive."""
    sigma_max: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        _positive("sigma_data", self.sigma_data)

    def wrap(self, network: nn.Module) -> EDMDenoiser:
        """The denoiser that ``network`` becomes."""
        return EDMDenoiser(network, self.sigma_data)


@dataclass(frozen=True)
class Epsilon:
    """:class:`repdyn.denoisers.VPDenoiser` around the network: DDPM's 1000 steps, the noise is predicted.

    Source: Ho et al. (2020).
    """

    kind: str = field(default="epsilon", init=False, repr=False)
    """Its name in JSON."""

    def wrap(self, network: nn.Module) -> VPDenoiser:
        """The denoiser that ``network`` becomes."""
        return VPDenoiser(network)

    @property
    def sigma_max(self) -> float:
        """The largest noise level that the network can be told: that of the last step."""
        return float(_ddpm_levels()[-1])


@dataclass(frozen=True)
class VP:
    """:class:`repdyn.denoisers.VPDenoiser` around the network, in continuous time.

    Source: Karras et al. (2022), table 1, after Song et al. (2021).
    """

    kind: str = field(default="vp", init=False, repr=False)
    """Its name in JSON."""
    sigma_max: ClassVar[float] = float(vp_sigma(1.0))

    def wrap(self, network: nn.Module) -> VPDenoiser:
        """The denoiser that ``network`` becomes."""
        return VPDenoiser(network, 1 / (1 + np.asarray(vp_sigma(VP_TIMES)) ** 2))


@dataclass(frozen=True)
class Plain:
    """:class:`repdyn.denoisers.PlainDenoiser`: nothing around the network, which is told the noise level."""

    kind: str = field(default="plain", init=False, repr=False)
    """Its name in JSON."""
    sigma_max: ClassVar[float] = math.inf

    def wrap(self, network: nn.Module) -> PlainDenoiser:
        """The denoiser that ``network`` becomes."""
        return PlainDenoiser(network)


# ----------------------------------------------------------------------------------------------- the noise levels


@dataclass(frozen=True)
class LogNormal:
    """log sigma is normal, with ``mean`` and standard deviation ``std``. Source: Karras et al. (2022), table 1."""

    kind: str = field(default="log-normal", init=False, repr=False)
    """Its name in JSON."""
    mean: float = -1.2
    """Mean of log sigma, finite."""
    std: float = 1.2
    """Standard deviation of log sigma, positive."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}: pass that of log sigma")
        _positive("std", self.std)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """``num`` noise levels, float32 (num,)."""
        return (torch.randn(num, generator=generator) * self.std + self.mean).exp()


@dataclass(frozen=True)
class DDPMSteps:
    """The noise levels of DDPM's 1000 time steps, drawn evenly. Source: Ho et al. (2020)."""

    kind: str = field(default="ddpm-steps", init=False, repr=False)
    """Its name in JSON."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """``num`` noise levels, float32 (num,)."""
        return _drawn_of(_ddpm_levels(), num, generator)


@dataclass(frozen=True)
class VPTime:
    """Noise levels at times drawn evenly, :func:`repdyn.noise.vp_sigma`. Source: Karras et al. (2022), table 1."""

    kind: str = field(default="vp-time", init=False, repr=False)
    """Its name in JSON."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """``num`` noise levels, float32 (num,)."""
        time = torch.rand(num, generator=generator, dtype=torch.float64)
        return torch.as_tensor(vp_sigma((VP_TIMES[0] + (1 - VP_TIMES[0]) * time).numpy()), dtype=torch.float32)


@dataclass(frozen=True)
class Listed:
    """These noise levels and no other, drawn evenly; one makes a denoising auto-encoder."""

    kind: str = field(default="listed", init=False, repr=False)
    """Its name in JSON."""
    sigmas: tuple[float, ...]
    """The levels, positive and finite, at least one."""

    def __post_init__(self) -> None:
        if not self.sigmas or not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise ValueError(f"sigmas must be positive and finite, at least one, got {self.sigmas}: pass noise levels")
        object.__setattr__(self, "sigmas", tuple(self.sigmas))

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """``num`` noise levels, float32 (num,)."""
        return _drawn_of(torch.tensor(self.sigmas, dtype=torch.float32), num, generator)


# ------------------------------------------------------------------------------------ the weight of a squared error


@dataclass(frozen=True)
class OwnWeight:
    """What the denoiser itself asks for, its ``loss_weight(sigma)``: that of its preconditioning."""

    kind: str = field(default="own", init=False, repr=False)
    """Its name in JSON."""

    def check(self, denoiser: nn.Module) -> None:
        """Raise ``ValueError`` for a denoiser that asks for nothing."""
        if not hasattr(denoiser, "loss_weight"):
            raise ValueError(f"{type(denoiser).__name__} has no loss_weight(sigma): give it one, or choose a weighting")

    def weight(self, denoiser: nn.Module, sigma: Tensor) -> Tensor | float:
        """Weights of the squared errors at ``sigma`` (num,)."""
        return denoiser.loss_weight(sigma)  # type: ignore[operator]


@dataclass(frozen=True)
class EDMWeight:
    """EDM's, for any denoiser: :func:`repdyn.denoisers.edm_loss_weight`."""

    kind: str = field(default="edm", init=False, repr=False)
    """Its name in JSON."""
    sigma_data: float = 0.5
    """Standard deviation of the data, positive."""

    def __post_init__(self) -> None:
        _positive("sigma_data", self.sigma_data)

    def check(self, denoiser: nn.Module) -> None:
        """Any denoiser will do."""

    def weight(self, denoiser: nn.Module, sigma: Tensor) -> Tensor | float:
        """Weights of the squared errors at ``sigma`` (num,)."""
        return edm_loss_weight(sigma, self.sigma_data)


@dataclass(frozen=True)
class EpsilonWeight:
    """1 / sigma^2, for any denoiser: then the loss is that of the predicted noise. Source: Ho et al. (2020)."""

    kind: str = field(default="epsilon", init=False, repr=False)
    """Its name in JSON."""

    def check(self, denoiser: nn.Module) -> None:
        """Any denoiser will do."""

    def weight(self, denoiser: nn.Module, sigma: Tensor) -> Tensor | float:
        """Weights of the squared errors at ``sigma`` (num,)."""
        return sigma**-2


@dataclass(frozen=True)
class NoWeight:
    """The squared error as it is, at all noise levels."""

    kind: str = field(default="none", init=False, repr=False)
    """Its name in JSON."""

    def check(self, denoiser: nn.Module) -> None:
        """Any denoiser will do."""

    def weight(self, denoiser: nn.Module, sigma: Tensor) -> Tensor | float:
        """Weights of the squared errors at ``sigma`` (num,): one."""
        return 1.0


#: What is around a network: ``wrap(network)`` makes it a denoiser, up to the noise level ``sigma_max``.
Preconditioning = EDM | Epsilon | VP | Plain
#: A distribution of noise levels: ``draw(num, generator)``.
Levels = LogNormal | DDPMSteps | VPTime | Listed
#: How loud a squared error is at a noise level: ``weight(denoiser, sigma)``.
Weighting = OwnWeight | EDMWeight | EpsilonWeight | NoWeight

FAMILIES: dict[str, tuple[type, ...]] = {
    "preconditioning": (EDM, Epsilon, VP, Plain),
    "levels": (LogNormal, DDPMSteps, VPTime, Listed),
    "weighting": (OwnWeight, EDMWeight, EpsilonWeight, NoWeight),
}


def from_json(family: str, values: Mapping[str, Any]) -> Any:
    """The object of which ``values`` is the JSON form; ``family`` is 'preconditioning', 'levels' or 'weighting'.

    Raises ``ValueError`` for a kind that the family does not have, and for fields that the kind does not have.
    """
    kinds = {known.kind: known for known in FAMILIES[family]}  # type: ignore[attr-defined]
    rest = dict(values)
    kind = rest.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"{family} must have one of the kinds {', '.join(kinds)}, got {kind!r}: choose one")
    unknown = set(rest) - {known.name for known in fields(kinds[kind])}
    if unknown:
        raise ValueError(f"{family} has unknown fields: {', '.join(sorted(unknown))}: leave them out")
    return kinds[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()})


@cache
def _ddpm_levels() -> Tensor:
    return torch.as_tensor(ddpm_sigma(np.arange(1000), ddpm_alpha_bar()), dtype=torch.float32)


def _drawn_of(levels: Tensor, num: int, generator: torch.Generator) -> Tensor:
    return levels[torch.randint(len(levels), (num,), generator=generator)]


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}: pass a positive number")
