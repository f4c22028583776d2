"""Figures of the chapter on the repairs of a DAE of low noise."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from repdyn.plots import COLORS

__all__ = ["levels", "live", "rows"]

_OPEN = {"ms": 9, "mfc": "none", "mew": 1.4}


def live(accuracy: dict[str, list[float]], images: list[int]) -> Figure:
    """Accuracy along the training; name -> test accuracy at each of ``images``."""
    styles = [("orange", "s--"), ("pink", "v:"), ("green", "^-."), ("blue", "o-")]
    fig, ax = plt.subplots(figsize=(6.8, 3.2))
    for (name, values), (color, style) in zip(accuracy.items(), styles, strict=True):
        ax.plot(images, values, style, color=COLORS[color], label=name)
    ax.set_xscale("log")
    ax.set_xlabel("training images seen")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def rows(table: list[dict[str, Any]], pixels: float) -> Figure:
    """A line for each repair: its accuracy at the lowest level, a dot a seed, and at its best level, an open square.

    ``table`` has ``name``, ``low`` and ``best``, the latter two by seed, from top to bottom.
    """
    fig, ax = plt.subplots(figsize=(7.2, 0.29 * len(table) + 0.9))
    for place, row in enumerate(table):
        low = row["low"]
        ax.plot([min(low), max(low)], [place, place], color=COLORS["blue"], lw=1.5)
        ax.plot(low, [place] * len(low), "o", color=COLORS["blue"], label="at its lowest level, each seed")
        if row["best"] is not None:
            best = float(np.mean(row["best"]))
            ax.plot(
                best, place, "s", ms=9, mfc="none", mew=1.4, color=COLORS["orange"], label="at its best level, mean"
            )
    ax.axvline(pixels, color=COLORS["black"], lw=1.2, ls=(0, (1, 1)), label="pixels")
    ax.set_yticks(range(len(table)), [row["name"] for row in table])
    ax.invert_yaxis()
    ax.set_xlabel("test accuracy of a linear probe")
    handles, names = ax.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3)
    return fig


def levels(table: dict[str, tuple[list[float], list[float]]], untrained: float) -> Figure:
    """Accuracy against the number of levels of the training: label -> (at the lowest level, at the best), by seed."""
    fig, ax = plt.subplots(figsize=(6.6, 3.3))
    places = np.arange(len(table))
    for index, (name, color, style) in enumerate((("lowest level", "blue", "o-"), ("best level", "orange", "s--"))):
        values = np.array([row[index] for row in table.values()])  # (rows, seeds)
        ax.plot(places, values.mean(1), style, color=COLORS[color], label=f"read at the {name}")
        ax.fill_between(places, values.min(1), values.max(1), color=COLORS[color], alpha=0.2, lw=0)
    ax.axhline(untrained, color=COLORS["grey"], lw=1.2, ls=":", label="untrained")
    ax.set_xticks(places, list(table))
    ax.set_xlabel("noise levels of the training")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="lower right")
    return fig
