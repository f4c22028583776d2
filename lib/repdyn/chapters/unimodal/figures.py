"""Figures of the chapter on the unimodal curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor, nn

from repdyn.plots import COLORS, show_image, sigma_axis
from repdyn.theory import csnr

__all__ = [
    "along_training",
    "answer",
    "coefficients",
    "curves",
    "layer_map",
    "posterior_strip",
    "recorded",
    "recorded_models",
]


def coefficients(sigma: np.ndarray, skip: np.ndarray, out: np.ndarray, weight: np.ndarray) -> Figure:
    """EDM's mix of skip connection and network output, and the loss weight that balances it, against ``sigma`` (S,)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9))
    left.plot(sigma, skip, color=COLORS["blue"], label=r"$c_\mathrm{skip}$: the input's share")
    left.plot(sigma, out, color=COLORS["orange"], ls="--", label=r"$c_\mathrm{out}$: the network's")
    left.legend(loc="center left", bbox_to_anchor=(0.0, 0.35))
    left.set_ylabel("coefficient")
    right.plot(sigma, weight, color=COLORS["green"])
    right.set_yscale("log")
    right.set_ylabel(r"loss weight $\lambda(\sigma)$")
    for ax in (left, right):
        sigma_axis(ax)
    return fig


def posterior_strip(denoiser: nn.Module, image: Tensor, sigmas: list[float], seed: int) -> Figure:
    """Posterior estimates of one image (1, C, H, W) in [-1, 1] at each noise level, from clean and from noisy input."""
    device = next(denoiser.parameters()).device
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    fig, axes = plt.subplots(3, len(sigmas), figsize=(7.2, 2.75))
    for column, sigma in zip(axes.T, sigmas, strict=True):
        noisy = image + sigma * noise
        with torch.no_grad():
            clean_estimate, noisy_estimate = (denoiser(x.to(device), sigma).cpu() for x in (image, noisy))
        for ax, picture in zip(column, (clean_estimate, noisy_estimate, noisy), strict=True):
            show_image(ax, picture[0])
        column[0].set_title(f"{sigma:.3g}", fontsize=10)
    for ax, label in zip(axes[:, 0], ("clean\ninput", "noisy\ninput", "(what it\nsees)"), strict=True):
        ax.set_ylabel(label, fontsize=9.5, rotation=0, ha="right", va="center")
    return fig


def curves(ax: Axes, clean: dict[str, Any], noisy: dict[str, Any], untrained: dict[str, Any] | None = None) -> None:
    """Test accuracy against sigma, from results of :func:`repdyn.curves.measure`; bands span the repetitions."""
    band(ax, clean["sigmas"], clean["test"], "features, clean input", "blue", "o-")
    band(ax, noisy["sigmas"], noisy["test"], "features, noisy input", "orange", "s--")
    if clean["posterior"] is not None:
        band(ax, clean["sigmas"], clean["posterior"], "posterior, clean input", "green", "^-")
        band(ax, noisy["sigmas"], noisy["posterior"], "posterior, noisy input", "pink", "v--")
    if untrained is not None:
        band(ax, untrained["sigmas"], untrained["test"], "untrained network", "grey", "D:")
    ax.axhline(np.mean(clean["pixels"]), color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="raw pixels")
    sigma_axis(ax)
    ax.set_ylabel("test accuracy of a linear probe")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def band(ax: Axes, x: list[float], repetitions: list[list[float]], label: str, color: str, style: str) -> None:
    """Mean over repetitions (R, S) with a band from the lowest to the highest."""
    values = np.asarray(repetitions)
    ax.plot(x, values.mean(0), style, color=COLORS[color], label=label)
    ax.fill_between(x, values.min(0), values.max(0), color=COLORS[color], alpha=0.18, lw=0)


def layer_map(clean: dict[str, Any], noisy: dict[str, Any]) -> Figure:
    """Validation accuracy at every layer (down) and noise level (across), clean and noisy input on one colour scale."""
    maps = [np.asarray(result["validation"]) for result in (clean, noisy)]
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 4.6), sharey=True)
    for ax, values, title in zip(axes, maps, ("clean input", "noisy input"), strict=True):
        picture = ax.imshow(values, aspect="auto", vmin=low, vmax=high)
        ax.set_title(title)
        ax.set_xticks(range(len(clean["sigmas"])), [f"{s:.3g}" for s in clean["sigmas"]], rotation=60, fontsize=9)
        ax.set_xlabel(r"noise level $\sigma$")
        ax.grid(False)
        row, column = np.unravel_index(values.argmax(), values.shape)
        ax.plot(column, row, "o", ms=11, mfc="none", mec="white", mew=2)
    axes[0].set_yticks(range(len(clean["layers"])), clean["layers"], fontsize=9)
    fig.colorbar(picture, ax=axes, label="validation accuracy", shrink=0.85)
    return fig


def recorded(ax: Axes, clean: dict[str, Any], noisy: dict[str, Any], *, num_test: int) -> None:
    """Test accuracy of recorded curves against sigma, with its standard error over ``num_test`` images.

    The frame is that of the clean input: the curves of the noisy one leave it downwards.
    """
    series = [
        (clean, "test", "features, clean input", "blue", "o-"),
        (noisy, "test", "features, noisy input", "orange", "s--"),
        (clean, "posterior", "posterior, clean input", "green", "^-"),
        (noisy, "posterior", "posterior, noisy input", "pink", "v--"),
    ]
    ax.axhline(np.mean(clean["pixels"]), color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="raw pixels")
    for result, key, label, color, style in series:
        accuracy = np.mean(result[key], 0)
        error = np.sqrt(accuracy * (1 - accuracy) / num_test)
        ax.errorbar(result["sigmas"], accuracy, error, fmt=style, color=COLORS[color], capsize=3, label=label)
    lowest, highest = (f([np.mean(clean[key], 0) for key in ("test", "posterior")]) for f in (np.min, np.max))
    ax.set_ylim(lowest - 0.9 * (highest - lowest), highest + 0.2 * (highest - lowest))  # room for the legend
    ax.set_ylabel("accuracy of a linear probe")
    ax.legend(loc="lower left", fontsize=9)
    sigma_axis(ax)


def recorded_models(models: Mapping[str, tuple[dict[str, Any], dict[str, Any]]], *, num_test: int) -> Figure:
    """A panel of :func:`recorded` for each model, name -> (clean, noisy) input, on one scale."""
    fig, axes = plt.subplots(1, len(models), figsize=(7.5, 4.0), squeeze=False)
    for ax, (name, (clean, noisy)) in zip(axes[0], models.items(), strict=True):
        recorded(ax, clean, noisy, num_test=num_test)
        ax.set_title(name)
    ends = np.array([ax.get_ylim() for ax in axes[0]])
    for ax in axes[0]:
        ax.set_ylim(ends[:, 0].min(), ends[:, 1].max())
    for ax in axes[0, 1:]:
        ax.get_legend().remove()
        ax.set_ylabel("")
    return fig


def answer(clean: dict[str, Any], noisy: dict[str, Any], *, num_test: int, d: int, K: int, delta: float) -> Figure:
    """The book's question and answer in two panels: the theory's curve, and the one measured on real images."""
    fig, (theory, images) = plt.subplots(1, 2, figsize=(7.5, 3.8))
    sigma = np.geomspace(2e-3, 20, 120)
    theory.plot(sigma, csnr.exact(sigma, d=d, K=K, delta=delta), color=COLORS["blue"], label="clean input")
    exact_noisy = csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=True)
    theory.plot(sigma, exact_noisy, color=COLORS["orange"], ls="--", label="noisy input")
    theory.set_yscale("log")
    theory.set_ylabel("class signal-to-noise ratio")
    theory.set_title("optimal denoiser of a mixture")
    theory.legend(loc="lower left")
    sigma_axis(theory)
    recorded(images, clean, noisy, num_test=num_test)
    images.set_title("U-Net on Fashion-MNIST")
    return fig


def along_training(models: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """Accuracy at the best layer against sigma along trainings, a panel each: name -> stages.

    Stages are those of :func:`repdyn.chapters.unimodal.measure.measure`; bands span the splits. One colour is one
    number of images seen, in all panels.
    """
    seen = sorted({stage["images"] for stages in models.values() for stage in stages if stage["images"]})
    looks = dict(zip(seen, zip(plt.get_cmap("viridis_r")(np.linspace(0.2, 1, len(seen))), "o^sv<>ph", strict=False)))
    looks[0] = (to_rgba(COLORS["grey"]), "D")
    fig, axes = plt.subplots(1, len(models), figsize=(7.5, 4.2), sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for ax, (name, stages) in zip(axes[0], models.items(), strict=True):
        for stage in stages:
            color, marker = looks[stage["images"]]
            accuracy = np.asarray(stage["test"])
            label = f"{stage['images']:,}" if stage["images"] else "none: untrained"
            handles[label] = ax.plot(stage["sigmas"], accuracy.mean(0), marker=marker, color=color)[0]
            ax.fill_between(stage["sigmas"], accuracy.min(0), accuracy.max(0), color=color, alpha=0.2, lw=0)
        sigma_axis(ax).set_title(name)
    axes[0, 0].set_ylabel("test accuracy of a linear probe")
    fig.legend(handles.values(), handles, title="images seen", loc="outside upper center", ncols=3, fontsize=9)
    return fig
