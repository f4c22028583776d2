"""Figures of the chapter on a DDPM that learns the MoLRG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

from repdyn.chapters.csnr.figures import draw_classes
from repdyn.denoisers import Denoiser
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma
from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

__all__ = [
    "curves",
    "losses",
    "memory",
    "posterior_estimates",
    "timestep_axis",
    "training_length",
    "variants",
    "widths",
]

DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
Runs = list[dict[str, Any]]


def timestep_axis(ax: Axes, timesteps: Sequence[int] = (1, 10, 40, 100, 280)) -> Axes:
    """Make the x-axis of ``ax`` one of sigma, and tick DDPM's time steps above."""
    sigma_axis(ax)
    top = ax.secondary_xaxis("top")
    top.set_xticks(ddpm_sigma(np.array(timesteps), ddpm_alpha_bar()), [str(t) for t in timesteps], fontsize=9)
    top.xaxis.set_minor_formatter(NullFormatter())
    top.tick_params(which="minor", length=0)
    top.set_xlabel("time step $t$", fontsize=9.5)
    return ax


def losses(sigmas: Sequence[float], stages: Mapping[str, Sequence[float]], linear: Sequence[float]) -> Figure:
    """How far the loss exceeds the least one against sigma: a series for each stage of a training, and the filter's."""
    fig, ax = plt.subplots(figsize=(7.0, 3.8))
    for (label, excess), color, marker in zip(stages.items(), CLASS_COLORS, MARKERS, strict=False):
        ax.loglog(sigmas, excess, marker=marker, color=color, label=label)
    ax.loglog(sigmas, linear, "--", color=COLORS["black"], label="best linear filter")
    ax.set_ylabel("excess loss / least loss")
    ax.legend(title="samples seen", loc="center left", bbox_to_anchor=(1.0, 0.5))
    timestep_axis(ax)
    return fig


def curves(
    sigmas: Sequence[float],
    learned: Mapping,
    optimal: Mapping,
    linear: Mapping,
    ratios: Mapping[str, Sequence[float]],
    *,
    d: int,
    K: int,
    delta: float,
) -> Figure:
    """Accuracy, CSNR of posteriors, CSNR of features against sigma, one above another (the paper's Figures 5 and 12).

    ``learned``, ``optimal`` and ``linear`` are results of :func:`repdyn.chapters.ddpm.measure.readings`; ``ratios``
    maps ways to find the features' subspaces to the CSNR in them. Bands span the test sets.
    """
    fig, axes = plt.subplots(3, 1, figsize=(6.8, 8.6), sharex=True, height_ratios=(3, 3, 2))
    series = [
        (learned, "hidden2", "features of the network", "orange", "o-"),
        (learned, "posterior", "posterior of the network", "blue", "s-"),
        (optimal, "posterior", "posterior of the optimal denoiser", "green", "^--"),
        (linear, "posterior", "posterior of the linear filter", "grey", "D:"),
    ]
    for source, name, label, color, style in series:
        band(axes[0], sigmas, 100 * np.array(source[f"{name}_accuracy"]), style, color, label)
        if name == "posterior":
            band(axes[1], sigmas, source["posterior_csnr"], style, color, label)
    fine = np.geomspace(sigmas[0], sigmas[-1], 81)
    axes[1].plot(fine, csnr.exact(fine, d=d, K=K, delta=delta), color=COLORS["black"], lw=1.2, label="exact, optimal")
    axes[1].plot(fine, csnr.theorem2(fine, d=d, K=K, delta=delta), "--", color=COLORS["pink"], label="Theorem 2")
    for (label, values), color, style in zip(ratios.items(), CLASS_COLORS, ("o-", "s--", "^-.", "D:"), strict=False):
        axes[2].plot(sigmas, values, style, color=color, label=label)
    axes[1].set_yscale("log")
    axes[2].set(yscale="log", ylim=(0.4, 16))
    axes[2].set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    for ax, label in zip(axes, ("probe accuracy, %", "CSNR of the posterior", "CSNR of the features"), strict=True):
        ax.set_ylabel(label)
        ax.legend(fontsize=9, ncols=2 if ax is axes[2] else 1)
    timestep_axis(axes[0]).set_xlabel("")
    sigma_axis(axes[2])
    return fig


def band(ax: Axes, x: ArrayLike, values: ArrayLike, style: str, color: str, label: str) -> None:
    """Mean over repetitions (R, S) with a band from the lowest to the highest."""
    values, color = np.asarray(values), COLORS.get(color, color)
    ax.plot(x, values.mean(0), style, color=color, label=label)
    ax.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)


def posterior_estimates(
    denoisers: Mapping[str, Denoiser], model: NoisyMoLRG, timesteps: Sequence[int], num: int, seed: int
) -> tuple[Figure, np.ndarray]:
    """Posterior estimates of clean samples at time steps, a row for each denoiser (the paper's Figure 15).

    ``model`` has three one-dimensional classes. Estimates are projected on their three directions, and from there on a
    plane, by a random matrix with orthonormal columns. Returns the figure and the CSNR of each panel, (rows, columns).
    """
    x, labels = model.sample(num, seed)
    basis = torch.cat(list(model.bases), dim=1)  # (n, 3)
    plane = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 2)))[0]  # (3, 2)
    fig, axes = plt.subplots(len(denoisers), len(timesteps), figsize=(7.4, 1.9 * len(denoisers)))
    values = np.empty(axes.shape)
    for row, (name, denoiser) in enumerate(denoisers.items()):
        axes[row, 0].set_ylabel(name)
        for column, t in enumerate(timesteps):
            sigma, ax = float(ddpm_sigma(t, ddpm_alpha_bar())), axes[row, column]
            with torch.no_grad():
                estimate = denoiser(x.float(), sigma).double()
            values[row, column] = csnr.csnr(estimate, labels, model.bases)
            draw_classes(ax, (estimate @ basis).numpy() @ plane, labels.numpy(), plane)
            head = rf"$t = {t}$, $\sigma = {sigma:.2f}$" + "\n" if row == 0 else ""
            ax.set_title(f"{head}CSNR {values[row, column]:.1f}", fontsize=9)
    return fig, values


def training_length(runs: Runs, *, d: int, K: int, delta: float) -> Figure:
    """Excess loss at some levels, and the curve of the CSNR, as one training goes on; bands span the seeds."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 4.0))
    sigmas, stages = np.array(runs[0]["sigmas"]), range(len(runs[0]["checkpoints"]))
    images = np.array([c["images"] for c in runs[0]["checkpoints"]])
    excess = over_seeds(runs, lambda run, i: run["checkpoints"][i]["excess"], stages)  # (stages, seeds, S)
    for place, style in zip((2, 4, 5, 7), ("o-", "s--", "^-.", "D:"), strict=True):
        color = CLASS_COLORS[place % len(CLASS_COLORS)]
        band(left, images, excess[:, :, place].T, style, color, rf"$\sigma = {sigmas[place]:.2f}$")
        linear = np.mean([run["linear_excess"][place] for run in runs])
        left.axhline(linear, 0.0, 0.06, color=color, lw=3)
    left.set(xscale="log", yscale="log", xlabel="samples seen", ylabel="excess loss / least loss")
    left.set_xticks([20_000, 100_000, 500_000], ["20,000", "100,000", "500,000"])
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend()
    ratio = over_seeds(runs, lambda run, i: np.mean(run["checkpoints"][i]["posterior_csnr"], 0), stages)
    shades = map(to_hex, plt.get_cmap("viridis_r")(np.linspace(0.2, 1, len(ratio))))
    for values, count, color, marker in zip(ratio, images, shades, MARKERS, strict=False):
        band(right, sigmas, values, marker + "-", color, f"{count:,}")
    right.plot(sigmas, csnr.exact(sigmas, d=d, K=K, delta=delta), "--", color=COLORS["black"], label="optimal")
    right.set(yscale="log", ylabel="CSNR of the posterior")
    right.legend(title="samples seen", fontsize=9)
    sigma_axis(right)
    return fig


def over_seeds(runs: Runs, read: Callable, stages: Sequence[int]) -> np.ndarray:
    """What ``read(run, stage)`` finds, as an array (stages, seeds, ...)."""
    return np.array([[read(run, stage) for run in runs] for stage in stages])


def variants(groups: Mapping[str, Mapping[str, Runs]], delta: float, *, d: int, K: int) -> Figure:
    """CSNR against sigma at the end of shorter trainings, a panel for each quantity varied; bands span the seeds.

    ``groups`` maps a panel's title to its series, a label to runs. Dotted: the exact CSNR of the optimal denoiser.
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.5, 6.6), sharex=True)
    for ax, (title, series) in zip(axes.flat, groups.items(), strict=True):
        for (label, runs), color, marker in zip(series.items(), CLASS_COLORS, MARKERS, strict=False):
            ratio = [np.mean(final(run)["posterior_csnr"], 0) for run in runs]
            band(ax, runs[0]["sigmas"], ratio, marker + "-", color, label)
            sigmas = np.array(runs[0]["sigmas"])
            own = runs[0]["change"].get("delta", delta)
            ax.plot(sigmas, csnr.exact(sigmas, d=d, K=K, delta=own), ":", color=color, lw=1.3)
        ax.set(yscale="log", title=title)
        ax.legend(fontsize=9)
        sigma_axis(ax, r"noise level $\sigma$" if ax in axes[1] else "")
    for ax in axes[:, 0]:
        ax.set_ylabel("CSNR of the posterior")
    return fig


def widths(groups: Mapping[str, Runs]) -> Figure:
    """Accuracy and CSNR of posteriors and features at the end of trainings, by width; bands span the seeds."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 4.0))
    styles = {"posterior": ("posterior", ("s-", "s--")), "hidden2": ("features", ("o-", "o--"))}
    colors = iter(CLASS_COLORS)
    for layer, (title, lines) in styles.items():
        for (width, runs), style, color in zip(groups.items(), lines, colors, strict=False):
            for ax, kind in ((left, "accuracy"), (right, "csnr")):
                values = [np.mean(final(run)[f"{layer}_{kind}"], 0) for run in runs]
                band(ax, runs[0]["sigmas"], values, style, color, f"{title}, {width}")
    left.set_ylabel("probe accuracy")
    right.set(yscale="log", ylabel="CSNR")
    sigma_axis(left)
    sigma_axis(right)
    fig.legend(*left.get_legend_handles_labels(), title="reading, units", loc="outside upper center", ncols=4)
    return fig


def final(run: Mapping[str, Any]) -> dict[str, Any]:
    """The last checkpoint of a run."""
    return run["checkpoints"][-1]


def memory(series: Mapping[str, Runs]) -> Figure:
    """Which optimum the network is nearer to, its loss on training samples and on others, for each size of data."""
    fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.6), sharex=True)
    for (label, runs), color, marker in zip(series.items(), CLASS_COLORS, MARKERS, strict=False):
        sigmas = runs[0]["sigmas"]
        band(axes[0], sigmas, [final(run)["memorised"] for run in runs], marker + "-", color, label)
        band(axes[1], sigmas, [final(run)["train_loss"] for run in runs], marker + "-", color, label)
        band(axes[2], sigmas, [1 + np.array(final(run)["excess"]) for run in runs], marker + "-", color, label)
    for ax, title in zip(axes, ("share of memory", "loss, training data", "loss, fresh data"), strict=True):
        sigma_axis(ax).set_title(title)
    axes[0].axhline(0.5, color=COLORS["black"], lw=1, ls=":")
    for ax in axes[1:]:
        ax.axhline(1.0, color=COLORS["black"], lw=1, ls=":")
    fig.legend(*axes[0].get_legend_handles_labels(), title="training samples", loc="outside upper center", ncols=5)
    return fig
