"""Figures of the chapter on the CSNR and Theorem 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

__all__ = ["draw_classes", "interplay", "posterior_estimates", "probing", "two_costs", "undecided", "validation"]


def interplay(d: int, K: int, delta: float, low: float = 0.01, high: float = 10.0) -> Figure:
    """Denoising rate and class confidence rate over one axis of noise, and the CSNR that they produce.

    The paper's Figure 4; the lowest panel adds the exact CSNR to that of Theorem 2, with both maxima marked.
    """
    sigma, coarse = np.geomspace(low, high, 301), np.geomspace(low, high, 121)
    fig, axes = plt.subplots(3, 1, figsize=(6.5, 6.6), sharex=True)
    axes[0].loglog(sigma, (sigma / delta) ** 2, color=COLORS["green"])
    axes[0].axhline(1.0, color=COLORS["grey"], ls=":", lw=1.2)
    axes[0].set_title(r"denoising rate $\sigma^2/\delta^2$: rises", loc="left")
    axes[1].plot(sigma, csnr.class_confidence(sigma, d=d, K=K, delta=delta)[0], color=COLORS["pink"])
    axes[1].axhline(1.0 / K, color=COLORS["grey"], ls=":", lw=1.2)
    axes[1].annotate("chance, $1/K$", (low, 1.0 / K), xytext=(0, 4), textcoords="offset points", va="bottom")
    axes[1].set_ylim(0.0, 1.06)
    axes[1].set_title(r"class confidence rate $\hat w^+$: falls", loc="left")
    theorem2, exact = (f(s, d=d, K=K, delta=delta) for f, s in ((csnr.theorem2, sigma), (csnr.exact, coarse)))
    axes[2].loglog(sigma, theorem2, "--", color=COLORS["orange"], label="Theorem 2")
    axes[2].loglog(coarse, exact, color=COLORS["blue"], marker="o", markevery=12, label="exact")
    axes[2].axhline(1.0 / ((K - 1) * delta**2), color=COLORS["grey"], ls=":", lw=1.2)
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    axes[2].set_title("CSNR: rises, then falls", loc="left")
    axes[2].legend(loc="upper left")
    for method, color, style in (("theorem2", "orange", "--"), ("exact", "blue", "-")):
        for ax in axes:
            ax.axvline(csnr.peak(d=d, K=K, delta=delta, method=method).sigma, color=COLORS[color], ls=style, lw=0.9)
    sigma_axis(axes[2])
    return fig


def two_costs(d: int, K: int, delta: float) -> Figure:
    """1 / (R - 1) as the sum of the noise that is left and the confusion of classes, with its one minimum."""
    sigma = np.geomspace(0.02, 10.0, 301)
    gain = (1.0 - delta**2) / delta**2 * sigma**2 / (1.0 + sigma**2)  # (zeta - xi) / xi
    w_plus, w_minus = csnr.class_confidence(sigma, d=d, K=K, delta=delta)
    left, confusion = 1.0 / gain, (1.0 + K / gain) * w_minus / (w_plus - w_minus)
    best = csnr.peak(d=d, K=K, delta=delta, method="theorem2").sigma
    fig, ax = plt.subplots(figsize=(6.5, 3.5))
    ax.loglog(sigma, left, "--", color=COLORS["green"], label=r"noise left over, $1/s$")
    ax.loglog(sigma, confusion, "-.", color=COLORS["pink"], label=r"confusion, $(1+K/s)\,y$")
    ax.loglog(sigma, left + confusion, color=COLORS["black"], label=r"their sum, $1/(R-1)$")
    lowest = np.interp(best, sigma, left + confusion)
    ax.plot(best, lowest, "o", color=COLORS["orange"], ms=8, label="its minimum")
    ax.set_ylim(0.01, 300.0)
    ax.legend(loc="lower left")
    sigma_axis(ax)
    return fig


def validation(
    panels: Mapping[str, Sequence[Mapping]], measured: Mapping, levels: np.ndarray, curves: np.ndarray
) -> Figure:
    """Measured, exact and approximate CSNR, one parameter varied at a time (the paper's Figure 14).

    ``panels`` maps a parameter's name to settings {"n", "d", "K", "delta"}; ``measured`` maps the tuple of a setting's
    values to an array (seeds, levels); ``levels`` and ``curves`` are the noise levels of the marks and of the lines.
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 6.4), sharex=True)
    symbols = {"n": "n", "d": "d", "K": "K", "delta": r"\delta"}
    for ax, (name, settings) in zip(axes.flat, panels.items(), strict=True):
        for setting, color, marker in zip(settings, CLASS_COLORS, MARKERS, strict=False):
            model = {key: value for key, value in setting.items() if key != "n"}
            ax.plot(curves, csnr.exact(curves, **model), color=color, lw=1.5)
            ax.plot(curves, csnr.theorem2(curves, **model), color=color, ls="--", lw=1.3)
            values = measured[tuple(setting.values())]
            ax.errorbar(
                levels, values.mean(0), 2.0 * values.std(0, ddof=1), color=color, marker=marker, ls="none",
                capsize=2, label=f"${symbols[name]} = {setting[name]}$",
            )  # fmt: skip
        ax.set_yscale("log")
        ax.set_ylim(top=ax.get_ylim()[1] * 3.0)
        ax.legend(loc="upper left", ncols=1, handletextpad=0.2, labelspacing=0.2)
        sigma_axis(ax, r"noise level $\sigma$" if ax in axes[1] else "").set_title(f"varying ${symbols[name]}$")
    for ax in axes[:, 0]:
        ax.set_ylabel("CSNR")
    line = partial(Line2D, [], [], color=COLORS["black"])
    styles = [line(marker="o", ls="none"), line(), line(ls="--")]
    fig.legend(styles, ["measured", "exact", "Theorem 2"], loc="outside upper center", ncols=3)
    return fig


def undecided(own: np.ndarray, weight: np.ndarray, noise: np.ndarray, frozen: float, groups: int = 10) -> Figure:
    """Where the noise energy comes from: the weight of a wrong class, and shares of noise, by own energy.

    ``own`` (num,) is ||U_k^T x_0||^2, ``weight`` (num,) the class posterior of a wrong class, ``noise`` (num,) the
    energy of the estimate in the wrong subspaces, ``frozen`` the one weight that Theorem 2 uses.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6))
    left.plot(own[:3000], weight[:3000], ".", color=COLORS["blue"], ms=3, alpha=0.35, rasterized=True)
    left.axhline(frozen, color=COLORS["orange"], ls="--", label="frozen weight")
    left.axhline(np.sqrt(np.mean(weight**2)), color=COLORS["black"], label="root mean square")
    left.set(
        yscale="log",
        xlim=(0.0, 18.0),
        ylim=(1e-7, 30.0),
        xlabel=r"energy in its own subspace",
        ylabel="weight of a wrong class",
    )
    left.legend(loc="upper right")
    order = np.array_split(np.argsort(own), groups)
    shares = 100.0 * np.array([noise[group].sum() for group in order]) / noise.sum()
    right.bar(np.arange(1, groups + 1), shares, color=COLORS["blue"], width=0.75)
    right.axhline(100.0 / groups, color=COLORS["orange"], ls="--", label="if the weight were frozen")
    right.set(xlabel="tenth of the samples, by own energy", ylabel="share of the noise, %", xticks=range(1, groups + 1))
    right.grid(axis="x", visible=False)
    right.legend(loc="upper right")
    return fig


def posterior_estimates(model: NoisyMoLRG, sigmas: Sequence[float], num: int, seed: int) -> tuple[Figure, np.ndarray]:
    """Posterior estimates of clean samples as the noise level grows (the paper's Figure 15).

    ``model`` has three one-dimensional classes. Estimates are projected on their three directions, drawn in a plane at
    120 degrees; every panel has its own scale. Returns the figure and the measured CSNR of each panel.
    """
    x, labels = model.sample(num, seed)
    angles = np.pi / 2 + 2.0 * np.pi * np.arange(3) / 3
    plane = np.sqrt(2.0 / 3.0) * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (3, 2), orthonormal columns
    fig, axes = plt.subplots(2, len(sigmas) // 2, figsize=(7.2, 5.3))
    values = np.empty(len(sigmas))
    for i, (ax, sigma) in enumerate(zip(axes.flat, sigmas, strict=True)):
        estimate = model(x, sigma)
        values[i] = csnr.csnr(estimate, labels, model.bases)
        points = (estimate @ torch.cat(list(model.bases), dim=1)).numpy() @ plane
        draw_classes(ax, points, labels.numpy(), plane)
        ax.set_title(rf"$\sigma = {sigma:g}$" + f"\nCSNR {values[i]:.1f}")
    return fig, values


def draw_classes(ax: Axes, points: np.ndarray, labels: np.ndarray, plane: np.ndarray) -> None:
    """Points by class, with a line along each class's direction, scaled to the bulk of the points."""
    size = 1.05 * np.quantile(np.abs(points).max(axis=1), 0.985)
    for k, direction in enumerate(plane):
        ends = 3.0 * size * np.outer([-1.0, 1.0], direction)
        ax.plot(*ends.T, color=CLASS_COLORS[k], lw=0.8, alpha=0.6, zorder=1)
        group = points[labels == k]
        ax.plot(*group.T, MARKERS[k], color=CLASS_COLORS[k], ms=3, alpha=0.55, mew=0, zorder=2)
    ax.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xticks=[], yticks=[])
    ax.grid(visible=False)


def probing(sigmas: np.ndarray, ratios: Mapping[str, np.ndarray], accuracy: np.ndarray, ceiling: float) -> Figure:
    """Ratios of energies above, accuracy of a linear probe on the absolute values of the estimate below.

    ``ratios`` maps a label to values (levels,), ``accuracy`` is (seeds, levels), ``ceiling`` the best possible one.
    """
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.5, 5.4), sharex=True)
    for (label, values), color, style, marker in zip(
        ratios.items(), ("blue", "green", "black"), ("-", "-.", ":"), "os^", strict=False
    ):
        top.plot(sigmas, values, color=COLORS[color], ls=style, marker=marker, label=label)
    top.set(yscale="log", title="ratios of energies")
    top.legend(loc="upper left")
    top.set_ylim(top=top.get_ylim()[1] * 2.5)
    bottom.plot(sigmas, 100.0 * accuracy.T, color=COLORS["orange"], lw=0.7, alpha=0.45)
    bottom.plot(sigmas, 100.0 * accuracy.mean(0), "s-", color=COLORS["orange"], label="linear probe on |estimate|")
    bottom.axhline(100.0 * ceiling, color=COLORS["black"], ls="--", label="largest energy wins, bases known")
    bottom.set(title="accuracy, %")
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bottom.yaxis.set_minor_formatter(NullFormatter())
    bottom.legend(loc="lower right")
    sigma_axis(bottom)
    return fig
