"""Figures of the chapter on the repairs of a DAE of low noise."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from repdyn.plots import COLORS, MARKERS

__all__ = ["levels", "live", "rows"]


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


def levels(table: dict[str, tuple[list[float], list[float]]], shares: dict[str, float], untrained: float) -> Figure:
    """Accuracy against the number of levels of the training (left) and the share of low ones in its loss (right).

    ``table``: label -> (at the lowest level, at the best), by seed; ``shares``: label -> share, of the same eight.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.3), sharey=True)
    counted = [label for label in table if label.isdigit() or label == "all"]
    for index, (name, color, style) in enumerate((("lowest level", "blue", "o-"), ("best level", "orange", "s--"))):
        values = np.array([table[label][index] for label in counted])  # (rows, seeds)
        left.plot(range(len(counted)), values.mean(1), style, color=COLORS[color], label=f"read at the {name}")
        left.fill_between(range(len(counted)), values.min(1), values.max(1), color=COLORS[color], alpha=0.2, lw=0)
    left.set_xticks(range(len(counted)), counted)
    left.set_xlabel("noise levels of the training")
    left.set_ylabel("test accuracy")
    for (label, share), marker in zip(shares.items(), [*MARKERS, "*"], strict=True):
        low = table[label][0]
        right.plot([share] * len(low), low, marker, color=COLORS["blue"], mfc="none", ms=7, label=label)
    right.set_xlabel(r"share of the loss below $\sigma = 0.1$")
    right.legend(loc="upper right", bbox_to_anchor=(1.03, 0.93), ncols=2, handletextpad=0.2, columnspacing=0.8)
    for ax in (left, right):
        ax.axhline(untrained, color=COLORS["grey"], lw=1.2, ls=":", label="untrained")
    left.legend(loc="lower right")
    return fig
