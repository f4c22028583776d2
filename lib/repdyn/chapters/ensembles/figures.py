"""Figures of the chapter on ensembles across noise levels."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def live(ax: Axes, found: xr.Dataset) -> None:
    """Test accuracy of the best level, the vote and the joined features against label noise; bars span label seeds."""
    for shift, row in zip((-0.008, 0.0, 0.008), ("best", "levels", "concatenated"), strict=True):
        _line(ax, found.accuracy.sel(row=row), *_ROWS[row], shift=shift)
    shares_axis(ax, found.share.values)
    ax.set_ylabel("test accuracy (live)")
    ax.legend(loc="lower left")


def sources(data: xr.Dataset, targets: dict[str, str]) -> Figure:
    """Test accuracy of every source's best single probe against label noise, a panel a target (name -> title)."""
    fig, axes = plt.subplots(1, len(targets), figsize=(7.5, 4.4), sharey=True)
    for ax, (target, title) in zip(np.atleast_1d(axes), targets.items(), strict=True):
        for accuracy in data.accuracy.sel(target=target, row="best").dropna("source", how="all"):
            source = accuracy.source.item()
            dash = "--" if source in ("weights", "supervised", "end to end") else "-"
            _line(ax, accuracy, NAMES[source], *_LOOKS[source], dash)
        shares_axis(ax, data.share.values)
        ax.set_title(title)
    np.atleast_1d(axes)[0].set_ylabel("test accuracy of a linear probe")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return fig


def photographs(data: xr.Dataset, targets: dict[str, str]) -> Figure:
    """Ways to use one network on several sets, beside the untrained network and pixels: a panel a target."""
    fig, axes = plt.subplots(2, -(-len(targets) // 2), figsize=(7.5, 6.2), sharex=True, squeeze=False)
    for ax, (target, title) in zip(axes.flat, targets.items(), strict=False):
        accuracy = data.accuracy.sel(target=target)
        for row in ("best", "levels", "concatenated", "layers"):
            _line(ax, accuracy.sel(source="weights", row=row), *_ROWS[row])
        for source in ("untrained", "pixels"):
            _line(ax, accuracy.sel(source=source, row="best"), NAMES[source], *_LOOKS[source], ":")
        shares_axis(ax, data.share.values)
        ax.set_title(title)
        ax.set_ylim(bottom=0)
    for ax in axes[0]:
        ax.set_xlabel("")
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return fig


def gains(data: xr.Dataset, networks: tuple[str, ...], targets: dict[str, str]) -> Figure:
    """What a vote of five levels, and one probe of all five, gain over the best level, in points of accuracy."""
    fig, axes = plt.subplots(len(targets), len(networks), figsize=(7.4, 4.8), sharex=True, sharey=True, squeeze=False)
    for line, (target, title) in zip(axes, targets.items(), strict=True):
        for ax, source in zip(line, networks, strict=True):
            accuracy = data.accuracy.sel(source=source, target=target)
            for row in ("levels", "concatenated"):
                _line(ax, 100 * (accuracy.sel(row=row) - accuracy.sel(row="best")), *_ROWS[row])
            ax.axhline(0, color=COLORS["black"], lw=1)
            ax.set_title(f"{NAMES[source]}: {title}", fontsize=10)
    for ax in axes[-1]:
        shares_axis(ax, data.share.values)
    for ax in axes[:, 0]:
        ax.set_ylabel("points over best level")
    axes[0, 0].legend(loc="best", fontsize=9)
    return fig


def levels(found: xr.Dataset) -> Figure:
    """Test accuracy against sigma for every share of wrong labels, at the layers chosen; rings: the levels chosen."""
    fig, ax = plt.subplots(figsize=(7.2, 3.9))
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.8, found.sizes["share"]))
    best = found.accuracy.sel(row="best")
    for color, share, marker in zip(colors, found.share.values, "os^Dv", strict=False):
        curves = found.curve.sel(share=share).dropna("sigma", how="all")
        ax.plot(curves.sigma, curves.mean(_DRAWS), marker=marker, color=color, label=f"{100 * share:.0f} % wrong")
        ax.fill_between(curves.sigma, curves.min(_DRAWS), curves.max(_DRAWS), color=color, alpha=0.15, lw=0)
        chosen, reached = (values.sel(share=share).values.ravel() for values in (found.sigma_chosen, best))
        ax.plot(chosen, reached, "o", ms=11, mfc="none", mec=color, mew=1.5)
    sigma_axis(ax)
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def diversity(found: xr.Dataset, shares: tuple[float, ...]) -> Figure:
    """Gain of each ensemble over its own members and over the best level, against the correlation of their errors."""
    fig, axes = plt.subplots(1, len(shares), figsize=(7.5, 3.9), sharey=True)
    for ax, share in zip(np.atleast_1d(axes), shares, strict=True):
        here = found.sel(share=share)
        for row, (label, color, marker, _) in _ROWS.items():
            one = here.sel(row=row)
            if one.correlation.isnull().all():
                continue
            x, best = one.correlation.mean(), 100 * (one.accuracy - here.accuracy.sel(row="best")).mean()
            own = 100 * (one.accuracy - one.members)
            bars = [[own.mean() - own.min()], [own.max() - own.mean()]]
            style = {"color": COLORS[color], "fmt": marker, "ms": 8, "capsize": 3, "label": label}
            ax.errorbar(x, own.mean(), bars, **style)
            ax.plot(x, best, marker, ms=8, mfc="white", mec=COLORS[color], mew=1.5)
        ax.axhline(0, color=COLORS["black"], lw=1)
        ax.set_title(f"{100 * share:.0f} % wrong labels")
        ax.margins(x=0.15)
    fig.supxlabel("correlation of the members' errors", fontsize=10.5)
    np.atleast_1d(axes)[0].set_ylabel("gain, points of accuracy")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=9)
    return fig


def calibration(found: xr.Dataset, honest: np.ndarray) -> Figure:
    """Log-loss and calibration error on true test labels against label noise, for the best level and the votes.

    ``honest`` (shares,) is the calibration error to be expected of a probe that is right about its wrong labels.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.6))
    (band,) = axes[1].plot(found.share, honest, color=COLORS["grey"], lw=5, alpha=0.4)
    for ax, score, title in zip(axes, ("nll", "ece"), ("log-loss", "calibration error (15 bins)"), strict=True):
        for row in ("best", "levels", "concatenated", "layers"):
            _line(ax, found[score].sel(row=row), *_ROWS[row])
        shares_axis(ax, found.share.values)
        ax.set_ylabel(title)
    axes[0].legend(loc="upper left", fontsize=9)
    axes[1].legend([band], ["honest about wrong labels"], loc="upper left", fontsize=9)
    return fig


_DRAWS = ("seed", "training")


def _line(ax: Axes, values: xr.DataArray, label: str, color: str, marker: str, dash: Any, shift: float = 0.0) -> None:
    """Mean over label seeds and trainings of ``values``, bars from the lowest to the highest."""
    values = values.dropna("share", how="all")
    mean = values.mean(_DRAWS)
    bars = [mean - values.min(_DRAWS), values.max(_DRAWS) - mean]
    ax.errorbar(values.share + shift, mean, bars, color=COLORS[color], marker=marker, ls=dash, capsize=3, label=label)


def print_table(data: xr.Dataset, target: str) -> None:
    """Test accuracies in per cent, means over label seeds: sources and ways to use levels down, shares across."""
    print(f"{'wrong labels, %':54}" + "".join(f"{100 * share:7.0f}" for share in data.share.values))
    means = 100 * data.accuracy.sel(target=target).mean(_DRAWS)
    for source in data.source.values:
        for row in ("best", "levels", "concatenated", "layers"):
            one = means.sel(source=source, row=row)
            if one.notnull().any():
                name = "its own output" if source == "end to end" else _ROWS[row][0]
                cells = (f"{'':7}" if np.isnan(value) else f"{value:7.1f}" for value in one.values)
                print(f"{NAMES[source]:31}{name:23}" + "".join(cells))
