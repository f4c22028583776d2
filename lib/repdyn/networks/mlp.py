"""A multilayer perceptron that is told the noise level, and such a one as a denoiser that predicts the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn._torch import seeded
from repdyn.denoisers import VPDenoiser
from repdyn.networks.blocks import PositionalEmbedding
from repdyn.noise import ddpm_alpha_bar

__all__ = ["MLP", "MLPDenoiser"]

_TIME_CHANNELS = 128


class MLPDenoiser(VPDenoiser):
    """``layers`` linear layers with ReLU between them that predict the noise: D(x, sigma) = x - sigma eps(x_t, t).

    The network sees what a DDPM sees: x_t = x / sqrt(1 + sigma^2), and sines and cosines of the time step t at which
    the linear schedule of ``num_steps`` steps has the noise level sigma. ``n`` numbers a sample, ``hidden`` units in
    each hidden layer; the initial weights depend on ``seed`` alone. The defaults are those of the paper's synthetic
    experiments. The hidden layers, after their ReLU, are called ``hidden1``, ``hidden2``, ...

    Raises ``ValueError`` for sizes that are not positive, and fewer than two layers.
    Source: Ho et al. (2020); Li et al., arXiv 2502.05743, experimental details of Figure 5.
    """

    def __init__(self, n: int, hidden: int = 1024, layers: int = 3, num_steps: int = 1000, seed: int = 0) -> None:
        alpha_bar = ddpm_alpha_bar(_checks.integer("num_steps", num_steps, 2))
        with seeded(_checks.integer("seed", seed, 0)):
            widths = [_checks.integer("hidden", hidden, 1)] * (_checks.integer("layers", layers, 2) - 1)
            network = MLP(n, widths)
        super().__init__(network, alpha_bar)


class MLP(nn.Module):
    """F(x, label) for samples of ``n`` numbers and any shape, with hidden layers of ``widths`` units, ReLU after each.

    The label (batch,), a time step or a noise label, joins the input as sines and cosines. ``dropout`` acts on every
    hidden layer. Raises ``ValueError`` for sizes that are not positive, no hidden layer, or a dropout outside [0, 1).
    """

    def __init__(self, n: int, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.n = _checks.integer("n", n, 1)
        if not widths:
            raise ValueError("widths is empty: give at least one hidden layer")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        sizes = [n + _TIME_CHANNELS, *(_checks.integer("widths", width, 1) for width in widths)]
        self.embedding = PositionalEmbedding(_TIME_CHANNELS)
        last = [nn.Dropout(dropout)] if dropout else []
        self.hidden = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU(), *last) for a, b in zip(sizes, sizes[1:]))
        self.output = nn.Linear(sizes[-1], n)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The output, of the shape of ``x`` (batch, *shape), for labels (batch,)."""
        if math.prod(x.shape[1:]) != self.n:
            raise ValueError(f"x must hold {self.n} numbers a sample, got shape {tuple(x.shape)}")
        h = torch.cat([x.flatten(1), self.embedding(label).to(x.dtype)], dim=1)
        for layer in self.hidden:
            h = layer(h)
        return self.output(h).view_as(x)

    def feature_layers(self) -> dict[str, nn.Module]:
        """The hidden layers, after their ReLU, in the order of the forward pass: name -> module."""
        return {f"hidden{index}": layer for index, layer in enumerate(self.hidden, start=1)}
