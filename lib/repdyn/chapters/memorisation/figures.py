"""Figures of the chapter on generalisation and memorisation."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from repdyn.plots import COLORS, MARKERS, show_image, sigma_axis

__all__ = ["along", "copies", "curves_by_size", "live_curves", "loss_by_size", "ratios_below", "rises", "score_by_size"]

_SERIES = ("blue", "sky", "green", "amber", "orange", "pink", "black")
_PARTS = {"layer": "hidden layer", "posterior": "posterior estimate"}
_STYLES = {16: ("blue", "o-"), 8: ("orange", "s--")}


def copies(rows: list[tuple[str, Tensor, Tensor]]) -> Figure:
    """Generated images above their nearest training images, a pair of rows for each model.

    ``rows`` are (name, generated (n, 1, H, W), nearest (n, 1, H, W)), the same n for all.
    """
    fig = plt.figure(figsize=(7.4, 2.0 * len(rows)), layout="constrained")
    parts = fig.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, made, nearest) in zip(parts, rows, strict=True):
        part.suptitle(name, x=0.01, ha="left", fontsize=10.5)
        lines = part.subplots(2, len(made))
        for line, images, what in zip(lines, (made, nearest), ("generated", "nearest in\ntraining"), strict=True):
            for ax, image in zip(line, images, strict=True):
                show_image(ax, image)
            line[0].set_ylabel(what, rotation=0, ha="right", va="center", fontsize=9.5)
    return fig


def ratios_below(ax: Axes, ratios: dict[str, np.ndarray], threshold: float) -> None:
    """Share of images whose ratio of distances is below a value, for several sets of images; name -> ratios (N,)."""
    for (name, values), color, style in zip(
        ratios.items(), ("blue", "orange", "green", "grey"), ("-", "--", "-.", ":")
    ):
        ax.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values), style, color=COLORS[color], label=name)
    ax.axvline(threshold, color=COLORS["black"], lw=1)
    ax.text(threshold - 0.01, 0.97, "copies", ha="right", va="top")
    ax.set(xlim=(0, 1), xlabel="nearest / second nearest distance", ylabel="share of images below")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def live_curves(ax: Axes, sigmas: list[float], readings: dict[str, dict[str, Any]]) -> None:
    """Accuracy of the posterior's probe against sigma for several models: name -> result of ``curves``."""
    for (name, found), color, style in zip(readings.items(), ("blue", "orange"), ("o-", "s--"), strict=False):
        ax.plot(sigmas, found["posterior"]["accuracy"], style, color=COLORS[color], label=name)
    ax.set_ylabel("test accuracy of a linear probe")
    ax.legend(loc="lower left")
    sigma_axis(ax)


def curves_by_size(sigmas: list[float], found: dict[int, dict[int, dict[str, Any]]]) -> Figure:
    """Test accuracy against sigma for every size: columns are widths, rows the hidden layer and the posterior.

    ``found`` is width -> size -> checkpoint.
    """
    fig, axes = plt.subplots(2, len(found), figsize=(7.5, 6.4), sharex=True, sharey="row", squeeze=False)
    everywhere = sorted({size for sizes in found.values() for size in sizes})
    looks = dict(zip(everywhere, zip(_SERIES, MARKERS, strict=True), strict=False))
    for column, (width, sizes) in zip(axes.T, found.items(), strict=True):
        column[0].set_title(f"U-Net, {width} channels")
        for ax, (part, name) in zip(column, _PARTS.items(), strict=True):
            for size, checkpoint in sizes.items():
                color, marker = looks[size]
                values = checkpoint[part]["accuracy"]
                ax.plot(sigmas, values, "-", marker=marker, color=COLORS[color], label=f"{size:,}")
            if ax in axes[:, 0]:
                ax.set_ylabel(f"accuracy, {name}")
        sigma_axis(column[1])
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles, labels, title="training images", ncols=len(labels), loc="outside lower center")
    return fig


def score_by_size(found: dict[int, dict[int, dict[str, Any]]], thresholds: list[float]) -> Figure:
    """Against the size of the training set: share of new images, best accuracies, and heights of the hidden peak.

    ``found`` is width -> size -> checkpoint; the band of the share spans the lowest to the highest of ``thresholds``.
    """
    fig, (top, middle, bottom) = plt.subplots(3, 1, figsize=(7.2, 7.6), sharex=True)
    for width, sizes in found.items():
        color, style = _STYLES[width]
        x = list(sizes)
        novel = np.array([c["novel"][0] for c in sizes.values()])  # (sizes, thresholds)
        top.plot(x, novel[:, 1], style, color=COLORS[color], label=f"{width} channels")
        top.fill_between(x, novel[:, 0], novel[:, 2], color=COLORS[color], alpha=0.15, lw=0)
        for part, face in (("posterior", COLORS[color]), ("layer", "white")):
            best = [c[part]["accuracy"][c[part]["peak"]["index"]] for c in sizes.values()]
            name = f"{_PARTS[part]}, {width} channels"
            middle.plot(x, best, style, color=COLORS[color], mfc=face, label=name)
        for side, face in (("left", COLORS[color]), ("right", "white")):
            shifted = [size * (1.06 if width == 8 else 0.94) for size in sizes]
            drawn = {"fmt": style, "color": COLORS[color], "mfc": face, "label": f"{side} end, {width} channels"}
            _heights(bottom, shifted, list(sizes.values()), side, **drawn)
    top.set(ylabel=f"share of generated images\nthat are new (ratio ≥ {thresholds[1]:.2f})", ylim=(-0.03, 1.05))
    middle.set_ylabel("accuracy at the\nbest noise level")
    bottom.set(ylabel="hidden peak\nabove the ends", xlabel="images in the training set")
    bottom.axhline(0, color=COLORS["black"], lw=1)
    bottom.set_xscale("log", base=2)
    ticks = sorted({size for column in found.values() for size in column})
    bottom.set_xticks(ticks, [f"{size:,}" for size in ticks])
    for ax in (top, middle, bottom):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _heights(ax: Axes, x: list[float], checkpoints: list[dict], side: str, **drawn: Any) -> None:
    """Height of the hidden layer's peak above one end, with its interval."""
    peaks = [c["layer"]["peak"] for c in checkpoints]
    values = np.array([peak[f"above_{side}"] for peak in peaks])
    low, high = np.array([peak[f"{side}_interval"] for peak in peaks]).T
    ax.errorbar(x, values, [values - low, high - values], capsize=3, lw=1.3, **drawn)


def rises(ax: Axes, values: dict[int, dict[int, list[float]]]) -> None:
    """A contrast for each training, width -> size -> values, one for each seed, and their means joined."""
    for width, sizes in values.items():
        color, style = _STYLES[width]
        shift = 1.06 if width == 8 else 0.94
        for size, found in sizes.items():
            ax.plot([shift * size] * len(found), found, style[0], color=COLORS[color], mfc="white")
        x, means = [shift * size for size in sizes], [np.mean(found) for found in sizes.values()]
        ax.plot(x, means, style[1:], color=COLORS[color], lw=1.2)
        ax.plot([], [], style, color=COLORS[color], mfc="white", label=f"{width} channels")
    ax.axhline(0, color=COLORS["black"], lw=1)
    ax.set_xscale("log", base=2)
    ticks = sorted({size for sizes in values.values() for size in sizes})
    ax.set_xticks(ticks, [f"{size:,}" for size in ticks])
    ax.set(xlabel="images in the training set", ylabel=r"rise of accuracy to $\sigma = 0.14$")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def loss_by_size(found: dict[int, dict[int, dict[str, Any]]], level: int, sigma: float) -> Figure:
    """Loss at one noise level against the size of the training set, a panel for each width.

    Of training and of held-out images, of the network and of the denoiser that copies. ``level`` is the place of
    ``sigma`` in the losses.
    """
    fig, axes = plt.subplots(1, len(found), figsize=(7.5, 3.6), sharey=True, squeeze=False)
    series = [
        ("held_loss", "network, held out", "blue", "o-"),
        ("train_loss", "network, training", "orange", "s--"),
        ("copy_held", "copying denoiser, held out", "grey", "^:"),
        ("copy_train", "copying denoiser, training", "black", "v:"),
    ]
    for ax, (width, sizes) in zip(axes[0], found.items(), strict=True):
        for key, name, color, style in series:
            ax.plot(list(sizes), [c[key][level] for c in sizes.values()], style, color=COLORS[color], label=name)
        ax.set_xscale("log", base=2)
        ax.set(title=f"{width} channels", xlabel="images in the training set")
        ax.set_xticks(list(sizes), [f"{size:,}" for size in sizes], rotation=45)
    axes[0, 0].set_ylabel(rf"loss at $\sigma = {sigma:g}$")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, ncols=2, loc="outside lower center")
    return fig


def along(runs: dict[int, list[dict[str, Any]]]) -> Figure:
    """Along the training, a column for each size of the training set: new images, losses, accuracies, peak's height.

    ``runs`` is size -> checkpoints.
    """
    fig, axes = plt.subplots(4, len(runs), figsize=(7.5, 8.6), sharex="col", sharey="row", squeeze=False)
    for column, (size, stages) in zip(axes.T, runs.items(), strict=True):
        x = [c["images"] for c in stages]
        share, loss, accuracy, peak = column
        share.set_title(f"{size:,} images")
        share.plot(x, [c["novel"][0][1] for c in stages], "o-", color=COLORS["blue"], label="generated images")
        estimates = [min(c["estimate_novel"]) for c in stages]
        share.plot(x, estimates, "s--", color=COLORS["orange"], label="one-step estimates")
        for key, name, color, style in (("held", "held out", "blue", "o-"), ("train", "training", "orange", "s--")):
            loss.plot(x, [np.mean(c[f"{key}_loss"]) for c in stages], style, color=COLORS[color], label=name)
        for part, color, style in (("posterior", "blue", "o-"), ("layer", "orange", "s--")):
            best = [c[part]["accuracy"][c[part]["peak"]["index"]] for c in stages]
            accuracy.plot(x, best, style, color=COLORS[color], label=_PARTS[part])
        _heights(peak, x, stages, "left", fmt="o-", color=COLORS["blue"], label="left end")
        _heights(
            peak, [1.05 * images for images in x], stages, "right", fmt="s--", color=COLORS["orange"], label="right end"
        )
        peak.axhline(0, color=COLORS["black"], lw=1)
        peak.set_xscale("log", base=2)
        peak.set_xticks(x[::2], [f"{images // 1024}k" for images in x[::2]])
    fig.supxlabel("images seen (k: 1,024)", fontsize=10.5)
    names = ("share that is new", "mean loss", "best accuracy", "hidden peak\nabove the ends")
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    for ax in axes[:, -1]:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    return fig
