"""Figures of the chapter on the noisy mixture of low-rank Gaussians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis

__all__ = ["calibration", "denoised", "dimensions", "energy_tables", "information", "lines", "spectra"]

DASHES = ["-", "--", "-.", ":"]
PIXEL_SIGMA = r"noise level $\sigma$ (pixel units)"


def lines(samples: Mapping[float, tuple[np.ndarray, np.ndarray]], bases: Sequence[np.ndarray]) -> Figure:
    """Samples in R^3 around one line per class, one panel per delta: ``samples[delta] = (x, labels)``."""
    fig, axes = plt.subplots(1, len(samples), figsize=(7.2, 3.7), subplot_kw={"projection": "3d"})
    for ax, (delta, (points, labels)) in zip(axes, samples.items()):
        for k, basis in enumerate(bases):
            ends = 3.0 * basis[:, 0]
            ax.plot(*np.stack([-ends, ends], axis=1), color=CLASS_COLORS[k], lw=1.6)
            own = points[(labels == k) & (np.abs(points).max(1) < 3.0)]
            ax.scatter(*own.T, s=13, marker=MARKERS[k], color=CLASS_COLORS[k], alpha=0.55, lw=0, label=f"class {k + 1}")
        ax.set(title=rf"$\delta = {delta:g}$", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), zlim=(-2.4, 2.4))
        ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
        ax.set_box_aspect((1, 1, 1), zoom=1.25)
        ax.view_init(*_view(bases))
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(bases), markerscale=1.8)
    return fig


def _view(bases: Sequence[np.ndarray], elevation: float = 25.0) -> tuple[float, float]:
    """Elevation and azimuth from where every line is seen at the same slant, of eight such places the most usual."""
    corners = np.stack(np.meshgrid(*[[-1, 1]] * len(bases)), axis=-1).reshape(-1, len(bases))
    x, y, z = (corners @ np.stack([basis[:, 0] for basis in bases])).T
    elev, azim = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    best = np.abs(elev - elevation).argmin()
    return elev[best], azim[best]


def information(delta: np.ndarray, curves: Mapping[int, np.ndarray], accuracy: Mapping, bits: Mapping) -> Figure:
    """Bayes accuracy (line: integral, marker: samples with their spread) and class information, against delta.

    ``curves[d]`` belongs to ``delta``; ``accuracy[d]`` and ``bits[d]`` are (levels, values (len(levels), seeds)).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.3))
    for i, d in enumerate(curves):
        style = {"color": CLASS_COLORS[i], "marker": MARKERS[i]}
        left.plot(delta, curves[d], color=CLASS_COLORS[i], ls=DASHES[i])
        for ax, (levels, values) in ((left, accuracy[d]), (right, bits[d])):
            ls = "none" if ax is left else DASHES[i]
            ax.errorbar(levels, values.mean(1), values.std(1, ddof=1), ls=ls, capsize=2, label=f"$d = {d}$", **style)
    left.axhline(1 / 3, color=COLORS["grey"], lw=1, ls=":")
    left.annotate("chance", (0.02, 1 / 3), xytext=(0, 4), textcoords="offset points", color=COLORS["grey"])
    right.axhline(np.log2(3), color=COLORS["grey"], lw=1, ls=":")
    right.annotate(r"all there is, $\log_2 3$", (1.0, np.log2(3)), xytext=(0, 4), textcoords="offset points",
                   color=COLORS["grey"], ha="right")  # fmt: skip
    left.set(xlabel=r"$\delta$", ylabel="Bayes accuracy", ylim=(0.28, 1.03))
    right.set(xlabel=r"$\delta$", ylabel="class information (bits)", ylim=(-0.05, 1.78), xlim=(-0.02, 1.02))
    left.legend(loc="lower left", bbox_to_anchor=(0.0, 0.12))
    return fig


def spectra(
    values: np.ndarray,
    fit: np.ndarray,
    sigma: np.ndarray,
    freedom: np.ndarray,
    freedom_fit: np.ndarray,
    freedom_faint: np.ndarray,
) -> Figure:
    """Eigenvalues of real classes (K, n) beside those of the fitted model (n,); degrees of freedom against sigma.

    ``freedom`` (K, m) belongs to the classes and ``sigma`` (m,), ``freedom_fit`` and ``freedom_faint`` (m,) to the fit
    and to the same with delta = 0.005.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4))
    index = np.arange(1, values.shape[1] + 1)
    for spectrum, curve in zip(values, freedom):
        left.loglog(index, spectrum, color=COLORS["sky"], lw=1)
        right.loglog(sigma, curve, color=COLORS["sky"], lw=1)
    left.loglog(index, values.mean(0), color=COLORS["blue"], label="real classes and mean")
    left.loglog(index, fit, color=COLORS["orange"], ls="--", label="fitted MoLRG")
    right.loglog(sigma, freedom.mean(0), color=COLORS["blue"], label="real classes and mean")
    right.loglog(sigma, freedom_fit, color=COLORS["orange"], ls="--", label="fitted MoLRG")
    right.loglog(sigma, freedom_faint, color=COLORS["green"], ls="-.", label=r"same, $\delta = 0.005$")
    left.set(xlabel="index of the eigenvalue", ylabel="eigenvalue", ylim=(1e-4, 400))
    sigma_axis(right, PIXEL_SIGMA).set(ylabel="degrees of freedom", ylim=(0.5, 1000))
    left.legend(loc="lower left")
    right.legend(loc="lower left")
    return fig


def dimensions(measured: Mapping[str, Mapping[str, np.ndarray]], control: Mapping[str, np.ndarray]) -> Figure:
    """Four views of d: overlap of the subspaces, delta, energy shares, nearest-subspace accuracy.

    ``measured[name]`` holds d (m,), overlap (m,), delta (m, K), own, other (m,), accuracy (m,), mean_accuracy;
    ``control`` holds overlaps for shuffled labels (m, seeds) and random subspaces (m,), for the first of them.
    """
    fig, ((a, b), (c, e)) = plt.subplots(2, 2, figsize=(7.2, 5.8), sharex=True)
    first = next(iter(measured.values()))
    a.plot(first["d"], control["shuffled"].mean(1), color=COLORS["grey"], ls="-.", marker="v", label="labels shuffled")
    a.plot(first["d"], first["overlap"], color=COLORS["blue"], marker="o", label="classes")
    a.plot(first["d"], control["random"], color=COLORS["green"], ls=":", marker="^", label="random subspaces")
    a.set(ylabel="overlap of subspaces", ylim=(-0.03, 1.05), title="(a) Fashion-MNIST: overlap")
    for i, (name, m) in enumerate(measured.items()):
        style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": DASHES[i], "label": name}
        b.plot(m["d"], m["delta"].mean(1), **style)
        b.fill_between(m["d"], m["delta"].min(1), m["delta"].max(1), color=CLASS_COLORS[i], alpha=0.18, lw=0)
        e.plot(m["d"], m["accuracy"], **style)
        e.axhline(m["mean_accuracy"], color=CLASS_COLORS[i], lw=1, ls=":")
    b.set(ylabel=r"estimated $\delta$", ylim=(0, 0.27), title=r"(b) $\delta$: classes' mean and range")
    c.plot(first["d"], first["own"], color=COLORS["blue"], marker="o", label="own subspace")
    c.plot(first["d"], first["other"], color=COLORS["orange"], marker="s", ls="--", label="another class's")
    c.set(ylabel="share of the energy", ylim=(0, 1.05), title="(c) Fashion-MNIST: energies", xlabel="dimension $d$")
    e.set(ylabel="accuracy", ylim=(0, 1.05), title="(d) nearest subspace", xlabel="dimension $d$")
    e.axhline(0.1, color=COLORS["grey"], lw=1)
    e.annotate("chance", (1, 0.1), xytext=(0, 4), textcoords="offset points", color=COLORS["grey"])
    for ax, place in ((a, (0.34, 0.43)), (b, "upper right"), (c, "lower right"), (e, (0.4, 0.2))):
        ax.legend(loc=place)
        ax.set_xscale("log")
        ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        ax.minorticks_off()
    return fig


def energy_tables(tables: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Heat maps: mean share of the energy of class k (row) that lies in the subspace of class l (column)."""
    fig, axes = plt.subplots(1, len(tables), figsize=(7.4, 4.2), sharey=True)
    for ax, (title, table) in zip(axes, tables.items()):
        image = ax.imshow(table, vmin=0, vmax=1, cmap="cividis")
        ax.set_xticks(range(len(classes)), classes, rotation=90)
        ax.set_yticks(range(len(classes)), classes)
        ax.set(title=title, xlabel="subspace of")
        ax.grid(False)
    axes[0].set_ylabel("image of")
    fig.colorbar(image, ax=axes, label="share of the energy", location="bottom", shrink=0.5, aspect=30, pad=0.02)
    return fig


def calibration(sigma: np.ndarray, bits: Mapping[str, np.ndarray], accuracy: Mapping[str, np.ndarray]) -> Figure:
    """Cost of the true label in bits against sigma, and accuracy of the class posterior on clean and noisy input."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4))
    for i, (name, curve) in enumerate(bits.items()):
        left.plot(sigma, np.maximum(curve, 1e-3), color=CLASS_COLORS[i], ls=DASHES[i], label=name)
    for i, (name, curve) in enumerate(accuracy.items()):
        right.plot(sigma, curve, color=CLASS_COLORS[i], ls=DASHES[i], marker=MARKERS[i], markevery=2, label=name)
    left.axhline(np.log2(10), color=COLORS["grey"], lw=1, ls=":")
    left.set_yscale("log")
    sigma_axis(left, PIXEL_SIGMA).set(ylabel="bits per label (clean input)", ylim=(0.8e-3, 60))
    sigma_axis(right, PIXEL_SIGMA).set(ylabel="accuracy of the class posterior", ylim=(0, 1.03))
    left.legend(loc="lower left", bbox_to_anchor=(0.0, 0.08))
    right.legend(loc="lower left")
    return fig


def denoised(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    """A grid of images (H, W) in [-1, 1]: a labelled row per kind, a titled column per noise level."""
    columns = len(titles)
    fig, axes = plt.subplots(len(rows), columns, figsize=(7.2, 1.16 * len(rows) + 0.4), squeeze=False)
    for line, (name, images) in zip(axes, rows.items()):
        for ax, image in zip(line, images):
            ax.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.grid(False)
    for ax, title in zip(axes[0], titles):
        ax.set_title(title)
    return fig
