"""Figures of the chapter on one diffusion model against ten DAEs."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
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


def curves(result: dict[str, Any], layer: int) -> Figure:
    """Test accuracy of hidden layer ``layer`` against sigma, a panel for each family; bands span the seeds."""
    count = len(result["families"])
    fig, axes = plt.subplots(1, count, figsize=(7.5 if count > 1 else 6, 3.5), sharey=True, squeeze=False)
    for ax, (family, kinds) in zip(axes[0], result["families"].items(), strict=True):
        for kind in ("daes", "diffusion"):
            _band(ax, result["sigmas"], np.array(kinds[kind]["test"])[:, layer], kind)
        ax.axhline(np.mean(result["untrained"]["test"][layer]), color=COLORS["grey"], lw=1.2, ls=":")
        ax.axhline(result["pixels"], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
        ax.set_title(FAMILIES[family])
        sigma_axis(ax)
    axes[0, 0].set_ylabel("test accuracy of a linear probe")
    lines = [("grey", ":", "untrained (VP)"), ("black", (0, (1, 1)), "pixels")]
    extra = [Line2D([], [], color=COLORS[color], lw=1.2, ls=style, label=name) for color, style, name in lines]
    _legend_below(fig, axes[0, 0], extra)
    return fig


def distances(result: dict[str, Any]) -> Figure:
    """Distance of each level's features from the best one's (top), and alignment with them (bottom), by family."""
    fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), sharex=True, sharey="row")
    for column, (family, kinds) in zip(axes.T, result["families"].items(), strict=True):
        for kind in ("daes", "diffusion"):
            for ax, key, place in zip(column, ("distance", "cka"), (0, 2), strict=True):
                _band(ax, result["sigmas"], np.array(kinds[kind][key]), kind)
                _, color, _ = _KINDS[kind]
                ax.axhline(kinds[kind]["seeds_apart"][place], color=COLORS[color], lw=1.2, ls=(0, (1, 1)))
        column[0].set_title(FAMILIES[family])
        sigma_axis(column[1])
    axes[0, 0].set_ylabel("sliced Wasserstein\ndistance")
    axes[1, 0].set_ylabel("alignment (CKA)")
    dotted = Line2D([], [], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="two seeds of the same model")
    _legend_below(fig, axes[0, 0], [dotted])
    return fig


def collapse(result: dict[str, Any]) -> Figure:
    """Error over the noise (top) and Jacobian against the identity (bottom), by family; the seeds' range as a band."""
    fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.2), sharex=True, sharey="row")
    for column, (family, kinds) in zip(axes.T, result["families"].items(), strict=True):
        for kind in ("daes", "diffusion"):
            for ax, key in zip(column, ("error", "jacobian"), strict=True):
                _band(ax, result["sigmas"], np.array(kinds[kind][key]), kind)
        column[0].axhline(1, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)))
        column[0].set_yscale("log")
        column[0].set_title(FAMILIES[family])
        sigma_axis(column[1])
    axes[0, 0].set_ylabel(_ERROR)
    axes[1, 0].set_ylabel(_JACOBIAN)
    dotted = Line2D([], [], color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="the identity")
    _legend_below(fig, axes[0, 0], [dotted])
    return fig


def equal_compute(result: dict[str, Any], layer: int) -> Figure:
    """Panels of one compute each, ten DAEs against one diffusion model; a row for each family with a long training."""
    families = {name: kinds for name, kinds in result["families"].items() if "long" in kinds}
    fig, axes = plt.subplots(len(families), 2, figsize=(7.2, 2.6 * len(families)), sharex=True, sharey=True)
    for row, (family, kinds) in zip(np.atleast_2d(axes), families.items(), strict=True):
        pairs = [(kinds["daes"]["early"], kinds["diffusion"]), (kinds["daes"], kinds["long"])]
        for ax, (daes, one) in zip(row, pairs, strict=True):
            _band(ax, result["sigmas"], np.array(daes["test"])[:, layer], "daes")
            _band(ax, result["sigmas"], np.array(one["test"])[:, layer], "diffusion")
            ax.set_title(f"{FAMILIES[family]}, {one['images'][0]:,} images in all")
            sigma_axis(ax)
            ax.label_outer()
        row[0].set_ylabel("test accuracy")
    np.atleast_2d(axes)[0, 0].legend(loc="lower right")
    return fig


_ERROR = r"error over noise, $\|D - x_0\| / \sigma\sqrt{n}$"
_JACOBIAN = r"$\|J - I\|_F / \sqrt{n}$"


def _band(ax: Axes, x: list[float], by_seed: np.ndarray, kind: str) -> None:
    """Mean over seeds (seed, level) with a band from the lowest to the highest."""
    label, color, style = _KINDS[kind]
    ax.plot(x, by_seed.mean(0), style, color=COLORS[color], label=label)
    ax.fill_between(x, by_seed.min(0), by_seed.max(0), color=COLORS[color], alpha=0.2, lw=0)


def _legend_below(fig: Figure, ax: Axes, extra: list[Line2D]) -> None:
    handles, _ = ax.get_legend_handles_labels()
    fig.legend(handles=[*handles, *extra], loc="outside lower center", ncols=4)
