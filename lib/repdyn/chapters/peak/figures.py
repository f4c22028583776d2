"""Figures of the chapter "Where the peak is"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.theory import csnr

__all__ = [
    "against_theorem2",
    "concentration",
    "convergence",
    "limits",
    "loss_and_leak",
    "noisy_input",
    "overshoot",
    "phase_diagrams",
    "ratios",
]

DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]


def convergence(steps: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray]) -> Figure:
    """Error of the plain trapezoid rule against 1 / step, for the outer and the inner integral."""
    fig, ax = plt.subplots()
    for (name, h), marker, color in zip(steps.items(), MARKERS, CLASS_COLORS):
        ax.semilogy(1.0 / h, errors[name], marker + "-", color=color, label=f"step in {name}")
    inverse = np.linspace(0.5, 3.6, 50)
    ax.semilogy(inverse, np.exp(-(np.pi**2) * inverse), "--", color=COLORS["grey"], label=r"$e^{-\pi^2/h}$")
    ax.set(xlabel="nodes per unit, 1 / h", ylabel="relative error of the CSNR", ylim=(1e-16, 1e1))
    ax.legend()
    return fig


def against_theorem2(runs: Mapping[float, np.ndarray], measured_at: np.ndarray, d: int, K: int) -> Figure:
    """Exact curve, Theorem 2 and Monte Carlo (mean and standard deviation over seeds), a panel for each delta."""
    fig, axes = plt.subplots(1, len(runs), figsize=(7.2, 3.5))
    sigma = np.geomspace(0.03, 6.0, 60)
    for ax, (delta, values) in zip(axes, runs.items()):
        ax.loglog(sigma, csnr.exact(sigma, d=d, K=K, delta=delta), color=COLORS["blue"], label="exact")
        ax.loglog(sigma, csnr.theorem2(sigma, d=d, K=K, delta=delta), "--", color=COLORS["orange"], label="Theorem 2")
        mean, spread = values.mean(0), values.std(0, ddof=1)
        ax.errorbar(measured_at, mean, spread, fmt="o", ms=4, capsize=3, color=COLORS["black"], label="measured")
        sigma_axis(ax).set(title=rf"$\delta = {delta}$", ylim=(10**1, 10**5))
    axes[0].set_ylabel("CSNR")
    axes[0].legend(loc="upper left")
    return fig


def loss_and_leak(sigma: np.ndarray, parts: Mapping[str, Sequence[np.ndarray]], peak: float) -> Figure:
    """Signal lost and leak against sigma; ``parts`` maps "exact" and "Theorem 2" to (loss, leak)."""
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.3), sharey=True)
    for ax, i, title in zip(axes, (0, 1), ("signal lost, L", "leak, M")):
        for (name, part), dash, color in zip(parts.items(), DASHES, CLASS_COLORS):
            ax.loglog(sigma, part[i], ls=dash, color=color, label=name)
        ax.axvline(peak, color=COLORS["grey"], ls=":", lw=1.4)
        ax.axhline(1.0, color=COLORS["grey"], lw=0.8)
        sigma_axis(ax).set(title=title, ylim=(1e-5, 3e3))
    axes[0].legend(loc="lower right")
    axes[1].text(0.93 * peak, 300, "exact\npeak", ha="right", va="center")
    return fig


def ratios(sigma: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Theorem 2 over the exact value, a panel for each family of parameters."""
    fig, axes = plt.subplots(1, len(panels), figsize=(7.2, 3.3), sharey=True)
    for ax, (title, family) in zip(axes, panels.items()):
        for (name, ratio), dash, color in zip(family.items(), DASHES, CLASS_COLORS):
            ax.loglog(sigma, ratio, ls=dash, color=color, label=name)
        ax.axhline(1.0, color=COLORS["grey"], lw=0.8)
        sigma_axis(ax).set(title=title)
        ax.legend()
    axes[0].set_ylabel("Theorem 2 / exact")
    return fig


def concentration(shares: Mapping[str, np.ndarray]) -> Figure:
    """Share of the leak that comes from the worst samples, against their share of all samples."""
    fig, ax = plt.subplots(figsize=(6.2, 3.5))
    for (name, leak), dash, color in zip(shares.items(), DASHES, CLASS_COLORS):
        share = np.cumsum(np.sort(leak)[::-1]) / leak.sum()
        at = np.unique(np.geomspace(1, len(leak), 200).astype(int))
        ax.semilogx(100.0 * at / len(leak), 100.0 * share[at - 1], ls=dash, color=color, label=name)
    ax.set(xlabel="worst samples, % of all", ylabel="their part of the leak, %", xlim=(0.01, 100), ylim=(0, 102))
    ax.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    ax.legend(loc="lower right")
    return fig


def _heat_map(ax: Axes, values: np.ndarray, rows: Sequence, columns: Sequence, **options: Any) -> None:
    """A table of numbers, coloured."""
    shown = ax.imshow(values, aspect="auto", origin="lower", **options)
    ax.set_xticks(range(len(columns)), [f"{c:g}" for c in columns])
    ax.set_yticks(range(len(rows)), [f"{r:g}" for r in rows])
    ax.grid(False)
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = shown.cmap(shown.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        label = f"{value:.2f}" if value < 10 else f"{value:.0f}"
        ax.text(j, i, label, ha="center", va="center", fontsize=9, color=ink)


def phase_diagrams(delta: Sequence, d: Sequence, K: Sequence, sigma: np.ndarray, decades: np.ndarray) -> Figure:
    """Place and height of the exact peak over (delta, d) and (delta, K).

    ``sigma`` and ``decades`` are pairs of tables, (len(d), len(delta)) and (len(K), len(delta)).
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.5, 6.8))
    for row, values, name in ((0, d, "dimension d"), (1, K, "classes K")):
        place = {"cmap": "viridis", "norm": LogNorm(0.1, 1.6)}
        _heat_map(axes[row, 0], sigma[row], values, delta, **place)
        _heat_map(axes[row, 1], decades[row], values, delta, cmap="cividis", vmin=0.0, vmax=6.0)
        axes[row, 0].set_ylabel(name)
    axes[0, 0].set_title(r"place of the peak, $\sigma^\star$")
    axes[0, 1].set_title("height over the ends, decades")
    for ax in axes[1]:
        ax.set_xlabel(r"noise in the data $\delta$")
    return fig


def overshoot(delta: Sequence, d: Sequence, K: Sequence, factors: Sequence[np.ndarray]) -> Figure:
    """Height of the peak of Theorem 2 over that of the exact curve, over (delta, d) and (delta, K)."""
    fig, axes = plt.subplots(1, 2, figsize=(7.5, 3.7))
    for ax, factor, values, name in zip(axes, factors, (d, K), ("dimension d", "classes K")):
        _heat_map(ax, factor, values, delta, cmap="RdBu_r", norm=LogNorm(0.01, 100.0))
        ax.set(xlabel=r"noise in the data $\delta$", ylabel=name)
    return fig


def limits(small: Mapping[int, tuple], large: Mapping[str, tuple], near_one: Mapping[str, tuple]) -> Figure:
    """The three limits of the place of the peak: (x, exact, law) for each curve."""
    fig, axes = plt.subplots(1, 3, figsize=(7.5, 3.5))
    panels = ((axes[0], small), (axes[1], large), (axes[2], near_one))
    for ax, curves in panels:
        for (name, (x, measured, law)), marker, color in zip(curves.items(), MARKERS, CLASS_COLORS):
            ax.plot(x, measured, marker, color=color, label=name)
            ax.plot(x, law, color=color, lw=1.2)
        ax.set(xscale="log", yscale="log")
        ax.legend(fontsize=9, handletextpad=0.2)
    axes[0].set(xlabel=r"$\delta \to 0$", ylabel=r"place of the peak $\sigma^\star$")
    axes[1].set(xlabel=r"$d \to \infty$")
    axes[2].set(xlabel=r"$1 - \delta \to 0$", yscale="linear", ylim=(0.58, 0.74))
    axes[1].set_yticks([0.5, 1.0, 2.0], ["0.5", "1", "2"])
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[2].invert_xaxis()
    return fig


def noisy_input(
    sigma: np.ndarray, curves: Mapping[float, tuple], d: Sequence, edges: Mapping[int, np.ndarray]
) -> Figure:
    """Clean and noisy input over sigma, and the largest delta with a peak at a noisy input, over d."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5))
    for (delta, (clean, noisy)), color, marker in zip(curves.items(), CLASS_COLORS, MARKERS):
        mark = {"color": color, "marker": marker, "markevery": 6, "ms": 4}
        left.loglog(sigma, clean, **mark, label=rf"$\delta = {delta}$, clean")
        left.loglog(sigma, noisy, "--", **mark, label="noisy")
    sigma_axis(left).set_ylabel("CSNR")
    left.set_ylim(3e-3, 5e5)
    left.legend(fontsize=9, loc="lower left")
    for (K, edge), color, marker in zip(edges.items(), CLASS_COLORS, MARKERS):
        right.semilogx(d, edge, marker + "-", color=color, label=f"K = {K}")
    right.set(xlabel="dimension d", ylabel=r"noise in the data $\delta$", ylim=(0, 1))
    right.text(d[-1], 0.93, "noisy input: falls from the start", ha="right", fontsize=9)
    right.text(d[0], 0.04, "noisy input: has a peak", fontsize=9)
    right.legend(loc="lower right", bbox_to_anchor=(1, 0.08))
    return fig
