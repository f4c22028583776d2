"""Many independent starts of the MoLRG denoiser, trained as one module by one loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repdyn import _checks
from repdyn.denoisers import expand_sigma
from repdyn.networks.molrg_dae import MoLRGDenoiser

__all__ = ["MoLRGStarts"]


class MoLRGStarts(nn.Module):
    """S denoisers like :class:`repdyn.networks.molrg_dae.MoLRGDenoiser`, each with its own start and its own data.

    A sample is (S, n): row s goes to denoiser s and to no other. The loss of a sample is then the sum of theirs, and a
    parameter sees the gradient of its own, so that Adam, which scales each parameter by itself, trains every start
    as if it were alone, if gradients are not clipped. The same data for all of them is ``data[:, None].expand(-1, S,
    -1)``.

    ``bases`` (S, K, n, d) are the orthonormal factors of the parameter ``frames`` (QR), uniformly random from ``seed``;
    they may be assigned. With ``alike`` the K frames of a start are one random frame, plus ``alike`` times one of their
    own, so that all of its subspaces start close to each other. ``delta`` in [0, 1) is one number, or one for each
    start; with ``learn_delta`` it is trained, from that value on, which must be positive.

    Raises ``ValueError`` for d > n, ``alike`` that is not positive, and sizes or delta out of range.
    """

    fixed_delta: Tensor  # unless delta is learned

    def __init__(
        self,
        starts: int,
        n: int,
        d: int,
        K: int,
        delta: float | Sequence[float] = 0.2,
        learn_delta: bool = False,
        seed: int = 0,
        alike: float | None = None,
    ) -> None:
        super().__init__()
        self.starts, self.n = _checks.integer("starts", starts, 1), _checks.integer("n", n, 1)
        self.d, self.K = _checks.integer("d", d, 1), _checks.integer("K", K, 1)
        if self.d > self.n:
            raise ValueError(f"d must be at most n = {n}, got {d}: pass the dimension of a subspace")
        each = delta if isinstance(delta, Sequence) else [delta] * self.starts
        if len(each) != self.starts:
            raise ValueError(f"delta must be one number or {self.starts}, one for each start, got {len(each)}")
        deltas = torch.tensor([_checks.delta_in_range(value, positive=learn_delta) for value in each])
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        frames = torch.randn(self.starts, self.K, self.n, self.d, generator=generator)
        if alike is not None:
            if not alike > 0:
                raise ValueError(f"alike must be positive, got {alike}: equal subspaces would stay equal")
            frames = torch.randn(self.starts, 1, self.n, self.d, generator=generator) + alike * frames
        self.frames = nn.Parameter(torch.linalg.qr(frames).Q)
        if learn_delta:
            self.delta_logit = nn.Parameter(deltas.logit())
        else:
            self.register_buffer("fixed_delta", deltas)

    @property
    def bases(self) -> Tensor:
        """Orthonormal bases (S, K, n, d), differentiable in the parameters."""
        return torch.linalg.qr(self.frames).Q

    @bases.setter
    def bases(self, value: Tensor) -> None:
        if value.shape != self.frames.shape:
            raise ValueError(f"bases must have shape {tuple(self.frames.shape)}, got {tuple(value.shape)}")
        self.frames.data = value.detach().to(self.frames).clone()

    @property
    def delta(self) -> Tensor:
        """Deviation of the data outside its subspace (S,), in [0, 1)."""
        return self.delta_logit.sigmoid() if hasattr(self, "delta_logit") else self.fixed_delta

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Estimates of E[x_0 | x_0 + sigma eps = x] for ``x`` (batch, S, n); a row's noise level is that of all S."""
        if x.shape[1:] != (self.starts, self.n):
            raise ValueError(f"x must have shape (batch, {self.starts}, {self.n}), got {tuple(x.shape)}")
        frame = self.bases.transpose(1, 2).flatten(2)  # (S, n, K d)
        outside = (self.delta**2)[:, None, None]  # (S, 1, 1)
        variance = expand_sigma(sigma, x)[:, 0] ** 2  # (batch, 1)
        zeta, xi = 1 / (1 + variance), outside / (outside + variance)  # (S, batch, 1)
        rows = x.transpose(0, 1)  # (S, batch, n)
        parts = (rows @ frame).unflatten(2, (self.K, self.d))  # (S, batch, K, d)
        contrast = (1 - outside) / ((1 + variance) * (outside + variance))
        weights = torch.softmax(contrast / 2 * parts.square().sum(3), dim=2)  # (S, batch, K)
        projection = (weights[..., None] * parts).flatten(2) @ frame.mT
        return (xi * rows + (zeta - xi) * projection).transpose(0, 1)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at ``sigma``: 1, the plain loss of a denoising auto-encoder."""
        return torch.ones_like(sigma)

    def feature_layers(self) -> dict[str, nn.Module]:
        """No hidden layers: only the posterior can be read."""
        return {}

    def start(self, index: int) -> MoLRGDenoiser:
        """One of the denoisers by itself, a copy."""
        with torch.no_grad():
            single = MoLRGDenoiser(self.n, self.d, self.K, float(self.delta[index]))
            single.bases = self.bases[index]
        return single.to(self.frames.device)
