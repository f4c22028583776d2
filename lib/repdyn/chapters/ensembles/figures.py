"""Figures of the chapter on ensembles across noise levels."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repdyn.chapters.ensembles.results import entry, table
from repdyn.plots import COLORS, sigma_axis

__all__ = [
    "NAMES",
    "calibration",
    "diversity",
    "gains",
    "levels",
    "live",
    "photographs",
    "print_table",
    "shares_axis",
    "sources",
]

#: How the figures call the sources of :mod:`repdyn.chapters.ensembles.measure`.
NAMES = {
    "weights": "diffusion, full budget",
    "diffusion": "diffusion",
    "masked": "masked auto-encoder",
    "supervised": "supervised (saw true labels)",
    "untrained": "untrained network",
    "pixels": "pixels, PCA",
    "end to end": "end to end, same labels",
}
_LOOKS = {
    "weights": ("blue", "o"),
    "diffusion": ("sky", "s"),
    "masked": ("orange", "^"),
    "supervised": ("green", "D"),
    "untrained": ("grey", "v"),
    "pixels": ("black", "P"),
    "end to end": ("pink", "X"),
}
_ROWS = {
    "best": ("best level", "black", "o", "-"),
    "levels": ("five levels, voting", "blue", "s", "--"),
    "concatenated": ("five levels, joined", "orange", "^", ":"),
    "layers": ("five layers, voting", "green", "D", "-."),
    "bootstrap": ("five resamples, voting", "pink", "v", (0, (1, 1))),
    "draws": ("five noise draws, voting", "sky", "P", (0, (5, 1))),
}


def shares_axis(ax: Axes, shares: np.ndarray) -> None:
    """The axis of label noise, in per cent."""
    ax.set_xticks(shares, [f"{100 * share:.0f}" for share in shares])
    ax.set_xlabel("wrong training labels, %")


def live(ax: Axes, found: dict[str, Any]) -> None:
    """Test accuracy of the best level, the vote and the joined features against label noise; bars span label seeds."""
    shares = _shares(found)
    for shift, row in zip((-0.008, 0.0, 0.008), ("best", "levels", "concatenated"), strict=True):
        label, color, marker, dash = _ROWS[row]
        _line(ax, shares + shift, table(found, row), label, color, marker, dash)
    shares_axis(ax, shares)
    ax.set_ylabel("test accuracy (live)")
    ax.legend(loc="lower left")


def sources(metrics: dict[str, Any], targets: dict[str, str]) -> Figure:
    """Test accuracy of every source's best single probe against label noise, a panel a target (name -> title)."""
    fig, axes = plt.subplots(1, len(targets), figsize=(7.5, 4.4), sharey=True)
    for ax, (target, title) in zip(np.atleast_1d(axes), targets.items(), strict=True):
        there = [found for found in metrics["results"] if found["target"] == target]
        for found in there:
            color, marker = _LOOKS[found["source"]]
            dash = "--" if found["source"] in ("weights", "supervised", "end to end") else "-"
            _line(ax, _shares(found), table(found), NAMES[found["source"]], color, marker, dash)
        shares_axis(ax, _shares(there[0]))
        ax.set_title(title)
    np.atleast_1d(axes)[0].set_ylabel("test accuracy of a linear probe")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return fig


def photographs(metrics: dict[str, Any], targets: dict[str, str]) -> Figure:
    """Ways to use one network on several sets, beside the untrained network and pixels: a panel a target."""
    fig, axes = plt.subplots(2, -(-len(targets) // 2), figsize=(7.5, 6.2), sharex=True, squeeze=False)
    for ax, (target, title) in zip(axes.flat, targets.items(), strict=False):
        found = entry(metrics, "weights", target)
        for row in ("best", "levels", "concatenated", "layers"):
            label, color, marker, dash = _ROWS[row]
            _line(ax, _shares(found), table(found, row), label, color, marker, dash)
        for source in ("untrained", "pixels"):
            other = entry(metrics, source, target)
            _line(ax, _shares(other), table(other), NAMES[source], *_LOOKS[source], ":")
        shares_axis(ax, _shares(found))
        ax.set_title(title)
        ax.set_ylim(bottom=0)
    for ax in axes[0]:
        ax.set_xlabel("")
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return fig


def gains(metrics: dict[str, Any], networks: tuple[str, ...], targets: dict[str, str]) -> Figure:
    """What a vote of five levels, and one probe of all five, gain over the best level, in points of accuracy."""
    fig, axes = plt.subplots(len(targets), len(networks), figsize=(7.4, 4.8), sharex=True, sharey=True, squeeze=False)
    for line, (target, title) in zip(axes, targets.items(), strict=True):
        for ax, source in zip(line, networks, strict=True):
            found = entry(metrics, source, target)
            for row in ("levels", "concatenated"):
                label, color, marker, dash = _ROWS[row]
                _line(ax, _shares(found), 100 * (table(found, row) - table(found)), label, color, marker, dash)
            ax.axhline(0, color=COLORS["black"], lw=1)
            ax.set_title(f"{NAMES[source]}: {title}", fontsize=10)
    for ax in axes[-1]:
        shares_axis(ax, _shares(found))
    for ax in axes[:, 0]:
        ax.set_ylabel("points over best level")
    axes[0, 0].legend(loc="best", fontsize=9)
    return fig


def levels(found: dict[str, Any]) -> Figure:
    """Test accuracy against sigma for every share of wrong labels, at the layers chosen; rings: the levels chosen."""
    fig, ax = plt.subplots(figsize=(7.2, 3.9))
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, len(_shares(found))))
    for color, share, marker in zip(colors, _shares(found), "os^Dv", strict=False):
        runs = [run for run in found["runs"] if run["share"] == share]
        curves = np.array([run["curve"] for run in runs])  # (seeds, S)
        ax.plot(found["sigmas"], curves.mean(0), marker=marker, color=color, label=f"{100 * share:.0f} % wrong")
        ax.fill_between(found["sigmas"], curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0)
        chosen = [(run["sigma"], run["best"]["accuracy"]) for run in runs]
        ax.plot(*zip(*chosen, strict=True), "o", ms=11, mfc="none", mec=color, mew=1.5)
    sigma_axis(ax)
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def diversity(found: dict[str, Any], shares: tuple[float, ...]) -> Figure:
    """Gain of each ensemble over its own members and over the best level, against the correlation of their errors."""
    fig, axes = plt.subplots(1, len(shares), figsize=(7.5, 3.9), sharey=True)
    for ax, share in zip(np.atleast_1d(axes), shares, strict=True):
        at = int(np.argmin(np.abs(_shares(found) - share)))
        for row, (label, color, marker, _) in _ROWS.items():
            if "correlation" not in found["runs"][0].get(row, {}):
                continue
            x, y = table(found, row, "correlation")[at], table(found, row)[at]
            own, best = 100 * (y - table(found, row, "members")[at]), 100 * (y - table(found)[at])
            style = {"color": COLORS[color], "fmt": marker, "ms": 8, "capsize": 3, "label": label}
            ax.errorbar(x.mean(), own.mean(), [[own.mean() - own.min()], [own.max() - own.mean()]], **style)
            ax.plot(x.mean(), best.mean(), marker, ms=8, mfc="white", mec=COLORS[color], mew=1.5)
        ax.axhline(0, color=COLORS["black"], lw=1)
        ax.set_title(f"{100 * share:.0f} % wrong labels")
        ax.margins(x=0.15)
    fig.supxlabel("correlation of the members' errors", fontsize=10.5)
    np.atleast_1d(axes)[0].set_ylabel("gain, points of accuracy")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=9)
    return fig


def calibration(found: dict[str, Any], honest: np.ndarray) -> Figure:
    """Log-loss and calibration error on true test labels against label noise, for the best level and the votes.

    ``honest`` (shares,) is the calibration error to be expected of a probe that is right about its wrong labels.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.6))
    (band,) = axes[1].plot(_shares(found), honest, color=COLORS["grey"], lw=5, alpha=0.4)
    for ax, score, title in zip(axes, ("nll", "ece"), ("log-loss", "calibration error (15 bins)"), strict=True):
        for row in ("best", "levels", "concatenated", "layers"):
            label, color, marker, dash = _ROWS[row]
            _line(ax, _shares(found), table(found, row, score), label, color, marker, dash)
        shares_axis(ax, _shares(found))
        ax.set_ylabel(title)
    axes[0].legend(loc="upper left", fontsize=9)
    axes[1].legend([band], ["honest about wrong labels"], loc="upper left", fontsize=9)
    return fig


def _shares(found: dict[str, Any]) -> np.ndarray:
    return np.unique([run["share"] for run in found["runs"]])


def _line(ax: Axes, x: np.ndarray, values: np.ndarray, label: str, color: str, marker: str, dash: Any) -> None:
    """Mean over label seeds of ``values`` (shares, seeds), bars from the lowest to the highest."""
    mean = values.mean(1)
    bars = [mean - values.min(1), values.max(1) - mean]
    ax.errorbar(x, mean, bars, color=COLORS[color], marker=marker, ls=dash, capsize=3, label=label)


def print_table(metrics: dict[str, Any], target: str) -> None:
    """Test accuracies in per cent, means over label seeds: sources and ways to use levels down, shares across."""
    there = [found for found in metrics["results"] if found["target"] == target]
    shares = _shares(there[0])
    print(f"{'wrong labels, %':54}" + "".join(f"{100 * share:7.0f}" for share in shares))
    for found in there:
        for row in (row for row in ("best", "levels", "concatenated", "layers") if row in found["runs"][0]):
            name = "its own output" if found["source"] == "end to end" else _ROWS[row][0]
            means = dict(zip(_shares(found), 100 * table(found, row).mean(1), strict=True))
            cells = (f"{means[share]:7.1f}" if share in means else f"{'':7}" for share in shares)
            print(f"{NAMES[found['source']]:31}{name:23}" + "".join(cells))
