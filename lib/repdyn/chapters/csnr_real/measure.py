"""CSNR of features and posterior estimates against noise level, beside probe accuracies of the very same images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import features
from repdyn.curves import CurveConfig, Reading, read_features
from repdyn.images import to_unit_range
from repdyn.metrics.resampling import interval, resample_counts, spearman
from repdyn.metrics.subspaces import WAYS, ClassMoments, Frames, projected_csnr
from repdyn.probes import probe_curves

__all__ = ["CSNRConfig", "LevelEnergies", "dataset", "level_energies", "measure", "summary"]


@dataclass(frozen=True)
class CSNRConfig(CurveConfig):
    """What is measured: a :class:`repdyn.curves.CurveConfig`, and how the class bases are made.

    Bases are made from the training images. They come from the images themselves for the posterior, and for a hidden
    layer from its features at that noise level.
    """

    splits: int = 1
    """As in the base class, where it is 3: a share ``validation`` of the training images is kept from the probes."""
    pixels: bool = False
    """Not looked at here: raw images are not probed."""
    ranks: tuple[int, ...] = (1, 2, 5, 10, 20)
    """Dimensions of the class bases, each of them in each of ``ways``."""
    ways: tuple[str, ...] = WAYS
    """Ways to make bases, see :meth:`repdyn.metrics.subspaces.ClassMoments.frames`. The mean that 'mean-off' takes off
    a vector is that of the training images' estimates or features at that level."""
    shared: int = 5
    """Directions that are projected out in 'shared-off'."""
    resamples: int = 1000
    """How often test images are resampled for every interval; 0 leaves intervals and correlations out."""


class LevelEnergies(NamedTuple):
    """Energies at one noise level: of each test item, (N, ranks), in its own class's subspace and in all together; and
    three ratios for each rank."""

    own: np.ndarray
    total: np.ndarray
    csnr: list[float]  # of the test items
    in_sample: list[float]  # of the training items, which made the bases
    projected: list[float]  # of the test items, projected onto the subspace of their class first


def measure(
    config: CSNRConfig,
    denoiser: nn.Module | None = None,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """CSNR and probe accuracy of every layer and of the posterior, at every noise level of ``config``.

    Returns plain lists over Q quantities (``layers``, the posterior last), W ``ways``, R ``ranks`` and S ``sigmas``:
    ``csnr``, ``in_sample``, ``projected`` (see :class:`LevelEnergies`) and ``error``, the standard error of the first
    over test images, all (Q, W, R, S); ``accuracy`` and ``validation`` (Q, S), of linear probes; ``best_layer``, the
    hidden layer with the highest validation accuracy; ``peak`` (Q, W, R), the level where the training images' CSNR is
    highest, so that the test images choose nothing. Each of the following ends in an axis (value, low, high), a 95 %
    percentile interval: ``rise`` and ``fall`` (Q, W, R), the CSNR there over that at the lowest and highest level;
    ``spearman`` (Q, W, R), the rank correlation of CSNR and accuracy over levels; over the hidden layers
    ``pooled`` (W, R), that over layers and levels together, and ``across_layers`` (W, R), that over layers, averaged
    over levels. Numbers have six digits.

    Raises ``ValueError`` for images, layers or ranks that are not there, and for a cache of another measurement.
    """
    reading = read_features(config, denoiser, cache=cache, progress=progress)
    count = resample_counts(len(reading.test_labels), config.resamples, config.seed)
    rows, accuracies, resampled = [], [], []
    for name in tqdm(reading.layers, desc="CSNR", unit="layer", disable=not progress):
        activations = reading.activations[name]
        validation, correct, _ = probe_curves(
            activations, reading.train_labels, reading.test_labels, reading.splits, config.l2
        )
        correct = correct.mean(0)  # (S, N_test)
        accuracies.append((validation.mean(0), correct.mean(1)))
        row, ratios = _quantity(config, reading, name, activations, count)
        means = count @ correct.T / correct.shape[1]  # (B, S)
        rows.append(row | _shape(row, ratios, accuracies[-1][1], means))
        resampled.append((ratios, means))
    hidden = [i for i, name in enumerate(reading.layers) if name != features.POSTERIOR]
    result = {key: [row[key] for row in rows] for key in rows[0]}
    validation, accuracy = (np.stack(part) for part in zip(*accuracies, strict=True))
    best = reading.layers[max(hidden, key=lambda i: validation[i].max())] if hidden else None
    across = _across(result["csnr"], resampled, accuracy, hidden) if hidden and config.resamples else {}
    lists = {key: _rounded(np.asarray(value)) for key, value in (result | across).items()}
    return {
        "classes": int(reading.test_labels.max()) + 1,
        "num_test": len(reading.test_labels),
        "sigmas": list(config.sigmas),
        "layers": reading.layers,
        "ways": list(config.ways),
        "ranks": list(config.ranks),
        "best_layer": best,
        "validation": _rounded(validation),
        "accuracy": _rounded(accuracy),
        **lists,
    }


def dataset(result: dict[str, Any]) -> xr.Dataset:
    """What :func:`measure` returned, its axes by name: ``layer`` (the posterior last), ``way``, ``rank``, ``sigma``.

    What ends in an interval has the axis ``bound`` besides: 'value', 'low', 'high'. ``best_layer``, ``classes`` and
    ``num_test`` are attributes; ``peak`` is an index of ``sigma``.
    """
    place, bound = ("layer", "way", "rank"), ("bound",)
    axes: dict[str, tuple[str, ...]] = dict.fromkeys(("csnr", "in_sample", "projected", "error"), (*place, "sigma"))
    axes |= dict.fromkeys(("accuracy", "validation"), ("layer", "sigma")) | {"peak": place}
    axes |= dict.fromkeys(("rise", "fall", "spearman"), place + bound)
    axes |= dict.fromkeys(("pooled", "across_layers"), place[1:] + bound)
    return xr.Dataset(
        {key: (dims, np.array(result[key])) for key, dims in axes.items() if key in result},
        {
            "layer": result["layers"],
            "way": result["ways"],
            "rank": result["ranks"],
            "sigma": result["sigmas"],
            "bound": ["value", "low", "high"],
        },
        {key: result[key] for key in ("best_layer", "classes", "num_test")},
    )


def summary(data: xr.Dataset, layer: str, way: str = "raw", rank: int = 1) -> dict[str, float]:
    """A quantity's CSNR curve in a few numbers, beside its accuracy curve, from the :func:`dataset` of a measurement.

    ``first``, ``top`` and ``last`` are in units of the floor 1 / (K - 1), the top at the level ``sigma``; ``rise`` is
    the top's ratio to the left end less one, ``rise_low`` the lower end of its interval. Accuracies ``acc_first``,
    ``acc_top``, ``acc_last``, at ``acc_sigma`` as validation has it, and ``acc_peak`` where the CSNR is highest. Raises
    ``KeyError`` for a layer, way or rank that was not measured.
    """
    at = data.sel(layer=layer, way=way, rank=rank)
    peak, top, gain = int(at.peak), int(at.validation.argmax("sigma")), at.csnr / (1 / (data.classes - 1))
    found = {"first": gain[0], "top": gain[peak], "last": gain[-1], "sigma": at.sigma[peak]}
    found |= {"rise": at.rise.sel(bound="value") - 1, "rise_low": at.rise.sel(bound="low") - 1}
    found |= {"acc_first": at.accuracy[0], "acc_top": at.accuracy[top], "acc_last": at.accuracy[-1]}
    found |= {"acc_peak": at.accuracy[peak], "acc_sigma": at.sigma[top]}
    return {key: float(value) for key, value in found.items()}


def level_energies(
    frames: Frames, train: ClassMoments, test: Tensor, labels: Tensor, ranks: Sequence[int]
) -> LevelEnergies:
    """Energies in the subspaces of ``frames`` of the test items (N, D) with ``labels``, see :class:`LevelEnergies`.

    Of the training items the moments are enough.

    Equation: ``eq-csnr``
    """
    index = [r - 1 for r in ranks]
    coordinates = frames.coordinates(test)
    every = coordinates.square().cumsum(2)[:, :, index]  # (N, K, ranks)
    own, total = every[torch.arange(len(labels)), labels], every.sum(1)
    seen = torch.tensor(train.counts)[:, None, None] * train.energies(frames)[:, :, index]  # (K, K, ranks)
    seen_own = seen.diagonal().sum(1)
    return LevelEnergies(
        own.numpy(),
        total.numpy(),
        (own.sum(0) / (total - own).sum(0)).tolist(),
        (seen_own / (seen.sum((0, 1)) - seen_own)).tolist(),
        projected_csnr(coordinates, labels, frames.bases, ranks),
    )


def _quantity(
    config: CSNRConfig, reading: Reading, name: str, activations: Sequence[Tensor], count: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The ratios of one layer, each (W, R, S), and the CSNR of every resample, (B, W, R, S)."""
    num, shape = len(reading.train_labels), (len(config.ways), len(config.ranks), len(config.sigmas))
    found = {key: np.empty(shape) for key in ("csnr", "in_sample", "projected")}
    resampled = np.empty((len(count), *shape), dtype=np.float32)
    fixed = _image_frames(config, reading) if name == features.POSTERIOR else None
    for s, level in enumerate(activations):
        moments = ClassMoments(level[:num], reading.train_labels)
        frames = fixed or _frames(config, moments)
        for w, frame in enumerate(frames):
            if fixed and config.ways[w] == "mean-off":  # the mean of the estimates drifts away from that of the images
                frame = frame._replace(offset=moments.means.mean(0))
            energies = level_energies(frame, moments, level[num:], reading.test_labels, config.ranks)
            for key in found:
                found[key][w, :, s] = getattr(energies, key)
            own, total = count @ energies.own, count @ energies.total  # (B, R)
            resampled[:, w, :, s] = own / (total - own)
    found["error"] = resampled.std(0) if len(count) else np.zeros(shape)
    return found, resampled


def _image_frames(config: CSNRConfig, reading: Reading) -> list[Frames]:
    """Bases from the training images, in the units of the denoiser."""
    images = reading.images[: len(reading.train_labels)]
    pixels = to_unit_range(images) if images.dtype == torch.uint8 else images
    return _frames(config, ClassMoments(pixels.flatten(1), reading.train_labels))


def _frames(config: CSNRConfig, moments: ClassMoments) -> list[Frames]:
    return [moments.frames(max(config.ranks), way, shared=config.shared) for way in config.ways]


def _shape(row: dict[str, np.ndarray], resampled: np.ndarray, accuracy: np.ndarray, means: np.ndarray) -> dict:
    """Where one quantity's CSNR peaks, how far above its ends, and how its order of levels agrees with accuracy's."""
    peak = row["in_sample"].argmax(-1)  # (W, R)
    if not len(resampled):
        return {"peak": peak}

    def above(values: np.ndarray, end: int) -> np.ndarray:
        place = np.broadcast_to(peak, values.shape[:-1])[..., None]
        return np.take_along_axis(values, place, -1)[..., 0] / values[..., end]

    agreement = spearman(row["csnr"], accuracy), spearman(resampled, means[:, None, None])
    return {
        "peak": peak,
        "rise": _with_interval(above(row["csnr"], 0), above(resampled, 0)),
        "fall": _with_interval(above(row["csnr"], -1), above(resampled, -1)),
        "spearman": _with_interval(*agreement),
    }


def _across(csnr: list, resampled: list, accuracy: np.ndarray, hidden: list[int]) -> dict[str, np.ndarray]:
    """Rank correlations over layers and levels together, and over layers at each level, averaged over levels."""
    curves = np.stack([csnr[i] for i in hidden])  # (L, W, R, S)
    drawn = np.stack([resampled[i][0] for i in hidden])  # (L, B, W, R, S)
    means = np.stack([resampled[i][1] for i in hidden])  # (L, B, S)

    def correlations(values: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Over all layers and levels at once, and over the layers of each level, averaged; layers come first."""
        values = np.moveaxis(values, 0, -1)  # (..., S, L)
        score = np.moveaxis(score, 0, -1)[..., None, None, :, :]
        flat = (*values.shape[:-2], -1), (*score.shape[:-2], -1)
        pooled = spearman(values.reshape(flat[0]), score.reshape(flat[1]))
        return pooled, spearman(values, score).mean(-1) if len(hidden) > 1 else np.zeros(pooled.shape)

    now, often = correlations(curves, accuracy[hidden]), correlations(drawn, means)
    return {key: _with_interval(*pair) for key, *pair in zip(("pooled", "across_layers"), now, often, strict=True)}


def _with_interval(value: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    return np.stack([value, *interval(resampled)], axis=-1)  # (..., 3)


def _rounded(values: np.ndarray) -> list:
    """Nested lists with six digits, which is more than the images determine and keeps the records small."""
    if values.dtype.kind in "iu":
        return values.tolist()
    return np.vectorize(lambda v: float(f"{v:.6g}"), otypes=[float])(values).tolist()
