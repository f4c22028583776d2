"""Figures of the chapter on denoising and posterior means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from repdyn import noise
from repdyn.denoisers import Denoiser
from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.theory.molrg import NoisyMoLRG

__all__ = ["bumps", "clean_queries", "curves", "field", "learned", "noise_levels"]

_DASHES = ["-", "--", "-.", ":"]


def noise_levels(segmentation: Sequence[float]) -> None:
    """DDPM's time steps on the sigma axis, above EDM's grid of 18 and the paper's levels."""
    alpha_bar = noise.ddpm_alpha_bar()
    levels = np.asarray(noise.ddpm_sigma(np.arange(len(alpha_bar)), alpha_bar))
    _, (top, rug) = plt.subplots(2, 1, figsize=(7.0, 4.4), sharex=True, height_ratios=[2.6, 1])
    top.plot(levels, np.arange(len(alpha_bar)), color=COLORS["blue"])
    steps = np.asarray(noise.ddpm_timestep(np.array(segmentation), alpha_bar))
    top.plot(segmentation, steps, "^", color=COLORS["orange"], ms=7)
    arrow = {"arrowstyle": "-", "color": COLORS["orange"], "shrinkB": 6}
    note, last = "the paper's eight levels\nfor segmentation", (segmentation[-1], steps[-1])
    top.annotate(note, last, (8.0, 150), color=COLORS["orange"], arrowprops=arrow)
    top.axvspan(1e-3, levels[0], color=COLORS["grey"], alpha=0.18, lw=0)
    top.text(1.15e-3, 420, f"below {levels[0]:.2f}:\nno step of\na DDPM", color=COLORS["black"])
    top.set_ylabel("DDPM time step $t$")
    rug.plot(noise.edm_sigmas(18), np.ones(18), "o", mfc="none", ms=9, color=COLORS["black"])
    rug.plot(noise.PAPER_SIGMAS, np.zeros(10), "s", ms=6, color=COLORS["green"])
    rug.set_yticks([0, 1], ["the paper's ten", "EDM's grid of 18"])
    rug.set_ylim(-0.6, 1.6)
    rug.grid(axis="y", visible=False)
    sigma_axis(rug).set_xlim(1e-3, 250)


def bumps(
    sigmas: Sequence[float], density: Callable[[Tensor, float], Tensor], denoiser: Denoiser, observed: float = 0.75
) -> None:
    """For each noise level: the noised density, the posterior given one observation; below, the denoiser's curve.

    ``density(x, sigma)`` maps x (num, 1) to (num,); sigma = 0 gives the clean density.
    """
    x = torch.linspace(-3, 3, 1201, dtype=torch.float64)[:, None]
    clean = density(x, 0.0)
    _, axes = plt.subplots(2, len(sigmas), figsize=(7.4, 4.8), sharex=True, sharey="row")
    for sigma, (top, bottom) in zip(sigmas, axes.T, strict=True):
        posterior = clean * torch.exp(-0.5 * ((observed - x[:, 0]) / sigma) ** 2)
        posterior = posterior / torch.trapezoid(posterior, x[:, 0])
        top.fill_between(x[:, 0], clean, color=COLORS["grey"], alpha=0.3, lw=0, label="clean density")
        top.plot(x, density(x, sigma), color=COLORS["blue"], label="noised density")
        top.plot(x, posterior, "--", color=COLORS["orange"], label=f"clean, given $x={observed}$")
        top.set_title(rf"$\sigma={sigma:g}$")
        bottom.plot(x, x, ":", color=COLORS["grey"], label="identity")
        bottom.plot(x, denoiser(x, sigma), color=COLORS["blue"], label=r"denoiser $D(x,\sigma)$")
        estimate = float(denoiser(torch.tensor([[observed]], dtype=torch.float64), sigma))
        bottom.plot([observed], [estimate], "o", color=COLORS["orange"], label="posterior mean", ms=7)
        bottom.set_xlabel("$x$")
    axes[0, 0].set(ylim=(0, 4.4), ylabel="density")
    axes[1, 0].set(ylim=(-2.4, 2.4), xlim=(-3, 3), ylabel="estimate of $x_0$")
    _legend_above(axes)


def _legend_above(axes: np.ndarray) -> None:
    handles, labels = zip(*(a.get_legend_handles_labels() for a in axes[:, 0]), strict=True)
    axes[0, 0].figure.legend(sum(handles, []), sum(labels, []), loc="outside upper center", ncols=3)


def _draw_lines(ax: Axes, model: NoisyMoLRG, **style: Any) -> None:
    for k, basis in enumerate(model.bases):
        ends = 3.4 * torch.stack([-basis[:, 0], basis[:, 0]])
        default: dict[str, Any] = {"ls": _DASHES[k], "color": CLASS_COLORS[k], "lw": 2.2}
        ax.plot(ends[:, 0], ends[:, 1], **default | style)
    ax.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xticks=(-2, 0, 2), yticks=(-2, 0, 2), aspect="equal")
    ax.grid(visible=False)


def field(model: NoisyMoLRG, sigmas: Sequence[float], shown: float = 0.4) -> None:
    """Where a 2-D model sends points: arrows along D(x, sigma) - x, shortened to ``shown``, and dots at D(x, sigma)."""
    _, axes = plt.subplots(1, len(sigmas), figsize=(7.4, 2.9), sharey=True)
    fine, coarse = torch.linspace(-2.4, 2.4, 121), torch.linspace(-2.2, 2.2, 12)
    for ax, sigma in zip(axes, sigmas, strict=True):
        points = torch.cartesian_prod(fine, fine).double()
        density = model.log_density(points, sigma).exp().reshape(121, 121).mT
        ax.contourf(fine, fine, density, levels=8, cmap="Greys", alpha=0.45)
        _draw_lines(ax, model, lw=1.4)
        x = torch.cartesian_prod(coarse, coarse).double()
        estimate = model(x, sigma)
        step = shown * (estimate - x)
        style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.006, "color": "#555555"}
        ax.quiver(*x.T, *step.T, headwidth=5, **style)
        ax.plot(*estimate.T, "o", ms=3.2, mew=0, color=COLORS["pink"])
        ax.set_title(rf"$\sigma={sigma:g}$")


def curves(
    x: ArrayLike, series: Mapping[str, ArrayLike], ylabel: str, ax: Axes | None = None, markers: bool = False
) -> Axes:
    """Named series over the sigma axis, told apart by colour and by dash or marker."""
    ax = plt.subplots()[1] if ax is None else ax
    for i, (name, y) in enumerate(series.items()):
        marker = MARKERS[i] if markers else None
        ax.plot(x, y, ls=_DASHES[i % 4], marker=marker, color=CLASS_COLORS[i], label=name)
    sigma_axis(ax).set_ylabel(ylabel)
    ax.legend()
    return ax


def learned(
    networks: Mapping[str, Callable[[Tensor, float], Tensor]], denoiser: Denoiser, sigmas: Sequence[float]
) -> None:
    """Curves of named learned denoisers, (num, 1) to (num,), over the exact one, where the noised data lies."""
    _, axes = plt.subplots(1, len(sigmas), figsize=(7.4, 2.9), sharey=True)
    for ax, sigma in zip(axes, sigmas, strict=True):
        x = torch.linspace(-1.9 - 2 * sigma, 1.6 + 2 * sigma, 400, dtype=torch.float64)[:, None]
        ax.plot(x, denoiser(x, sigma), color=COLORS["black"], lw=3.5, alpha=0.35, label="posterior mean")
        for i, (name, network) in enumerate(networks.items()):
            ax.plot(x, network(x, sigma).detach(), ls=_DASHES[i % 4], color=CLASS_COLORS[i], lw=1.6, label=name)
        ax.set(title=rf"$\sigma={sigma:g}$", xlabel="$x$")
    axes[0].set_ylabel("estimate of $x_0$")
    axes[0].legend(fontsize=9, handlelength=1.6)


def clean_queries(model: NoisyMoLRG, x0: Tensor, labels: Tensor, sigmas: Sequence[float]) -> None:
    """The data, and the estimate D(x_0, sigma) of each clean point, coloured by class, enlarged to fill its panel."""
    _, axes = plt.subplots(1, 1 + len(sigmas), figsize=(7.4, 2.4))
    panels = [("clean data", x0)] + [(rf"$\sigma={s:g}$", model(x0, s)) for s in sigmas]
    for ax, (title, points) in zip(axes, panels, strict=True):
        zoom = float(x0.norm() / points.norm())
        _draw_lines(ax, model, lw=0.8, color=COLORS["grey"])
        for k in range(model.K):
            ax.plot(*(zoom * points[labels == k]).T, MARKERS[k], ms=3, mew=0, alpha=0.6, color=CLASS_COLORS[k])
        ax.set(title=title if zoom < 1.05 else rf"{title}, {zoom:.1f}$\times$", xticks=[], yticks=[])
