"""Figures of the chapter on recovering the subspaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repdyn.chapters.recovery.measure import success
from repdyn.plots import CLASS_COLORS, COLORS, MARKERS, sigma_axis

__all__ = ["clusters", "directions", "levels", "losses_and_angles", "overlaps", "slices", "trajectories"]

_NAMES = {"0.3": "one level, 0.3", "even": "all levels", "k-subspaces": "k-subspaces", "em": "EM"}
_NAMES |= {
    "ddpm": "DDPM's levels",
    "edm": "EDM's levels",
    "anneal": "annealed",
    "wide": "2K subspaces",
    "alike": "started alike",
}


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


def levels(data: xr.Dataset) -> Figure:
    """Success rate of training at one noise level, for every delta measured, and of everything else at the base.

    ``data`` is a :func:`repdyn.chapters.recovery.measure.dataset`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.8), width_ratios=[1.25, 1.0])
    deltas = {f"delta={delta:g}": rf"$\delta = {delta:g}$" for delta in np.unique(data.delta)}
    worlds = {"base": "the base"} | {name: label for name, label in deltas.items() if name in data.setting}
    for i, (setting, label) in enumerate(worlds.items()):
        there = {m: angles for m, angles in _measured(data, setting).items() if _is_level(m)}
        x, y = [float(method) for method in there], [success(angles) for angles in there.values()]
        style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": ["-", "--", "-.", ":"][i % 4], "label": label}
        bars = [_error(angles) for angles in there.values()] if setting == "base" else None
        left.errorbar(x, y, bars, capsize=3, **style)
    sigma_axis(left, r"the one noise level $\sigma$")
    left.set(ylabel="share of starts that recover", ylim=(-0.03, 1.03))
    left.legend(loc="upper right", fontsize=9)
    others = {m: angles for m, angles in _measured(data, "base").items() if not _is_level(m)}
    for place, angles in enumerate(reversed(others.values())):
        rate, error = [success(angles)], [_error(angles)]
        right.errorbar(rate, [place], xerr=error, color=COLORS["black"], marker="o", capsize=3)
    right.set_yticks(range(len(others)), [_NAMES.get(method, method) for method in reversed(others)])
    right.set(xlabel="share of starts that recover", xlim=(-0.03, 1.03))
    return figure


def slices(data: xr.Dataset, methods: Sequence[str]) -> Figure:
    """Success rate of ``methods`` along every field of the world that was changed, through the base.

    ``data`` is a :func:`repdyn.chapters.recovery.measure.dataset`.
    """
    figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.0), sharey=True)
    base = data.sel(setting="base")
    for ax, (name, title) in zip(axes.flat, _AXES.items(), strict=True):
        along = data.sel(setting=(data[name] != base[name]) | (data.setting == "base")).sortby(name)
        for i, method in enumerate(methods):
            angles = along.angles.sel(approach=method)
            places = np.arange(along.sizes["setting"]) + 0.08 * (i - 1)
            style = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": ["-", "--", ":"][i % 3]}
            bars = [_error(one) for one in angles]
            ax.errorbar(places, [success(one) for one in angles], bars, label=_NAMES[method], capsize=2, **style)
        ax.set_xticks(range(along.sizes["setting"]), [f"{value:g}" for value in along[name].values])
        ax.set_xlabel(title)
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


def losses_and_angles(data: xr.Dataset, methods: Sequence[str]) -> Figure:
    """Loss of every start over that of the true bases, against its largest angle, at the base."""
    figure, ax = plt.subplots(figsize=(7.0, 3.4))
    for i, method in enumerate(methods):
        at = data.sel(approach=method, setting="base")
        style: dict[str, Any] = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": "none", "alpha": 0.8}
        label = _NAMES.get(method, f"one level, {method}")
        ax.plot(at.angles.values.ravel(), at.losses.values.ravel(), label=label, **style)
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
        style: dict[str, Any] = {"color": CLASS_COLORS[i], "marker": MARKERS[i], "ls": "none", "alpha": 0.8}
        ax.plot(x, values, label=label if index == 0 else None, **style)
        if best is not None:
            ax.plot(x[:1], values[best[index]], "o", ms=11, mfc="none", mec=COLORS["black"])


def _is_level(method: str) -> bool:
    return method.replace(".", "", 1).isdigit()


def _measured(data: xr.Dataset, setting: str) -> dict[str, xr.DataArray]:
    """Method -> angles (world, start), of those that were tried in a setting."""
    angles = data.angles.sel(setting=setting).dropna("approach")
    return {str(one.approach.item()): one for one in angles}


def _error(angles: xr.DataArray) -> float:
    rate = success(angles)
    return float(np.sqrt(rate * (1 - rate) / angles.size))
