"""The denoiser protocol, Tweedie's formula, the denoising loss, and the preconditionings of EDM and DDPM."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from repdyn.noise import ddpm_alpha_bar, ddpm_sigma

__all__ = [
    "Denoiser",
    "EDMDenoiser",
    "PlainDenoiser",
    "VPDenoiser",
    "dae_loss",
    "denoiser_from_score",
    "edm_coefficients",
    "edm_loss_weight",
    "expand_sigma",
    "score_from_denoiser",
]


class Denoiser(Protocol):
    """Anything that estimates the posterior mean E[x_0 | x_0 + sigma eps = x].

    ``x`` is (batch, *shape), ``sigma`` a positive float or (batch,), in the units of ``x``; the result has the shape
    of ``x``.
    """

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor: ...


def expand_sigma(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Bring ``sigma``, a float or (batch,), to the shape (batch, 1, ..., 1) that multiplies ``x`` (batch, *shape).

    Raises ``ValueError`` when it is not positive and finite, or its length is not that of the batch.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, len(x))):
        raise ValueError(f"sigma must be a float or have shape ({len(x)},), got shape {tuple(sigma.shape)}")
    if not (torch.isfinite(sigma) & (sigma > 0)).all():
        raise ValueError("sigma must be positive and finite")
    return sigma.reshape(-1, *[1] * (x.ndim - 1)).expand(len(x), *[1] * (x.ndim - 1))


def score_from_denoiser(denoiser: Denoiser, x: Tensor, sigma: float | Tensor) -> Tensor:
    """Score of the noised data, grad log p_sigma(x) = (D(x, sigma) - x) / sigma^2, shape of ``x``.

    Equation: ``eq-tweedie``. Source: Robbins (1956), Efron (2011).
    """
    return (denoiser(x, sigma) - x) / expand_sigma(sigma, x) ** 2


def denoiser_from_score(score: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
    """Posterior mean from the score, x + sigma^2 grad log p_sigma(x): Tweedie's formula.

    Equation: ``eq-tweedie``. Source: Robbins (1956), Efron (2011).
    """
    return x + expand_sigma(sigma, x) ** 2 * score


def dae_loss(denoiser: Denoiser, x0: Tensor, sigma: float | Tensor, noise: Tensor) -> Tensor:
    """Squared error per image, ||D(x_0 + sigma eps, sigma) - x_0||^2, as a vector (batch,).

    ``x0`` (batch, *shape) clean data, ``noise`` of the same shape, standard normal. Its mean over data and noise is the
    denoising auto-encoder's objective, minimised by the posterior mean.

    Equation: ``eq-dae-loss``. Source: Vincent (2011).
    """
    error = denoiser(x0 + expand_sigma(sigma, x0) * noise, sigma) - x0
    return error.flatten(1).square().sum(1)


def edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """EDM's c_skip, c_out, c_in, c_noise at noise level ``sigma`` (any shape), for data of standard deviation
    ``sigma_data``.

    They give the network's input and its training target unit variance at every noise level.

    Equation: ``eq-edm-denoiser``. Source: Karras et al. (2022), table 1.
    """
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def edm_loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the squared error at ``sigma``, 1 / c_out^2, which makes every noise level equally loud at the start.

    Equation: ``eq-edm-loss``. Source: Karras et al. (2022), table 1.
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class EDMDenoiser(nn.Module):
    """A network F made a denoiser: D(x, sigma) = c_skip x + c_out F(c_in x, c_noise).

    ``model`` is called as ``model(x, noise_label)`` with ``noise_label`` (batch,). ``sigma_data`` is the standard
    deviation of the data, in the units of ``x``.

    Equation: ``eq-edm-denoiser``. Source: Karras et al. (2022), section 5.
    """

    def __init__(self, model: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.model = model
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: float | Tensor, **conditions: Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, C, H, W) and ``sigma`` a float or (batch,)."""
        sigma = expand_sigma(sigma, x)
        c_skip, c_out, c_in, c_noise = edm_coefficients(sigma, self.sigma_data)
        residual = self.model(c_in * x, c_noise.flatten(), **conditions)
        return c_skip * x + c_out * residual.to(x.dtype)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``: :func:`edm_loss_weight`."""
        return edm_loss_weight(sigma, self.sigma_data)

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return cast(Any, self.model).feature_layers()


class PlainDenoiser(nn.Module):
    """A network that is the denoiser itself, with nothing around it: D(x, sigma) = F(x, ln(sigma) / 4).

    ``model`` is called as ``model(x, noise_label)`` with ``noise_label`` (batch,). It is told the noise level, as
    :class:`EDMDenoiser` tells it, so that one network can serve one level or many; to a model of a single level the
    label is a constant, and so no more than a bias.

    Source: the denoising auto-encoder of Vincent et al. (2008).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, sigma: float | Tensor, **conditions: Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, C, H, W) and ``sigma`` a float or (batch,)."""
        return self.model(x, expand_sigma(sigma, x).flatten().log() / 4, **conditions).to(x.dtype)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``: one."""
        return torch.ones_like(sigma)

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return cast(Any, self.model).feature_layers()


class VPDenoiser(nn.Module):
    """A network trained as a DDPM made a denoiser: it sees x / sqrt(1 + sigma^2) and the time step of that sigma.

    ``model`` is called as ``model(x, timestep)`` with ``timestep`` (batch,), float, counted from 0. ``alpha_bar`` is
    its schedule (default: DDPM's, :func:`repdyn.noise.ddpm_alpha_bar`). ``prediction_type`` says what the network
    predicts: 'epsilon', 'v_prediction' or 'sample'. The time step is interpolated in log sigma, or, without
    ``interpolate``, the nearest whole one. Below the schedule's smallest sigma the network is given time step 0, and
    the error this makes in the posterior mean is at most of the order of sigma; a sigma above its largest is refused.

    Raises ``ValueError`` for an unknown ``prediction_type`` and a schedule that does not fall strictly from below 1 to
    above 0. Source: Ho et al. (2020); Salimans and Ho (2022) for v; Karras et al. (2022), table 1.
    """

    log_sigmas: Tensor

    def __init__(
        self,
        model: nn.Module,
        alpha_bar: np.ndarray | None = None,
        prediction_type: str = "epsilon",
        interpolate: bool = True,
    ) -> None:
        super().__init__()
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type must be 'epsilon', 'v_prediction' or 'sample', got {prediction_type!r}")
        alpha_bar = ddpm_alpha_bar() if alpha_bar is None else np.asarray(alpha_bar, dtype=float)
        inside = alpha_bar.ndim == 1 and len(alpha_bar) > 1 and (alpha_bar > 0).all() and (alpha_bar < 1).all()
        if not inside or not (np.diff(alpha_bar) < 0).all():
            raise ValueError("alpha_bar must be a vector that falls strictly, from below 1 to above 0")
        self.model = model
        self.prediction_type = prediction_type
        self.interpolate = interpolate
        sigmas = ddpm_sigma(np.arange(len(alpha_bar)), alpha_bar)
        self.sigma_min, self.sigma_max = float(sigmas[0]), float(sigmas[-1])
        self.register_buffer("log_sigmas", torch.as_tensor(np.log(sigmas), dtype=torch.float32), persistent=False)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Time steps of the noise levels ``sigma`` (batch,), as floats from 0 to the last step.

        Raises ``ValueError`` for a sigma above the schedule.
        """
        if (sigma > self.sigma_max * (1 + 1e-4)).any():
            raise ValueError(f"sigma must be at most {self.sigma_max:.4g}, the largest of the schedule")
        grid = self.log_sigmas
        level = sigma.float().log().clamp(grid[0], grid[-1])
        right = torch.searchsorted(grid, level).clamp(min=1)
        step = right - 1 + (level - grid[right - 1]) / (grid[right] - grid[right - 1])
        return step if self.interpolate else step.round()

    def forward(self, x: Tensor, sigma: float | Tensor, **conditions: Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, C, H, W) and ``sigma`` a float or (batch,)."""
        sigma = expand_sigma(sigma, x)
        scale = 1 / (1 + sigma**2).sqrt()  # the sqrt(alpha_bar) of this sigma
        output = self.model(scale * x, self.timestep(sigma.flatten()), **conditions).to(x.dtype)
        if self.prediction_type == "epsilon":
            return x - sigma * output
        return output if self.prediction_type == "sample" else scale**2 * x - sigma * scale * output

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``, 1 / sigma^2: then the loss is that of the predicted noise.

        Source: Ho et al. (2020), equation 14.
        """
        return sigma**-2

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return cast(Any, self.model).feature_layers()
