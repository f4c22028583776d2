"""A multilayer perceptron as a denoiser: DDPM's noise prediction with a time input, read on the sigma axis."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn.denoisers import expand_sigma
from repdyn.networks.unet import PositionalEmbedding
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma

__all__ = ["MLPDenoiser"]

_TIME_CHANNELS = 128


class MLPDenoiser(nn.Module):
    """``layers`` linear layers with ReLU between them that predict the noise: D(x, sigma) = x - sigma eps(x_t, t).

    The network sees what a DDPM sees: x_t = x / sqrt(1 + sigma^2), and sines and cosines of the time step t at which
    the linear schedule of ``num_steps`` steps has the noise level sigma. Between steps t is interpolated in log sigma,
    outside the schedule it stays at its end. ``n`` numbers a sample, ``hidden`` units in each hidden layer; the initial
    weights depend on ``seed`` alone. The defaults are those of the paper's synthetic experiments.

    Raises ``ValueError`` for sizes that are not positive, and fewer than two layers.
    Source: Ho et al. (2020); Li et al., arXiv 2502.05743, experimental details of Figure 5.
    """

    def __init__(self, n: int, hidden: int = 1024, layers: int = 3, num_steps: int = 1000, seed: int = 0) -> None:
        super().__init__()
        self.n = _checks.integer("n", n, 1)
        widths = [self.n + _TIME_CHANNELS] + [_checks.integer("hidden", hidden, 1)] * (
            _checks.integer("layers", layers, 2) - 1
        )
        levels = ddpm_sigma(np.arange(_checks.integer("num_steps", num_steps, 2)), ddpm_alpha_bar(num_steps))
        self.register_buffer("log_levels", torch.as_tensor(np.log(levels)), persistent=False)  # (num_steps,), rising
        self.embedding = PositionalEmbedding(_TIME_CHANNELS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_checks.integer("seed", seed, 0))
            self.hidden = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths, widths[1:]))
            self.output = nn.Linear(widths[-1], self.n)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimate E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, *shape) of n numbers a sample."""
        if math.prod(x.shape[1:]) != self.n:
            raise ValueError(f"x must hold {self.n} numbers a sample, got shape {tuple(x.shape)}")
        flat = x.flatten(1)
        sigma = expand_sigma(sigma, flat)  # (batch, 1)
        h = torch.cat([flat / (1 + sigma**2).sqrt(), self.embedding(self._time(sigma[:, 0]))], dim=1)
        for layer in self.hidden:
            h = layer(h)
        return (flat - sigma * self.output(h)).view_as(x)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``, 1 / sigma^2: then the loss is that of the predicted noise.

        Source: Ho et al. (2020), equation 14.
        """
        return sigma**-2

    def feature_layers(self) -> dict[str, nn.Module]:
        """The hidden layers, after their ReLU, in the order of the forward pass: name -> module."""
        return {f"hidden{index}": layer for index, layer in enumerate(self.hidden, start=1)}

    def _time(self, sigma: Tensor) -> Tensor:
        """Time steps (batch,), not necessarily whole, of noise levels (batch,)."""
        log_sigma = sigma.log().to(self.log_levels.dtype)
        right = torch.searchsorted(self.log_levels, log_sigma).clamp(1, len(self.log_levels) - 1)
        low, high = self.log_levels[right - 1], self.log_levels[right]
        return (right - 1 + ((log_sigma - low) / (high - low)).clamp(0, 1)).to(sigma.dtype)
