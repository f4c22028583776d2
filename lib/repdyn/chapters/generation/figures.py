"""Figures of the chapter on generation against representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from repdyn.plots import COLORS, show_image, sigma_axis

__all__ = ["molrg_tradeoff", "quality", "retained", "sample_numbers", "sample_sheet", "strip"]

_SERIES = {
    "clean": ("clean input", "blue", "o", "-"),
    "noisy": ("noisy input", "orange", "s", "--"),
    "generated": ("while generating", "green", "^", "-."),
    "linear": ("linear denoiser, noisy input", "grey", "D", ":"),
}


def molrg_tradeoff(sigma: np.ndarray, distance: dict[str, np.ndarray], ratio: dict[str, np.ndarray]) -> Figure:
    """Distance to the data (top) and CSNR (bottom) of the optimal denoiser against ``sigma``, by kind of input."""
    fig, axes = plt.subplots(2, 1, figsize=(6.4, 4.8), sharex=True)
    for ax, curves in zip(axes, (distance, ratio), strict=True):
        for kind, values in curves.items():
            label, color, _, dash = _SERIES[kind]
            ax.plot(sigma, values, color=COLORS[color], ls=dash, label=label)
            if ax is axes[1]:
                ax.plot(sigma[values.argmax()], values.max(), "o", color=COLORS[color])
        ax.axvline(sigma[ratio["clean"].argmax()], color=COLORS["black"], lw=0.9, ls=(0, (1, 2)))
    axes[0].set_ylabel("Fréchet distance\n(share of variance)")
    axes[1].set_ylabel("class signal-\nto-noise ratio")
    axes[1].set_yscale("log")
    axes[0].legend(loc="upper left")
    sigma_axis(axes[1])
    return fig


def quality(results: Sequence[dict[str, Any]], names: Sequence[str], embedding: int = 0) -> Figure:
    """Distance to real images (top) and probe accuracy (bottom) against sigma, one column for each of ``results``.

    ``results`` are of :func:`repdyn.chapters.generation.measure.measure`, ``names`` the titles; ``embedding`` counts
    the embeddings of each. Bars are standard errors; the band of the accuracy spans the repetitions.
    """
    fig, axes = plt.subplots(2, len(results), figsize=(7.2, 5.6), sharex=True, squeeze=False)
    for (top, bottom), result, title in zip(axes.T, results, names, strict=True):
        _distances(top, result, list(result["floor"])[embedding])
        _accuracies(bottom, result)
        top.set_title(title)
        best = result["sigmas"][np.mean(result["accuracy"]["validation"], 0).argmax()]
        for ax in (top, bottom):
            ax.axvline(best, color=COLORS["black"], lw=0.9, ls=(0, (1, 2)))
        sigma_axis(bottom)
    first = list(results[0]["floor"])[embedding]
    axes[0, 0].set_ylabel(f"Fréchet distance\n({first})")
    axes[1, 0].set_ylabel("test accuracy of\na two-layer probe")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    axes[1, 0].legend(loc="lower left", fontsize=9)
    return fig


def _distances(ax: Axes, result: dict[str, Any], embedding: str) -> None:
    for kind, (label, color, marker, dash) in _SERIES.items():
        value, error = np.transpose(result["frechet"][kind][embedding])
        style: dict[str, Any] = {"color": COLORS[color], "marker": marker, "ls": dash, "label": label}
        ax.errorbar(result["sigmas"], value, error, capsize=2, **style)
    ax.axhline(result["floor"][embedding][0], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="real images")
    ax.set_yscale("log")


def _accuracies(ax: Axes, result: dict[str, Any]) -> None:
    test = np.asarray(result["accuracy"]["test"])
    ax.plot(result["sigmas"], test.mean(0), "o-", color=COLORS["blue"], label="estimate, clean input")
    ax.fill_between(result["sigmas"], test.min(0), test.max(0), color=COLORS["blue"], alpha=0.18, lw=0)
    pixels = np.mean(result["accuracy"]["pixels"])
    ax.axhline(pixels, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="the image itself")


def retained(results: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure:
    """What clean-input estimates retain against sigma: power by octave (top), scatter by class (bottom)."""
    fig, axes = plt.subplots(2, len(results), figsize=(7.2, 5.2), sharex=True, squeeze=False)
    for (top, bottom), result, title in zip(axes.T, results, names, strict=True):
        power = np.asarray(result["power"])  # (level, band)
        colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, power.shape[1]))
        for band, (values, color) in enumerate(zip(power.T, colors, strict=True)):
            top.plot(result["sigmas"], values, marker="osD^v<>P"[band % 8], color=color, label=_octave(power, band))
        bottom.plot(result["sigmas"], result["between"], "o-", color=COLORS["blue"], label="between classes")
        bottom.plot(result["sigmas"], result["within"], "s--", color=COLORS["orange"], label="within classes")
        for ax, what in ((top, "power"), (bottom, "scatter")):
            ax.set_ylim(0, None)
            if top is axes[0, 0]:
                ax.set_ylabel(f"share of {what} retained")
                ax.legend(loc="lower left", fontsize=9)
        top.set_title(title)
        sigma_axis(bottom)
    return fig


def _octave(power: np.ndarray, band: int) -> str:
    """Frequencies of a band in cycles a pixel, as fractions."""
    high = 2 ** (power.shape[1] - band)
    return f"below 1/{high}" if band == 0 else f"1/{2 * high} to 1/{high}" if high > 2 else "1/4 and above"


def sample_numbers(by_number: dict[str, Any], embedding: str) -> Figure:
    """Distances of sets of real and of generated images against their number, and the bias that theory expects."""
    fig, ax = plt.subplots(figsize=(6.0, 3.3))
    for key, label, color, marker in (("generated", "generated", "green", "^"), ("real", "real", "black", "o")):
        value, spread = np.transpose(by_number[key])
        ax.errorbar(
            by_number["numbers"],
            value,
            spread,
            fmt=marker + "-",
            capsize=3,
            color=COLORS[color],
            label=f"{label} images",
        )
    ax.plot(
        by_number["numbers"], by_number["bias"], "--", color=COLORS["blue"], label="expected bias, Gaussian features"
    )
    ax.set(xscale="log", yscale="log", xlabel="number of images", ylabel=f"Fréchet distance\n({embedding})")
    ax.set_xticks(by_number["numbers"], [f"{number:,}" for number in by_number["numbers"]])
    ax.xaxis.minorticks_off()
    ax.legend(loc="lower left", fontsize=9)
    return fig


def strip(denoiser: nn.Module, images: Tensor, sigmas: Sequence[float]) -> Figure:
    """Posterior estimates of clean ``images`` (rows, C, H, W) in [-1, 1], a row each, at each noise level; first the
    image."""
    device = next(denoiser.parameters()).device
    with torch.no_grad():
        columns = [images, *(denoiser(images.to(device), sigma).cpu() for sigma in sigmas)]
    fig, axes = plt.subplots(len(images), len(columns), figsize=(7.4, 0.62 * len(images) + 0.2), squeeze=False)
    for column, pictures, title in zip(axes.T, columns, ["image", *(f"{s:.2g}" for s in sigmas)], strict=True):
        column[0].set_title(title, fontsize=9)
        for ax, picture in zip(column, pictures, strict=True):
            show_image(ax, picture)
    return fig


def sample_sheet(images: Tensor, columns: int = 12) -> Figure:
    """Images (num, C, H, W) in [-1, 1], row by row."""
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(7.2, 0.62 * rows), squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, image in zip(axes.flat, images):
        show_image(ax, image)
    return fig
