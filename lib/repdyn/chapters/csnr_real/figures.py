"""Figures of the chapter on the CSNR of real features and posteriors."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from repdyn.features import POSTERIOR
from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis

__all__ = ["WAY_NAMES", "Pair", "agreement", "first_directions", "made_how", "overlapping", "pairs", "scatter"]

#: What the ways of making bases are called in legends.
WAY_NAMES = {
    "raw": "as they are",
    "centred": "class mean off",
    "mean-off": "common mean off",
    "shared-off": "shared directions off",
}
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


class Pair(NamedTuple):
    """One model, from clean and from noisy input, each a :func:`repdyn.chapters.csnr_real.measure.dataset`."""

    name: str
    clean: xr.Dataset
    noisy: xr.Dataset


def first_directions(means: Tensor, bases: Tensor, shape: tuple[int, ...], classes: tuple[str, ...]) -> Figure:
    """Mean image of each class (K, D) above its first singular vector, from bases (K, D, rank)."""
    fig, axes = plt.subplots(2, len(means), figsize=(7.4, 1.9))
    for column, mean, basis, name in zip(axes.T, means, bases, classes, strict=True):
        first = basis[:, 0] * (basis[:, 0] @ mean).sign()
        for ax, vector in zip(column, (mean, first), strict=True):
            picture = vector.view(shape).permute(1, 2, 0)
            low, high = picture.min(), picture.max()
            ax.imshow(((picture - low) / (high - low)).squeeze(-1).numpy(), cmap="gray")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        column[0].set_title(name.split("/")[0].replace(" ", "\n"), fontsize=9)
    for ax, label in zip(axes[:, 0], ("mean", "first\ndirection"), strict=True):
        ax.set_ylabel(label, fontsize=9.5, rotation=0, ha="right", va="center")
    return fig


def overlapping(ax: Axes, sigma: np.ndarray, gains: dict[int, np.ndarray], d: int) -> None:
    """CSNR over its floor against ``sigma`` (S,), one curve for each number of shared dimensions out of ``d``."""
    for (shared, gain), color, marker, style in zip(gains.items(), CLASS_COLORS, MARKERS, _STYLES, strict=False):
        label = f"{shared} of {d} dimensions shared"
        ax.plot(sigma, gain, color=color, marker=marker, ls=style, markevery=3, label=label)
    ax.axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="floor")
    ax.set_yscale("log")
    ax.set_ylabel("CSNR / floor")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    sigma_axis(ax)


def pairs(entries: list[Pair], *, way: str = "raw", rank: int = 1, ceiling: bool = True) -> Figure:
    """For each model two rows of panels, CSNR over floor and accuracy; columns: the posterior, the best layer.

    Bars are standard errors over the test images. With ``ceiling``, also the CSNR of the estimates (clean input) once
    they are projected onto the subspace of their own class.
    """
    fig, axes = plt.subplots(2 * len(entries), 2, figsize=(7.4, 4.6 * len(entries)), sharex=True, squeeze=False)
    for entry, top, bottom in zip(entries, axes[::2], axes[1::2], strict=True):
        for ax, below, name in zip(top, bottom, (POSTERIOR, entry.clean.best_layer), strict=True):
            for data, kind, color, style in (
                (entry.clean, "clean input", "blue", "o-"),
                (entry.noisy, "noisy input", "orange", "s--"),
            ):
                at = data.sel(layer=name, way=way, rank=rank)
                options = {"fmt": style, "color": COLORS[color], "capsize": 3, "label": kind}
                ax.errorbar(data.sigma, _gain(at.csnr, data), _gain(at.error, data), **options)
                spread = np.sqrt(at.accuracy * (1 - at.accuracy) / data.num_test)
                below.errorbar(data.sigma, at.accuracy, spread, **options)
            if ceiling:
                projected = entry.clean.projected.sel(layer=name, way=way, rank=rank)
                ax.plot(
                    entry.clean.sigma,
                    _gain(projected, entry.clean),
                    "^:",
                    color=COLORS["grey"],
                    label="projected on own class",
                )
            ax.axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="floor")
            ax.set_title(f"{entry.name} {name}".strip())
            sigma_axis(below)
        top[0].set_ylabel(f"CSNR / floor, rank {rank}")
        bottom[0].set_ylabel("probe accuracy")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return fig


def made_how(data: xr.Dataset, names: list[str]) -> Figure:
    """CSNR over its floor against sigma: a row for each quantity, a column for each way, a line for each rank."""
    fig, axes = plt.subplots(len(names), data.sizes["way"], figsize=(7.5, 2.3 * len(names)), sharex=True, sharey="row")
    for row, name in zip(axes, names, strict=True):
        for ax, way in zip(row, data.way.values, strict=True):
            for rank, color, marker, style in zip(data["rank"].values, CLASS_COLORS, MARKERS, _STYLES, strict=False):
                gain = _gain(data.csnr.sel(layer=name, way=way, rank=rank), data)
                label = f"rank {rank}"
                ax.plot(data.sigma, gain, color=color, marker=marker, ls=style, ms=3.5, lw=1.4, label=label)
            ax.axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
            ax.set_xscale("log")
            ax.set_xticks([0.01, 1])
        row[0].set_ylabel(f"{name}\nCSNR / floor")
    for top, bottom, way in zip(axes[0], axes[-1], data.way.values, strict=True):
        top.set_title(WAY_NAMES[way], fontsize=9.5)
        bottom.set_xlabel(r"noise level $\sigma$", fontsize=9.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return fig


def agreement(entries: list[Pair], unrelated: np.ndarray) -> Figure:
    """Spearman's correlation over levels of CSNR and accuracy with its interval, for each way and rank.

    Grey: the middle 95 % of ``unrelated``, the correlations of curves that have a peak each and nothing else in common.
    """
    fig, axes = plt.subplots(len(entries), 2, figsize=(7.4, 3.6 * len(entries)), sharey=True, squeeze=False)
    low, high = np.quantile(unrelated, [0.025, 0.975])
    for row, entry in zip(axes, entries, strict=True):
        data = entry.clean
        for ax, name in zip(row, (POSTERIOR, data.best_layer), strict=True):
            ax.axhspan(low, high, color=COLORS["grey"], alpha=0.15, lw=0)
            for w, (way, color, marker) in enumerate(zip(data.way.values, CLASS_COLORS, MARKERS, strict=False)):
                x = np.arange(data.sizes["rank"]) + 0.16 * (w - 1.5)
                values = data.spearman.sel(layer=name, way=way).transpose("bound", "rank")
                middle = values.sel(bound="value")
                bars = np.abs(values.sel(bound=["low", "high"]) - middle)
                ax.errorbar(x, middle, bars, fmt=marker, color=color, capsize=2, label=WAY_NAMES[way])
            ax.axhline(0, color=COLORS["black"], lw=1)
            ax.set_xticks(range(data.sizes["rank"]), data["rank"].values)
            ax.set(xlabel="rank of the bases", title=f"{entry.name} {name}".strip(), ylim=(-1.05, 1.05))
        row[0].set_ylabel("rank correlation\nof CSNR and accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    return fig


def scatter(data: xr.Dataset, *, way: str = "raw", rank: int = 1) -> Figure:
    """Accuracy against CSNR over floor, a line through the noise levels of each hidden layer; rings: lowest level."""
    fig, ax = plt.subplots(figsize=(7.4, 4.2))
    hidden = [name for name in data.layer.values if name != POSTERIOR]
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(hidden)))
    for i, (name, color) in enumerate(zip(hidden, colors, strict=True)):
        at = data.sel(layer=name, way=way, rank=rank)
        gain, accuracy = _gain(at.csnr, data), at.accuracy
        ax.plot(gain, accuracy, "-", marker=MARKERS[i % len(MARKERS)], color=color, ms=4, lw=1, label=name)
        ax.plot(gain[0], accuracy[0], "o", ms=10, mfc="none", mec=color)
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 3, 4], ["1", "2", "3", "4"])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(f"CSNR / floor, rank {rank}")
    ax.set_ylabel("probe accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return fig


def _gain(ratio: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
    """A ratio over the floor 1 / (K - 1)."""
    return (data.classes - 1) * ratio
