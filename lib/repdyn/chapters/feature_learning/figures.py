"""Figures of the chapter on diffusion against classification."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from repdyn.chapters.feature_learning.dynamics import Trained
from repdyn.chapters.feature_learning.measure import stationary_ratio
from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis

__all__ = ["balance", "digits", "dynamics", "levels", "samples", "switch"]

_KINDS = {"denoiser": ("blue", "o-"), "classifier": ("orange", "s--"), "untrained": ("grey", "^:")}


def dynamics(denoisers: dict[float, Trained], classifiers: dict[float, Trained]) -> Figure:
    """Alignment with signals and noise patches against the step, by N SNR^2: denoiser above, classifier below."""
    fig, axes = plt.subplots(2, len(denoisers), figsize=(7.2, 5.0), sharey="row")
    for row, (runs, kind) in zip(axes, ((denoisers, "denoiser"), (classifiers, "classifier")), strict=True):
        for ax, (n_snr2, run) in zip(row, runs.items(), strict=True):
            steps = np.add(run.steps, 1)  # step 0 has no place on a logarithmic axis
            ax.plot(steps, run.signal, color=COLORS["blue"], label="signal")
            ax.plot(steps, run.noise, color=COLORS["orange"], ls="--", label="noise")
            ax.set(xscale="log", yscale="log", xlabel="step of gradient descent, plus one")
            ax.set_title(rf"{kind}, $N\,\mathrm{{SNR}}^2 = {n_snr2:g}$")
        row[0].set_ylabel("mean alignment")
    axes[0, 0].legend()
    return fig


def balance(ax: Axes, n_snr2: list[float], strengths: list[float], log_ratios: list, width: int) -> None:
    """Ratios (strength, n_snr2, seed), as base-ten logarithms, over the curves of the reduced problem."""
    fine = np.geomspace(min(n_snr2), max(n_snr2), 60)
    for strength, rows, color, marker in zip(strengths, log_ratios, CLASS_COLORS, MARKERS, strict=False):
        ax.plot(fine, [stationary_ratio(q, strength, width) for q in fine], color=color, lw=1.2)
        runs = 10.0 ** np.asarray(rows)
        ax.plot(n_snr2, runs.mean(1), marker, color=color, label=rf"strength $S$ = {strength:g}")
    ax.plot(fine, fine / 2, color=COLORS["black"], ls=":", label=r"$N\,\mathrm{SNR}^2/2$")
    ax.axhline(1, color=COLORS["grey"], lw=1)
    ax.set(xscale="log", yscale="log", xlabel=r"$N\,\mathrm{SNR}^2$", ylabel="signal over noise alignment")
    ax.legend(loc="upper left")


def switch(n_snr2: list[float], starts: list[float], log_ratios: list, accuracies: list, denoiser: list) -> Figure:
    """Ratios of the classifier at each start size, one row of the denoiser's beside them, and the test accuracy."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.7))
    series = zip(starts, log_ratios, accuracies, ("orange", "pink", "amber"), ("s--", "^-.", "D:"), strict=False)
    for start, ratios, accuracy, color, style in series:
        label = f"classifier, start {start:g}"
        left.plot(n_snr2, np.mean(ratios, 1), style, color=COLORS[color], label=label)
        right.plot(n_snr2, np.mean(accuracy, 1), style, color=COLORS[color], label=label)
    left.plot(n_snr2, np.mean(denoiser, 1), "o-", color=COLORS["blue"], label="denoiser")
    left.axhline(0, color=COLORS["grey"], lw=1)
    left.set_ylabel(r"$\log_{10}$ of signal over noise alignment")
    left.set_ylim(-11, None)  # room for the legend
    left.legend(loc="lower right", fontsize=9)
    right.set_ylabel("accuracy on fresh samples")
    for ax in (left, right):
        ax.axvline(2, color=COLORS["grey"], lw=1)
        ax.set(xscale="log", xlabel=r"$N\,\mathrm{SNR}^2$")
    return fig


def levels(sigmas: list[float], ratios: dict[float, list[float]], accuracies: dict[str, list[float]]) -> Figure:
    """Against noise level: the balance for each N SNR^2, and the accuracy of probes."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5))
    styles = list(zip(("blue", "orange", "green", "grey"), ("o-", "s--", "^-.", "D:"), strict=True))
    for (n_snr2, values), (color, style) in zip(ratios.items(), styles):
        left.plot(sigmas, values, style, color=COLORS[color], label=rf"$N\,\mathrm{{SNR}}^2 = {n_snr2:g}$")
    left.set(yscale="log", ylabel="signal over noise alignment")
    left.axhline(1, color=COLORS["grey"], lw=1)
    left.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    left.yaxis.set_minor_formatter(NullFormatter())
    for (name, values), (color, style) in zip(accuracies.items(), styles):
        right.plot(sigmas, values, style, color=COLORS[color], label=name)
    right.set(ylabel="test accuracy of a linear probe", ylim=(0.4, 1.35))
    for ax in (left, right):
        sigma_axis(ax)
        ax.legend(loc="upper left", fontsize=9)
    return fig


def samples(pairs: dict[float, Tensor], side: int) -> Figure:
    """One sample (2, side * side) at each SNR: signal patch and noise patch, on one grey scale for each sample."""
    fig, axes = plt.subplots(1, len(pairs), figsize=(7.2, 1.6))
    for ax, (snr, sample) in zip(axes, pairs.items(), strict=True):
        picture = sample.view(2, side, side).permute(1, 0, 2).reshape(side, 2 * side).numpy()
        limit = np.quantile(np.abs(picture), 0.99)
        ax.imshow(picture, cmap="gray", vmin=-limit, vmax=limit)
        ax.axvline(side - 0.5, color="white", lw=1.5)
        ax.set(xticks=[], yticks=[], title=f"SNR {snr:g}")
        ax.grid(False)
    return fig


def digits(result: dict[str, Any], snrs: list[float]) -> Figure:
    """Response of the last hidden layer to either patch, and what can be read from it, against the SNR."""
    fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.4))
    for kind, (color, style) in _KINDS.items():
        values = np.asarray(result[f"response_{kind}"])
        axes[0].plot(snrs, values.mean(1), style, color=COLORS[color], label=kind)
        axes[0].fill_between(snrs, values.min(1), values.max(1), color=COLORS[color], alpha=0.18, lw=0)
        for ax, patch in zip(axes[1:], ("signal", "noise"), strict=True):
            shares = np.asarray(result[f"{patch}_{kind}"])
            ax.plot(snrs, np.clip(shares, 0, 1).mean(1), style, color=COLORS[color], label=kind)
            ax.set(title=f"{patch} patch", ylim=(-0.05, 1.05))
    axes[0].axhline(0, color=COLORS["black"], lw=0.8)
    axes[0].set(title="response", ylabel=r"$\log_{10}$ signal over noise")
    axes[1].set_ylabel("share of variance readable")
    axes[0].legend(loc="upper left", fontsize=9)
    for ax in axes:
        ax.set(xscale="log", xlabel="SNR")
    return fig
