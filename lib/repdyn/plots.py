"""One style for every figure: colour-blind-safe, readable in light and dark, at phone width."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

__all__ = ["CLASS_COLORS", "COLORS", "MARKERS", "show_image", "sigma_axis", "use_style"]

# Okabe and Ito's palette, without its yellow, which is too light on a white ground.
COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "pink": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "black": "#1A1A1A",
    "grey": "#767676",
}
CLASS_COLORS = [COLORS[c] for c in ("blue", "orange", "green", "pink", "sky", "amber", "black")]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def use_style() -> None:
    """Set matplotlib's defaults for the book; call it once at the top of a chapter."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "font.family": "DejaVu Sans",
            "font.size": 10.5,
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "axes.prop_cycle": cycler(color=CLASS_COLORS),
            "image.cmap": "viridis",
        }
    )


def sigma_axis(ax: Axes, label: str = r"noise level $\sigma$") -> Axes:
    """Make the x-axis of ``ax`` the book's axis of noise: sigma, logarithmic, decades ticked."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(label)
    return ax


def show_image(ax: Axes, image: Tensor) -> None:
    """One image (C, H, W) in [-1, 1], grey or RGB, without ticks; what leaves the range is cut off."""
    picture = image.clamp(-1, 1).add(1).div(2).permute(1, 2, 0).squeeze(-1)
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
