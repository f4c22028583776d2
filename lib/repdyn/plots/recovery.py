"""Figures of the chapter on recovering the subspaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis
from repdyn.recovery import pick, success

__all__ = ["clusters", "directions", "levels", "losses_and_angles", "overlaps", "slices", "trajectories"]

_NAMES = {"0.3": "one level, 0.3", "even": "all levels", "k-subspaces": "k-subspaces", "em": "EM"}
_NAMES |= {"ddpm": "DDPM's levels", "edm": "EDM's levels", "anneal": "annealed"}


def directions(sigma: Sequence[float], cosines: Mapping[str, Sequence[float]]) -> Figure:
    """Cosines (S,) of the descent direction of the DAE loss with other directions, against sigma (S,)."""
    figure, ax = plt.subplots(figsize=(7.0, 3.4))
    for i, (name, values) in enumerate(cosines.items()):
        ax.plot(sigma, values, color=CLASS_COLORS[i], marker=MARKERS[i], ls=["-", "--"][i % 2], label=name)
    sigma_axis(ax)
    ax.set(ylabel="cosine with the descent direction", ylim=(-0.05, 1.05))
    ax.legend(loc="center left")
    return figure


def trajectories(curves: Mapping[str, np.ndarray], every: int, oracle: float) -> Figure:
    """Largest angle (checks, starts) of every start against training steps, one panel for each schedule."""
    figure, axes = plt.subplots(1, len(curves), figsize=(7.2, 3.4), sharey=True)
    for ax, (name, angles) in zip(np.atleast_1d(axes), curves.items()):
        steps = every * np.arange(len(angles))
        for run in np.asarray(angles).T:
            found = run[-1] < 0.5
            ax.plot(steps, run, color=COLORS["blue" if found else "orange"], ls="-" if found else "--", lw=1.2)
        ax.axhline(oracle, color=COLORS["black"], lw=1.2, ls=":")
        ax.set(yscale="log", xlabel="training steps", title=_NAMES.get(name, name))
    np.atleast_1d(axes)[0].set_ylabel("largest angle (radians)")
    return figure


def overlaps(matrices: Mapping[str, np.ndarray]) -> Figure:
    """Shares (K, K) of every found subspace (down) that lie in every true one (across), one panel for each start."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(6.4, 3.2), sharey=True)
    for ax, (name, shares) in zip(np.atleast_1d(axes), matrices.items()):
        picture = ax.imshow(shares, vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            ink = "white" if share < 0.6 else COLORS["black"]
            ax.text(column, row, f"{share:.2f}", ha="center", va="center", color=ink)
        ticks = range(len(shares))
        ax.set(title=name, xlabel="true subspace", xticks=ticks, yticks=ticks)
        ax.grid(False)
    np.atleast_1d(axes)[0].set_ylabel("found subspace")
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of it inside")
    return figure


def levels(result: Mapping[str, Any]) -> Figure:
    """Success rate of training at one noise level, for every delta measured, beside schedules of many levels."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.8), sharey=True, width_ratios=[1.0, 1.2])
    base = [cell for cell in result["cells"] if not cell["changed"] and _is_level(cell["method"])]
    sigma, rates = [float(cell["method"]) for cell in base], [success(cell["angles"]) for cell in base]
    error = [_error(cell) for cell in base]
    left.errorbar(sigma, rates, error, color=COLORS["blue"], marker="o", capsize=3, label="one level")
    styles = zip(("even", "ddpm", "edm", "anneal", "k-subspaces", "em"), CLASS_COLORS[1:], "s^DvPX", strict=True)
    for place, (method, color, marker) in enumerate(styles):
        cell, x = pick(result, method), 4.5 * 1.6**place
        left.errorbar([x], [success(cell["angles"])], [_error(cell)], fmt=marker, color=color, capsize=3)
        left.text(x, 1.04, _NAMES[method], rotation=60, fontsize=9, color=COLORS["black"], ha="left", va="bottom")
    sigma_axis(left)
    left.set(ylabel="share of starts that recover", ylim=(-0.03, 1.03), xlim=(0.07, 60))
    deltas = sorted({cell["changed"].get("delta", 0.2) for cell in result["cells"]})
    for i, delta in enumerate(deltas):
        chosen = [pick(result, level, **_changed("delta", delta, result)) for level in ("0.1", "0.3", "1.0")]
        y = [success(cell["angles"]) for cell in chosen]
        label = rf"$\delta = {delta:g}$"
        right.plot(
            [0.1, 0.3, 1.0], y, color=CLASS_COLORS[i], marker=MARKERS[i], ls=["-", "--", "-.", ":"][i % 4], label=label
        )
    sigma_axis(right, r"the one noise level $\sigma$")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def slices(result: Mapping[str, Any], world: Mapping[str, float], methods: Sequence[str]) -> Figure:
    """Success rate of ``methods`` along every axis that was measured, through the point ``world``."""
    axes_names = list(dict.fromkeys(name for cell in result["cells"] for name in cell["changed"]))
    figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.0), sharey=True)
    for ax, name in zip(axes.flat, axes_names, strict=True):
        values = sorted({cell["changed"][name] for cell in result["cells"] if name in cell["changed"]} | {world[name]})
        for i, method in enumerate(methods):
            cells = [pick(result, method, **({} if v == world[name] else {name: v})) for v in values]
            places = np.arange(len(values)) + 0.08 * (i - 1)
            rates = [success(cell["angles"]) for cell in cells]
            style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": ["-", "--", ":"][i % 3]}
            ax.errorbar(places, rates, [_error(cell) for cell in cells], label=_NAMES[method], capsize=2, **style)
        ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        ax.set_xlabel(_AXES[name])
    for ax in axes[:, 0]:
        ax.set(ylabel="share that recover", ylim=(-0.05, 1.05))
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods))
    return figure


_AXES = {
    "n": "ambient dimension $n$",
    "d": "subspace dimension $d$",
    "K": "classes $K$",
    "num": "samples",
    "overlap": "cosine between subspaces",
    "delta": r"$\delta$",
}


def losses_and_angles(result: Mapping[str, Any], methods: Sequence[str]) -> Figure:
    """Loss of every start over that of the true bases, against its largest angle."""
    figure, ax = plt.subplots(figsize=(7.0, 3.4))
    for i, method in enumerate(methods):
        cell = pick(result, method)
        style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": "none", "alpha": 0.8}
        ax.plot(cell["angles"], cell["losses"], label=_NAMES.get(method, f"one level, {method}"), **style)
    ax.set(xlabel="largest angle (radians)", ylabel="loss / loss of the true bases")
    ax.legend(loc="upper left")
    return figure


def clusters(result: Mapping[str, Any]) -> Figure:
    """Clustering accuracy of every start: k-means, k-subspaces and the denoiser at each dimension."""
    figure, ax = plt.subplots(figsize=(7.2, 3.6))
    dims = result["dims"]
    _strip(ax, [-1], [result["k_means"]], 0, "k-means", None)
    _strip(ax, range(len(dims)), result["k_subspaces"], 1, "k-subspaces", None)
    for i, schedule in enumerate(dict.fromkeys(entry["schedule"] for entry in result["denoiser"]), 2):
        entries = [entry for entry in result["denoiser"] if entry["schedule"] == schedule]
        best = [int(np.argmin(entry["losses"])) for entry in entries]
        values = [entry["accuracy"] for entry in entries]
        _strip(ax, range(len(dims)), values, i, f"denoiser, {_NAMES.get(schedule, schedule)}", best)
    ax.set_xticks(range(-1, len(dims)), ["", *map(str, dims)])
    ax.set(xlabel="dimension of the subspaces $d$", ylabel="clustering accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _strip(ax: Axes, places: Sequence[int], runs: Sequence[Sequence[float]], i: int, label: str, best: Any) -> None:
    """One dot for each start, those with the lowest loss ringed."""
    for index, (place, values) in enumerate(zip(places, runs)):
        x = np.full(len(values), place + 0.18 * (i - 2))
        style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": "none", "alpha": 0.8}
        ax.plot(x, values, label=label if index == 0 else None, **style)
        if best is not None:
            ax.plot(x[:1], values[best[index]], "o", ms=11, mfc="none", mec=COLORS["black"])


def _is_level(method: str) -> bool:
    return method.replace(".", "", 1).isdigit()


def _changed(name: str, value: float, result: Mapping[str, Any]) -> dict[str, float]:
    return {name: value} if any(cell["changed"].get(name) == value for cell in result["cells"]) else {}


def _error(cell: Mapping[str, Any]) -> float:
    rate = success(cell["angles"])
    return float(np.sqrt(rate * (1 - rate) / len(cell["angles"])))
