"""Probes under label noise: the best noise level, ensembles of levels, and references of equal budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn import _checks, datasets, features, pretrained
from repdyn.chapters.ensembles import references
from repdyn.chapters.ensembles.ensembling import Labelled, compare
from repdyn.chapters.ensembles.labels import label_noise
from repdyn.chapters.ensembles.objectives import ClassifyingEncoder
from repdyn.images import to_unit_range
from repdyn.noise import PAPER_SIGMAS
from repdyn.records import sweeps
from repdyn.records.cache import Extraction, FeatureFolder, LayerFeatures, identity
from repdyn.records.variants import expand, grid
from repdyn.training import TrainConfig

__all__ = [
    "SOURCES",
    "EnsembleConfig",
    "Labelled",
    "ProbeTask",
    "compare",
    "labelled",
    "measure",
    "measure_network",
    "task",
]

#: What features come from: ``weights`` by name; one network trained here as a diffusion model, as a masked auto-encoder
#: or as a classifier; the same network untrained; the pixels' principal components. ``end to end``: no features, but a
#: classifier trained on the labelled images alone.
SOURCES = ("weights", "diffusion", "masked", "supervised", "untrained", "pixels", "end to end")
_UNCONDITIONED = ("masked", "supervised", "untrained")
_NO_LEVEL = (1.0,)  # the only level of a network that is not told any, or for which it means nothing yet


@dataclass(frozen=True)
class EnsembleConfig:
    """Whose features are probed, on which images, with how many wrong labels."""

    sources: tuple[str, ...] = SOURCES
    """Whose features: each is one of :data:`SOURCES`, and is probed on every one of ``targets``."""
    targets: tuple[str, ...] = ("fashion-mnist",)
    """Names of the images that are probed, one label each; the source 'end to end' has the first only."""
    weights: str = "fashion-small"
    """A name or a file that :func:`repdyn.pretrained.load` knows: the source of that name."""
    training: TrainConfig | None = None
    """Network and budget of the sources that are trained here, on its own data set, with all of its images; None: there
    are only 'weights' and 'pixels'."""
    learning_rates: tuple[tuple[str, float], ...] = ()
    """Pairs of a source and a number, which replaces the learning rate of ``training``."""
    num_train: int | None = 4000
    """Labelled images of the probes, drawn in equal numbers from each class; None: all."""
    num_test: int | None = 3000
    """Images on which the probes are tested, drawn likewise; None: all."""
    size: int | None = None
    """Images are resized to ``size`` by ``size`` pixels; None: left as they are."""
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Shares of the training labels that are made wrong."""
    label_seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds that draw the wrong labels and the images that are held out: every share is measured with each."""
    validation: float = 0.25
    """Share of the images, wrong labels and all, that is held out to choose layer, level and penalty."""
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    """Noise levels, in units of images in [-1, 1], of the networks that are told one."""
    neighbours: int = 2
    """An ensemble has so many levels on either side of the best one, at least 1: 2 ``neighbours`` + 1 members."""
    layers: tuple[str, ...] | None = (
        "enc/7x7_block0",
        "dec/7x7_in1",
        "dec/7x7_block0",
        "dec/7x7_block1",
        "dec/14x14_up",
    )
    """Names of the layers that are read, in so far as a network has them; None, or a classifier: all of its own."""
    draws_of: tuple[str, ...] = ("diffusion",)
    """The sources that are also read from noisy input, 2 ``neighbours`` + 1 draws."""
    l2: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    """The probes' penalties to choose from, on features that are standardised."""
    components: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Numbers of principal components of pixels to choose from."""
    seed: int = 0
    """Draws the images and the noise of noisy input."""
    precision: str = "float32"
    """Of the features: 'float32' or 'bf16'."""

    def __post_init__(self) -> None:
        features.check_precision(self.precision)
        unknown = set(self.sources) - set(SOURCES)
        if unknown:
            raise ValueError(f"sources has {', '.join(sorted(unknown))}: choose from {', '.join(SOURCES)}")
        if self.training is None and set(self.sources) - {"weights", "pixels"}:
            raise ValueError("training is None: give a budget, or leave out the sources that are trained here")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be in (0, 1), got {self.validation}")
        _checks.integer("neighbours", self.neighbours, 1)


class ProbeTask(NamedTuple):
    """Images of one target, (N + M, C, H, W) in [-1, 1], N for training first, then M for testing; their labels."""

    name: str
    images: Tensor
    train: np.ndarray
    test: np.ndarray
    classes: int


def measure(
    config: EnsembleConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """All sources of ``config`` on all its targets; ``results`` is a list with one entry for each pair.

    An entry has ``source``, ``target``, ``sigmas`` and ``runs``, one for each share and label seed, as
    :func:`measure_network` describes. Of ``end to end``, for every other share and the first label seed, a run
    has ``best`` alone: the scores of the trained classifier.
    With ``cache``, a folder, every source is kept there when it is done, and so is the state of a training that goes
    on.

    Raises ``ConnectionError`` for images that are not to be had, and :class:`repdyn.records.sweeps.SweepError` when a
    source fails; the others are kept.
    """
    runs = expand(config, grid(sources=[(source,) for source in config.sources]))
    plans = [run.config for run in runs]
    return {
        "results": sum(sweeps.run(_measured, plans, cache=cache, progress=progress, desc="sources", inputs=_inputs), [])
    }


def _inputs(config: EnsembleConfig) -> dict[str, str]:
    """A name may stand for other weights after another training."""
    return {"network": identity(pretrained.load(config.weights))} if config.sources == ("weights",) else {}


def _measured(config: EnsembleConfig, folder: Path | None) -> list[dict[str, Any]]:
    source, tasks = config.sources[0], [task(config, target) for target in config.targets]
    if source == "end to end":  # on the first target only: it has no features to transfer
        return [{"source": source, "target": tasks[0].name, "sigmas": None, "runs": _end_to_end(config, tasks[0])}]
    network: nn.Module | None = None
    if source == "weights":
        network = pretrained.load(config.weights, features.default_device())
    elif source != "pixels":
        state = None if folder is None else folder / "state.safetensors"
        network = references.trained(_plan(config, source), source, state)
    found = []
    for one in tasks:
        kept = None if folder is None else folder / one.name
        found.append({"source": source, **measure_network(config, one, network, source, cache=kept)})
    return found


def _plan(config: EnsembleConfig, source: str) -> TrainConfig:
    assert config.training is not None  # the configuration refuses a source that is trained without one
    rate = dict(config.learning_rates).get(source, config.training.learning_rate)
    return replace(config.training, learning_rate=rate)


def task(config: EnsembleConfig, target: str) -> ProbeTask:
    """The images of ``target`` that a configuration probes: drawn evenly by class with its seed, resized if it says so.

    Raises ``ValueError`` for labels of pixels, and for more images of a class than there are.
    """
    parts = [datasets.load(target, split) for split in ("train", "test")]
    for i, (data, num) in enumerate(zip(parts, (config.num_train, config.num_test), strict=True)):
        if data.labels.ndim != 1:
            raise ValueError(f"{target} labels pixels: a probe of images needs one label an image")
        if num is not None:
            chosen, _ = datasets.stratified_split(data.labels, num, config.seed)
            parts[i] = data._replace(images=data.images[chosen], labels=data.labels[chosen])
    images = to_unit_range(torch.cat([data.images for data in parts]))
    if config.size is not None and images.shape[2:] != (config.size, config.size):
        images = F.interpolate(images, (config.size, config.size), mode="bilinear", antialias=True).clamp(-1, 1)
    return ProbeTask(target, images, parts[0].labels.numpy(), parts[1].labels.numpy(), len(parts[0].classes))


def labelled(config: EnsembleConfig, one: ProbeTask, share: float, seed: int) -> Labelled:
    """The labels of a task with a ``share`` of the training labels wrong, and who is fitted and who held out.

    For one ``seed`` these are the same images at every share.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(one.train))
    held = round(config.validation * len(order))
    noisy = label_noise(one.train, share, one.classes, seed)
    return Labelled(noisy, one.test, order[held:], order[:held], one.classes)


def measure_network(
    config: EnsembleConfig,
    one: ProbeTask,
    network: nn.Module | None,
    source: str = "weights",
    *,
    cache: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Probe the features of any denoiser or encoder with ``feature_layers()``, or, for None, of the pixels.

    Returns ``target``, ``sigmas`` (None if the network is not told any, or is untrained) and ``runs``: for every share
    and label seed ``share``, ``seed``, ``layer``, ``sigma``, ``l2``, ``curve`` (test accuracy of that layer at each
    level) and rows of scores, ``accuracy``, ``nll``, ``ece``: ``best``, ``levels``, ``concatenated``, ``layers``,
    ``bootstrap``, ``draws``, in so far as they exist, as :func:`compare` makes them. Ensembles also
    have the mean accuracy of their ``members`` and the ``correlation`` of their
    errors. ``cache``, a folder, keeps features.
    """
    levels = config.sigmas if network is not None and source not in _UNCONDITIONED else _NO_LEVEL
    told, folder = len(levels) > 1, FeatureFolder(cache)
    layers = _pixels(config, one) if network is None else _features(config, one, network, levels, folder)
    draws = (
        _drawing(config, one, network, list(layers), folder)
        if network is not None and source in config.draws_of
        else None
    )
    runs = []
    for share in config.shares:
        for seed in config.label_seeds:
            labels = labelled(config, one, share, seed)
            found = compare(layers, labels, config.l2, config.neighbours, draws, seed)
            level = found.pop("level")
            sigma = levels[level] if told else None
            runs.append({"share": share, "seed": seed, "sigma": sigma, **found})
    return {"target": one.name, "sigmas": list(levels) if told else None, "runs": runs}


def _pixels(config: EnsembleConfig, one: ProbeTask) -> dict[str, Sequence[Tensor]]:
    rows = one.images.flatten(1).numpy()
    most = min(max(config.components), len(one.train), rows.shape[1])
    found = torch.from_numpy(PCA(most, svd_solver="full").fit(rows[: len(one.train)]).transform(rows)).float()
    return {f"pca-{num}": [found[:, :num]] for num in config.components if num <= most}


def _names(config: EnsembleConfig, network: nn.Module) -> list[str]:
    known = [name for name in features.layers(network) if name != features.POSTERIOR]
    if config.layers is None or isinstance(network, ClassifyingEncoder):
        return known
    names = [name for name in known if name in config.layers]
    if not names:
        raise ValueError(f"the network has none of the layers {config.layers}: choose from {', '.join(known)}")
    return names


def _features(
    config: EnsembleConfig, one: ProbeTask, network: nn.Module, levels: tuple[float, ...], folder: FeatureFolder
) -> dict[str, Sequence[Tensor]]:
    names = tuple(_names(config, network))
    for index, sigma in enumerate(levels):
        folder.provide(index, network, one.images, Extraction(sigma, names, precision=config.precision))
    return {name: LayerFeatures(folder, name, len(levels)) for name in names}


def _drawing(
    config: EnsembleConfig, one: ProbeTask, network: nn.Module, names: list[str], folder: FeatureFolder
) -> Callable[[str, int], list[Tensor]]:
    """Features of noisy input, drawn when a level turns out to be the best one."""
    size = 2 * config.neighbours + 1

    def draws(layer: str, level: int) -> list[Tensor]:
        first = len(config.sigmas) + size * level  # after the files of the clean input
        asked = Extraction(config.sigmas[level], tuple(names), noisy_input=True, precision=config.precision)
        for i in range(size):
            folder.provide(first + i, network, one.images, replace(asked, seed=config.seed + 1 + i))
        return [LayerFeatures(folder, layer, first + size)[first + i] for i in range(size)]

    return draws


def _end_to_end(config: EnsembleConfig, one: ProbeTask) -> list[dict[str, Any]]:
    seed, plan = config.label_seeds[0], _plan(config, "end to end")
    runs = []
    for share in config.shares[::2]:
        best = references.end_to_end(plan, one.images, labelled(config, one, share, seed))
        runs.append({"share": share, "seed": seed, "sigma": None, "best": best})
    return runs
