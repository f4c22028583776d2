"""Figures of the chapter on segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from repdyn.chapters.unimodal.figures import band
from repdyn.plots import COLORS, sigma_axis

__all__ = ["blocks", "by_class", "curves", "evidence", "examples", "rises", "task"]

_CLASS_STYLES = [("grey", "D-."), ("orange", "s--"), ("green", "^-"), ("blue", "o-")]


def task(images: Tensor, masks: Tensor, classes: tuple[str, ...]) -> Figure:
    """Images (N, 1, H, W) above their masks (N, H, W), each mask titled with its object's class."""
    fig, axes = plt.subplots(2, len(images), figsize=(7.2, 2.1))
    colours = ListedColormap(["#E3E3E3", *color_sequences["tab10"]])
    for (above, below), image, mask in zip(axes.T, images, masks, strict=True):
        above.imshow(image[0], cmap="gray")
        below.imshow(mask, cmap=colours, vmin=0, vmax=10, interpolation="nearest")
        below.set_xlabel(classes[int(mask.max())], fontsize=9)
    _bare(axes)
    axes[0, 0].set_ylabel("image", fontsize=9.5)
    axes[1, 0].set_ylabel("labels", fontsize=9.5)
    return fig


def blocks(sides: list[int], iou: list[float], accuracy: list[float]) -> Figure:
    """The best mean IoU and pixel accuracy of predictions that are constant on squares, against the squares' side."""
    fig, ax = plt.subplots(figsize=(5.6, 2.9))
    ax.plot(sides, accuracy, "s--", color=COLORS["grey"], label="pixel accuracy")
    ax.plot(sides, iou, "o-", color=COLORS["blue"], label="mean IoU")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sides, [str(side) for side in sides])
    ax.set_xlabel("side of the squares, pixels")
    ax.set_ylabel("best possible score")
    ax.legend(loc="lower left")
    return fig


def evidence(sigma: np.ndarray, ratios: dict[int, np.ndarray], peaks: dict[int, float]) -> Figure:
    """The exact CSNR against ``sigma`` (S,) of one patch that sees 1, 4, ... patches of its class, peaks marked."""
    fig, ax = plt.subplots(figsize=(6.6, 3.1))
    styles = [("blue", "-"), ("orange", "--"), ("green", "-.")]
    for (color, style), (num, ratio) in zip(styles, ratios.items(), strict=True):
        label = "the patch alone" if num == 1 else f"{num} patches of one class"
        ax.plot(sigma, ratio, ls=style, color=COLORS[color], label=label)
        ax.axvline(peaks[num], color=COLORS[color], lw=1, ls=":")
    ax.set_yscale("log")
    ax.set_ylabel("CSNR of the optimal denoiser")
    ax.legend(loc="upper left")
    sigma_axis(ax)
    return fig


def curves(ax: Axes, clean: dict[str, Any], noisy: dict[str, Any], untrained: dict[str, Any]) -> None:
    """Mean IoU against sigma, from results of ``measure.measure``; bands span the labelled sets."""
    band(ax, clean["sigmas"], clean["test"], "features, clean input", "blue", "o-")
    band(ax, noisy["sigmas"], noisy["test"], "features, noisy input", "orange", "s--")
    band(ax, untrained["sigmas"], untrained["test"], "untrained network", "grey", "D:")
    for key, label, style in (("patch_place", "raw patches and place", "-."), ("patch", "raw patches", (0, (1, 1)))):
        ax.axhline(np.mean(clean["raw"][key]), color=COLORS["black"], lw=1.2, ls=style, label=label)
    ax.set_ylabel("mean IoU, test images")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    sigma_axis(ax)


def rises(clean: dict[str, Any], noisy: dict[str, Any]) -> Figure:
    """Mean IoU above that of the lowest level, a thin line for each labelled set, a thick one for their mean."""
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 2.9), sharey=True)
    for ax, result, color, title in zip(axes, (clean, noisy), ("blue", "orange"), ("clean input", "noisy input")):
        scores = np.asarray(result["test"])  # (splits, S)
        above = scores - scores[:, :1]
        ax.plot(result["sigmas"], above.T, color=COLORS["grey"], lw=0.9)
        ax.plot(result["sigmas"], above.mean(0), "o-", color=COLORS[color])
        ax.axhline(0, color=COLORS["black"], lw=0.8)
        ax.set_title(title)
        sigma_axis(ax)
    axes[0].set_ylabel("mean IoU above\nthe lowest level's")
    return fig


def by_class(clean: dict[str, Any], noisy: dict[str, Any]) -> Figure:
    """IoU of each class against sigma, relative to its best from clean input; the best level of each is ringed."""
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.1), sharey=True)
    top = np.max(clean["class_iou"], axis=0)  # (K,)
    for ax, result, title in zip(axes, (clean, noisy), ("clean input", "noisy input"), strict=True):
        relative = np.asarray(result["class_iou"]) / top  # (S, K)
        for k, (color, style) in enumerate(_CLASS_STYLES[: len(top)]):
            ax.plot(result["sigmas"], relative[:, k], style, color=COLORS[color], label=result["classes"][k])
            best = relative[:, k].argmax()
            ax.plot(result["sigmas"][best], relative[best, k], "o", ms=12, mfc="none", mec=COLORS[color])
        ax.set_title(title)
        sigma_axis(ax)
    axes[0].set_ylabel("IoU, relative to its best")
    axes[1].legend(loc="lower left")
    return fig


def examples(kept: dict[str, Any], classes: list[str], photographs: Tensor | None = None) -> Figure:
    """True masks beside those predicted at some noise levels, a row for each image.

    ``kept`` is the entry ``examples`` of a result; ``photographs`` (N, 3, H, W), uint8, are shown first if given.
    """
    levels = [_mask(rows) for rows in zip(*kept["predicted"], strict=True)]  # a row of masks for each image
    colours = ListedColormap(["#E3E3E3", COLORS["orange"], COLORS["black"], COLORS["sky"]])
    titles = ["true mask", *(rf"$\sigma = {sigma:g}$" for sigma in kept["sigmas"])]
    shown = [] if photographs is None else [p.permute(1, 2, 0) for p in photographs]
    num, extra = len(kept["true"]), int(bool(len(shown)))
    fig, axes = plt.subplots(num, len(titles) + extra, figsize=(1.5 * (len(titles) + extra), 2.15 * num), squeeze=False)
    for i, row in enumerate(axes):
        if extra:
            row[0].imshow(shown[i])
        for ax, mask in zip(row[extra:], [_mask([kept["true"][i]])[0], *levels[i]], strict=True):
            ax.imshow(mask, cmap=colours, vmin=0, vmax=3, interpolation="nearest")
    for ax, title in zip(axes[0, extra:], titles, strict=True):
        ax.set_title(title)
    _bare(axes)
    handles = [Patch(color=colours(k), label=name) for k, name in enumerate(classes)]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(classes))
    return fig


def _mask(written: Iterable[Sequence[str]]) -> list[np.ndarray]:
    """Masks (H, W) from rows of digits."""
    return [np.array([[int(digit, 16) for digit in row] for row in rows]) for rows in written]


def _bare(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
