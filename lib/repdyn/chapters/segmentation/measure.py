"""Segmentation against noise level: a few labelled images, a probe of pixels at each level, scored on whole masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repdyn import features, pretrained
from repdyn.chapters.segmentation import pixels
from repdyn.chapters.segmentation.config import PixelCurveConfig
from repdyn.chapters.segmentation.task import PixelTask, draw, some_pixels
from repdyn.curves import untrained_twin
from repdyn.metrics import confusion, iou_of_confusion
from repdyn.metrics.resampling import PeakHeight, height_above_ends
from repdyn.probes import MLPProbe
from repdyn.records.cache import content, kept

__all__ = ["example_images", "measure", "peak_height"]


def measure(
    config: PixelCurveConfig,
    denoiser: nn.Module | None = None,
    *,
    cache: str | os.PathLike | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Mean intersection over union of segmentations from the features at every noise level of ``config``.

    Returns plain lists: ``sigmas``, ``layers``, ``classes``, ``validation`` and ``test`` (split, sigma), the mean IoU;
    ``pixel_accuracy`` (split, sigma) and ``class_iou`` (sigma, class; mean over splits) on the test images; ``peak``,
    :func:`peak_height` at the level that is best on the validation images; ``raw``, the test mean IoU (split,) of raw
    patches, 'patch', and with the pixel's place, 'patch_place', or None; ``examples``, masks as rows of digits, or
    None. ``denoiser`` stands in for the shipped weights. With ``cache``, a folder, the counts of finished noise levels
    are kept there, and an interrupted measurement goes on from them. The test images choose nothing.

    Raises ``ValueError`` when there are too few images for the splits, and what :func:`repdyn.datasets.load` raises.
    """
    if denoiser is None:
        denoiser = pretrained.load(config.weights, features.default_device())
    if config.untrained:
        denoiser = untrained_twin(denoiser, config.seed)
    layers = pixels.decoder_layers(denoiser) if config.layers is None else list(config.layers)
    task = draw(config)
    levels = []
    for index in tqdm(range(len(config.sigmas)), desc="noise levels", unit="level", disable=not progress):
        levels.append(_cached_level(config, denoiser, task, layers, index, cache))
    counts = {key: np.stack([level[key].numpy() for level in levels], 1) for key in ("validation", "test")}
    iou = {key: np.nanmean(iou_of_confusion(value.sum(2)), -1) for key, value in counts.items()}  # (splits, S)
    best = int(iou["validation"].mean(0).argmax())
    peak = peak_height(counts["test"], best, seed=config.seed) if len(config.sigmas) > 2 else None
    return {
        "sigmas": list(config.sigmas),
        "layers": layers,
        "classes": list(task.classes),
        "validation": iou["validation"].tolist(),
        "test": iou["test"].tolist(),
        "pixel_accuracy": _accuracy(counts["test"].sum(2)).tolist(),
        "class_iou": _finite(iou_of_confusion(counts["test"].sum(2)).mean(0)),
        "peak": None if peak is None else peak._asdict(),
        "raw": _raw(config, task),
        "examples": _examples(config, task, levels),
    }


def peak_height(
    counts: np.ndarray, index: int, *, num_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> PeakHeight:
    """How far noise level ``index`` stands above the lowest and the highest one in mean IoU, paired over test images.

    ``counts`` (splits, S, N, K, K) are confusion counts of N images at S noise levels, in rising order. The mean IoU of
    a resampled test set is that of its summed counts, averaged over the splits; intervals are those of
    :func:`repdyn.metrics.resampling.height_above_ends`. They cover the choice of test images, not that of the labelled
    ones.

    Raises ``ValueError`` for another shape or fewer than three levels.
    """
    counts = np.asarray(counts)
    if counts.ndim != 5 or counts.shape[1] < 3 or counts.shape[3] != counts.shape[4]:
        raise ValueError(f"counts must be (splits, S, N, K, K) with S >= 3 noise levels, got {counts.shape}")
    three = counts[:, [index, 0, -1]].astype(np.float64)  # (splits, 3, N, K, K)

    def heights(times: np.ndarray) -> np.ndarray:
        sums = np.einsum("bn,rsnkl->brskl", times, three, optimize=True)
        iou = np.nanmean(iou_of_confusion(sums), -1).mean(1)  # (B, 3)
        return iou[:, :1] - iou[:, 1:]

    return height_above_ends(heights, counts.shape[2], index, num_resamples=num_resamples, level=level, seed=seed)


def _cached_level(
    config: PixelCurveConfig,
    denoiser: nn.Module,
    task: PixelTask,
    layers: list[str],
    index: int,
    cache: str | os.PathLike | None,
) -> dict[str, Tensor]:
    path = None if cache is None else Path(cache) / f"counts-{index}.safetensors"
    # One level, the layers that it reads, and the seed of its noise; probes are drawn from that of the configuration.
    settings = replace(config, sigmas=config.sigmas[index : index + 1], window=None, layers=tuple(layers))
    inputs = {} if path is None else content(denoiser, task.images, task.masks) | {"level": str(index)}
    return kept(path, settings, inputs, lambda: ({}, _level(config, denoiser, task, layers, index)))[1]


def _level(
    config: PixelCurveConfig, denoiser: nn.Module, task: PixelTask, layers: list[str], index: int
) -> dict[str, Tensor]:
    """Confusion counts of one noise level: 'validation' and 'test' (splits, images, K, K), and 'examples' (E, H, W)."""
    found = features.extract(
        denoiser,
        task.images,
        config.sigmas[index],
        layers,
        config.noisy_input,
        config.draws,
        "maps",
        seed=config.seed + 1000 * index,
        precision=config.precision,
    )
    height, width = task.images.shape[2:]

    def stacked(part: slice) -> Tensor:
        return pixels.stack_maps([found[name][part] for name in layers], (height, width))

    return _fit_and_count(config, task, stacked)


def _fit_and_count(config: PixelCurveConfig, task: PixelTask, stacked: Callable[[slice], Tensor]) -> dict[str, Tensor]:
    """Train a probe on each labelled set, and count what it does on validation and test images.

    ``stacked`` gives the features (N, C, H, W) of a part of the task's images.
    """
    counts: dict[str, list[np.ndarray]] = {"validation": [], "test": []}
    for split, part in enumerate(task.labelled):
        x, y = pixels.rows(stacked(part)), task.masks[part].flatten()
        chosen = some_pixels(config, len(y), split)
        probe = MLPProbe(
            config.hidden,
            batch_size=config.batch_size,
            max_epochs=config.max_epochs,
            seed=config.seed + split,
            device=str(features.default_device()),
        )
        probe.fit(x[chosen], y[chosen])
        for key, where in (("validation", task.validation), ("test", task.test)):
            predicted = [_predict(probe, stacked(slice(i, i + 1))) for i in range(where.start, where.stop)]
            pairs = zip(predicted, task.masks[where], strict=True)
            counts[key].append(np.stack([confusion(p, m, len(task.classes)) for p, m in pairs]))
        if split == 0:  # after the last loop, of the test images
            examples = np.stack(predicted)[: config.examples]
    found = {key: torch.from_numpy(np.stack(value)) for key, value in counts.items()}
    return found | {"examples": torch.from_numpy(examples)}


def _predict(probe: MLPProbe, stacked: Tensor) -> np.ndarray:
    """Predicted mask (H, W) of one image's features (1, C, H, W)."""
    return probe.predict(pixels.rows(stacked)).reshape(stacked.shape[2:])


def _raw(config: PixelCurveConfig, task: PixelTask) -> dict[str, list[float]] | None:
    window = config.window
    if window is None:
        return None

    def raw(part: slice, position: bool) -> Tensor:
        return pixels.patches(task.images[part], window, position=position)

    scores = {}
    for name, position in (("patch", False), ("patch_place", True)):
        counted = _fit_and_count(config, task, partial(raw, position=position))
        scores[name] = np.nanmean(iou_of_confusion(counted["test"].numpy().sum(1)), -1).tolist()
    return scores


def _examples(config: PixelCurveConfig, task: PixelTask, levels: list[dict[str, Tensor]]) -> dict[str, Any] | None:
    """True masks of the first test images and those predicted at some levels, each a list of rows of digits."""
    if not config.examples:
        return None
    true = task.masks[task.test][: config.examples]
    predicted = [levels[config.sigmas.index(sigma)]["examples"] for sigma in config.example_sigmas]
    return {
        "sigmas": list(config.example_sigmas),
        "true": [_digits(mask) for mask in true],
        "predicted": [[_digits(mask) for mask in level] for level in predicted],  # (sigma, image)
    }


def example_images(config: PixelCurveConfig) -> Tensor:
    """The images (examples, C, H, W), uint8, whose masks :func:`measure` keeps; needs the data set."""
    task = draw(config)
    return task.images[task.test][: config.examples]


def _digits(mask: Tensor) -> list[str]:
    return ["".join(f"{label:x}" for label in row) for row in mask.tolist()]


def _accuracy(counts: np.ndarray) -> np.ndarray:
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def _finite(values: np.ndarray) -> list[list[float | None]]:
    """Nested lists with None, which JSON has, for NaN, which it has not."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
