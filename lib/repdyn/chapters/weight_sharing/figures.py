"""Figures of the chapter on one diffusion model against ten DAEs."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repdyn.plots import COLORS, sigma_axis

__all__ = ["FAMILIES", "collapse", "curves", "distances", "equal_compute", "shipped", "training"]

#: What stands around the network, as titles.
FAMILIES: dict[str, str] = {"vp": "VP", "edm": "EDM", "none": "nothing around it"}
_KINDS = {
    "daes": ("ten DAEs", "orange", "s--"),
    "diffusion": ("one diffusion model", "blue", "o-"),
}


def training(ax: Axes, runs: dict[str, dict[str, Any]], layer: int) -> None:
    """Accuracy of hidden layer ``layer`` against images seen, of the first level read; name -> measurement."""
    styles = [("orange", "s--"), ("green", "^-."), ("blue", "o-")]
    for (name, run), (color, style) in zip(runs.items(), styles, strict=True):
        stages = run["checkpoints"]
        accuracy = [stage["test"][layer][0] for stage in stages]
        ax.plot([stage["images"] for stage in stages], accuracy, style, color=COLORS[color], label=name)
    ax.set_xscale("log")
    ax.set_xlabel("training images seen")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="lower left")


def shipped(sigmas: list[float], trained: list, untrained: list) -> Figure:
    """Error in units of the noise, and Jacobian against the identity, of a trained network and an untrained one.

    Both are lists of :class:`repdyn.metrics.identity.Closeness`, one for each of ``sigmas``.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.0))
    for ax, key, label in zip(axes, ("error", "jacobian"), (_ERROR, _JACOBIAN), strict=True):
        for found, name, color, style in ((trained, "trained", "blue", "o-"), (untrained, "untrained", "grey", "D:")):
            ax.plot(sigmas, [getattr(level, key) for level in found], style, color=COLORS[color], label=name)
        ax.set_ylabel(label)
        sigma_axis(ax)
    axes[0].axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
    axes[0].annotate(
        "the identity", (sigmas[-1], 1), ha="right", va="bottom", xytext=(0, 3), textcoords="offset points"
    )
    axes[1].legend()
    return fig


def curves(data: xr.Dataset, layer: str) -> Figure:
    """Test accuracy of a hidden layer against sigma, a panel for each family; bands span the seeds.

    ``data`` is a :func:`repdyn.chapters.weight_sharing.measure.dataset`, here and in the figures below.
    """
    count = data.sizes["family"]
    fig, axes = plt.subplots(1, count, figsize=(7.5 if count > 1 else 6, 3.5), sharey=True, squeeze=False)
    test = data.test.sel(stage="end", layer=layer)
    for ax, family in zip(axes[0], data.family.values, strict=True):
        for kind in ("daes", "diffusion"):
            _band(ax, test.sel(family=family, kind=kind), kind)
        ax.axhline(data.untrained.sel(layer=layer).mean(), color=COLORS["grey"], lw=1.2, ls=":")
        ax.axhline(data.pixels, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
        ax.set_title(FAMILIES[family])
        sigma_axis(ax)
    axes[0, 0].set_ylabel("test accuracy of a linear probe")
    lines = [("grey", ":", "untrained (VP)"), ("black", (0, (1, 1)), "pixels")]
    extra = [Line2D([], [], color=COLORS[color], lw=1.2, ls=style, label=name) for color, style, name in lines]
    _legend_below(fig, axes[0, 0], extra)
    return fig


def distances(data: xr.Dataset) -> Figure:
    """Distance of each level's features from the best one's (top), and alignment with them (bottom), by family."""
    fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), sharex=True, sharey="row")
    for column, family in zip(axes.T, data.family.values, strict=True):
        for kind in ("daes", "diffusion"):
            found = data.sel(family=family, kind=kind)
            for ax, key in zip(column, ("distance", "cka"), strict=True):
                _band(ax, found[key], kind)
                _, color, _ = _KINDS[kind]
                ax.axhline(found.seeds_apart.sel(likeness=key), color=COLORS[color], lw=1.2, ls=(0, (1, 1)))
        column[0].set_title(FAMILIES[family])
        sigma_axis(column[1])
    axes[0, 0].set_ylabel("sliced Wasserstein\ndistance")
    axes[1, 0].set_ylabel("alignment (CKA)")
    dotted = Line2D([], [], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="two seeds of the same model")
    _legend_below(fig, axes[0, 0], [dotted])
    return fig


def collapse(data: xr.Dataset) -> Figure:
    """Error over the noise (top) and Jacobian against the identity (bottom), by family; the seeds' range as a band."""
    fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), sharex=True, sharey="row")
    for column, family in zip(axes.T, data.family.values, strict=True):
        for kind in ("daes", "diffusion"):
            found = data.sel(family=family, kind=kind, stage="end")
            for ax, key in zip(column, ("error", "jacobian"), strict=True):
                _band(ax, found[key], kind)
        column[0].axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
        column[0].set_yscale("log")
        column[0].set_title(FAMILIES[family])
        sigma_axis(column[1])
    axes[0, 0].set_ylabel(_ERROR)
    axes[1, 0].set_ylabel(_JACOBIAN)
    dotted = Line2D([], [], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="the identity")
    _legend_below(fig, axes[0, 0], [dotted])
    return fig


def equal_compute(data: xr.Dataset, layer: str) -> Figure:
    """Panels of one compute each, ten DAEs against one diffusion model; a row for each family with a long training."""
    there = data.images.sel(kind="long").notnull().any(("seed", "stage"))
    data = data.sel(family=there.values, layer=layer)
    count = data.sizes["family"]
    fig, axes = plt.subplots(count, 2, figsize=(7.2, 2.6 * count), sharex=True, sharey=True, squeeze=False)
    for row, family in zip(axes, data.family.values, strict=True):
        for ax, stage, one_model in zip(row, ("early", "end"), ("diffusion", "long"), strict=True):
            one = data.sel(family=family, kind=one_model, stage="end")
            _band(ax, data.test.sel(family=family, kind="daes", stage=stage), "daes")
            _band(ax, one.test, "diffusion")
            ax.set_title(f"{FAMILIES[family]}, {int(one.images[0]):,} images in all")
            sigma_axis(ax)
            ax.label_outer()
        row[0].set_ylabel("test accuracy")
    axes[0, 0].legend(loc="lower right")
    return fig


_ERROR = r"error over noise, $\|D - x_0\| / \sigma\sqrt{n}$"
_JACOBIAN = r"$\|J - I\|_F / \sqrt{n}$"


def _band(ax: Axes, values: xr.DataArray, kind: str) -> None:
    """Mean over seeds against sigma, with a band from the lowest to the highest."""
    label, color, style = _KINDS[kind]
    low, high = values.min("seed"), values.max("seed")
    ax.plot(values.sigma, values.mean("seed"), style, color=COLORS[color], label=label)
    ax.fill_between(values.sigma, low, high, color=COLORS[color], alpha=0.2, lw=0)


def _legend_below(fig: Figure, ax: Axes, extra: list[Line2D]) -> None:
    handles, _ = ax.get_legend_handles_labels()
    fig.legend(handles=[*handles, *extra], loc="outside lower center", ncols=4)
