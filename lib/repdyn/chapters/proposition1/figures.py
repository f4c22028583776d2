"""Figures of the chapter on Proposition 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.theory.molrg import NoisyMoLRG

__all__ = ["digits", "entropies", "errors", "plane", "rings", "shrinkage"]

# Pale blue (second class) over white to pale orange (first class): strokes and lines stay readable on it.
_WEIGHT_MAP = LinearSegmentedColormap.from_list("weights", ["#9CCBEA", "#FFFFFF", "#F3BE94"])


def shrinkage(sigma: np.ndarray, zeta: np.ndarray, xi: np.ndarray, delta: float) -> Figure:
    """The two shrinkage factors over sigma (num,), their difference, and the window from delta to 1 between them."""
    figure, ax = plt.subplots(figsize=(7.0, 4.0))
    ax.axvspan(delta, 1.0, color=COLORS["amber"], alpha=0.16, lw=0)
    ax.fill_between(sigma, xi, zeta, color=COLORS["amber"], alpha=0.25, lw=0)
    ax.plot(sigma, zeta, color=COLORS["blue"], label=r"$\zeta$, inside the subspace")
    ax.plot(sigma, xi, color=COLORS["orange"], ls="--", label=r"$\xi$, outside")
    ax.plot(sigma, zeta - xi, color=COLORS["black"], ls=":", label=r"$\zeta-\xi$")
    ax.plot(np.sqrt(delta), (1 - delta) / (1 + delta), "o", color=COLORS["black"])
    left, right = sigma[0], sigma[-1]
    edges, texts = [left, delta, 1.0, right], ["keeps everything", "tells signal\nfrom noise", "shrinks everything"]
    for low, high, text in zip(edges, edges[1:], texts, strict=False):
        ax.text(np.sqrt(low * high), 1.03, text, ha="center", va="bottom", fontsize=10)
    sigma_axis(ax)
    ax.set(xlim=(left, right), ylim=(0, 1.25), ylabel="factor", yticks=np.arange(0, 1.01, 0.25))
    ax.axvline(delta, color=COLORS["grey"], lw=0.9)
    ax.axvline(1.0, color=COLORS["grey"], lw=0.9)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plane(model: NoisyMoLRG, sigmas: Sequence[float], reach: float = 2.4, points: int = 13) -> Figure:
    """Strokes from x to a dot at D(x, sigma), on the weight of the first class; n = K = 2, four ``sigmas``."""
    figure, axes = plt.subplots(2, 2, figsize=(7.0, 7.2), sharex=True, sharey=True)
    fine, coarse = _grid(reach, 121), _grid(0.94 * reach, points)
    for ax, sigma in zip(axes.flat, sigmas, strict=True):
        weight = model.class_posterior(fine, sigma)[:, 0].reshape(121, 121)
        shade = ax.imshow(
            weight, cmap=_WEIGHT_MAP, vmin=0, vmax=1, extent=(-reach, reach, -reach, reach), origin="lower"
        )
        _lines(ax, model, reach)
        images = model(coarse, sigma)
        strokes = torch.stack([coarse, images], dim=1).numpy()  # (points^2, 2, 2)
        ax.add_collection(LineCollection(list(strokes), colors="#4A4A4A", linewidths=0.8))
        ax.scatter(*images.numpy().T, s=9, color=COLORS["black"], zorder=3)
        _frame(ax, reach, sigma)
    figure.colorbar(
        shade, ax=axes, location="bottom", shrink=0.6, aspect=30, label="weight $w_1$ of the solid line's class"
    )
    return figure


def rings(model: NoisyMoLRG, sigmas: Sequence[float], radii: Sequence[float], reach: float = 2.1) -> Figure:
    """Images of circles under D(., sigma), for a model in the plane; four ``sigmas``."""
    figure, axes = plt.subplots(2, 2, figsize=(7.0, 7.0), sharex=True, sharey=True)
    angle = torch.linspace(0, 2 * torch.pi, 1441, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)  # (1441, 2)
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, len(radii)))
    for ax, sigma in zip(axes.flat, sigmas, strict=True):
        _lines(ax, model, reach, alpha=0.45)
        for radius, color in zip(radii, colors, strict=True):
            ax.plot(*(radius * circle).numpy().T, color=COLORS["grey"], lw=0.6, alpha=0.6)
            ax.plot(*model(radius * circle, sigma).numpy().T, color=color, lw=1.7)
        _frame(ax, reach, sigma)
    return figure


def entropies(sigma: np.ndarray, curves: Mapping[str, np.ndarray], marks: Mapping[str, float]) -> Figure:
    """Mean entropy of the class posterior, for each input a (seeds, num) array, in units of log K."""
    figure, ax = plt.subplots(figsize=(7.0, 3.8))
    for i, (name, runs) in enumerate(curves.items()):
        dash = ["-", "--"][i % 2]
        style: dict[str, Any] = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": dash, "markevery": 4}
        ax.plot(sigma, runs.mean(0), label=name, **style)
        ax.fill_between(sigma, runs.min(0), runs.max(0), color=CLASS_COLORS[i], alpha=0.2, lw=0)
    for text, place in marks.items():
        ax.axvline(place, color=COLORS["grey"], lw=1.0, ls=":")
        ax.text(place, 1.05, text, color="#4A4A4A", ha="center", va="bottom")
    sigma_axis(ax)
    ax.set(ylim=(-0.02, 1.04), ylabel=r"entropy of $w$ / $\log K$")
    ax.legend(loc="upper left")
    return figure


def errors(sigma: np.ndarray, curves: Mapping[str, np.ndarray], best: str, bound: str) -> Figure:
    """Mean squared errors (num,) over sigma: as they are, and divided by those of the denoiser called ``best``.

    ``bound`` names the curve of an estimator that is told the class: it may lie below the best.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.0, 6.6), sharex=True, height_ratios=[1.15, 1.0])
    rivals = [name for name in curves if name not in (best, bound)]
    styles: dict[str, dict[str, Any]] = {best: {"color": COLORS["black"], "lw": 2.8}}
    styles[bound] = {"color": COLORS["grey"], "ls": ":"}
    dashes = ["--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1))]
    for i, name in enumerate(rivals):
        styles[name] = {"color": CLASS_COLORS[i], "ls": dashes[i], "marker": MARKERS[i], "markevery": (i, 4)}
    for name, curve in curves.items():
        top.plot(sigma, curve, label=name, **styles[name])
        bottom.plot(sigma, curve / curves[best], **styles[name])
    top.set(yscale="log", ylabel=r"mean squared error $E\,\|D-x_0\|^2$")
    top.set_ylim(0.5 * curves[best].min(), 8 * curves[best].max())
    bottom.set(yscale="log", ylabel="error / error of the optimum", ylim=(0.6, 30), yticks=[1, 2, 5, 10, 20])
    bottom.set_yticklabels(["1", "2", "5", "10", "20"])
    bottom.minorticks_off()
    sigma_axis(bottom)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def digits(sigma: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """Correct digits (num,) of several ways to compute one quantity, over sigma; NaN where a way fails altogether."""
    figure, ax = plt.subplots(figsize=(7.0, 4.0))
    for i, (name, values) in enumerate(curves.items()):
        dash = ["-", "--", "-.", ":"][i]
        shown = np.nan_to_num(values, nan=0.0)
        ax.plot(sigma, shown, ls=dash, marker=MARKERS[i], color=CLASS_COLORS[i], label=name, markersize=4.5)
    sigma_axis(ax)
    ax.set(ylim=(-0.5, 17.5), ylabel="correct digits of the score", yticks=[0, 4, 8, 12, 16])
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _grid(reach: float, count: int) -> torch.Tensor:
    """A square grid of points in the plane, (count^2, 2), rows from bottom to top."""
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return torch.stack([x.ravel(), y.ravel()], dim=1)


def _lines(ax: Axes, model: NoisyMoLRG, reach: float, alpha: float = 0.9) -> None:
    """The subspaces of a model in the plane: the first solid, the second dashed."""
    for basis, color, style in zip(model.bases, (COLORS["orange"], COLORS["blue"]), ("-", "--"), strict=True):
        ends = 2 * reach * torch.cat([-basis, basis], dim=1).numpy()  # (2, 2)
        ax.plot(*ends, color=color, ls=style, lw=1.8, alpha=alpha, zorder=1.5)


def _frame(ax: Axes, reach: float, sigma: float) -> None:
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=rf"$\sigma = {sigma:g}$")
    ax.grid(False)
