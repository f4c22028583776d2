"""Digits beside patches of noise: what a denoiser and a classifier of the same shape keep of either patch."""

from __future__ import annotations

import functools
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn import datasets, features, training
from repdyn.images import ImageSet, to_unit_range
from repdyn.networks import MLPDenoiser
from repdyn.records import sweeps
from repdyn.training import EpsilonWeight, Listed, TrainConfig

__all__ = [
    "NoisyDigitsConfig", "PatchClassifier", "fit_classifier", "fit_denoiser", "measure", "readable", "rebuilt",
    "response", "swapped", "two_patches",
]  # fmt: skip

_LAYER = "hidden2"  # the last hidden layer of both kinds of model


@dataclass(frozen=True)
class NoisyDigitsConfig:
    """What is trained on what: digits beside noise, at each of several signal-to-noise ratios."""

    dataset: str = "digits"
    """Name of the images."""
    pool: int = 1
    """Side, in pixels, of the blocks that are averaged: a perceptron that predicts noise must be wider than its input.
    1 leaves the images as they are."""
    num_train: int = 500
    """Digits for training, drawn in equal numbers from each class."""
    num_test: int = 300
    """Digits for testing, drawn likewise."""
    snrs: tuple[float, ...] = (0.1, 0.32, 1.0, 3.2, 10.0)
    """Root mean squares of the signal patches over those of the noise patches."""
    scale: float = 0.5
    """Root mean square of a pixel of both patches together, whatever the SNR."""
    sigma: float = 0.5
    """The noise level for which the denoiser is trained and at which it is read, in units of the pixels."""
    hidden: int = 256
    """Units in each of the two hidden layers of both models."""
    images: int = 50_000
    """Images on which the denoiser is trained, counted with repetition."""
    seeds: int = 2
    """Repetitions of everything, with seeds from 0 on; the digits are the same."""


def two_patches(images: ImageSet, snr: float, scale: float = 0.5, seed: int = 0) -> Tensor:
    """Each image (N, C, H, W), less the mean image, beside Gaussian noise: float32 (N, 2, C H W).

    The signal patches have ``snr`` times the root mean square of the noise patches, and both together have ``scale``,
    so that no SNR puts the inputs out of a network's range.

    Raises ``ValueError`` for an ``snr`` or ``scale`` that is not positive. Source: Han et al. (2024), Noisy-MNIST.
    """
    for name, value in (("snr", snr), ("scale", scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
    noise = scale * math.sqrt(2 / (1 + snr**2))
    flat = to_unit_range(images.images).flatten(1)
    flat = flat - flat.mean(0)
    signal = flat * (snr * noise / flat.square().mean().sqrt())
    xi = noise * torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed))
    return torch.stack([signal, xi], dim=1)


class PatchClassifier(nn.Module):
    """A fitted perceptron of scikit-learn as a module whose layers can be read like those of an MLPDenoiser."""

    def __init__(self, fitted: MLPClassifier) -> None:
        super().__init__()
        linear = []
        for weight, bias in zip(fitted.coefs_, fitted.intercepts_, strict=True):
            layer = nn.Linear(*weight.shape)
            layer.weight.data, layer.bias.data = torch.tensor(weight.T).float(), torch.tensor(bias).float()
            linear.append(layer)
        *hidden, self.output = linear
        self.hidden = nn.ModuleList(nn.Sequential(layer, nn.ReLU()) for layer in hidden)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Logits (batch, classes) of ``x`` (batch, *shape); ``sigma``, which a denoiser is given, is not used."""
        h = x.flatten(1)
        for layer in self.hidden:
            h = layer(h)
        return self.output(h)

    def feature_layers(self) -> dict[str, nn.Module]:
        """The hidden layers, after their ReLU, in the order of the forward pass: name -> module."""
        return {f"hidden{index}": layer for index, layer in enumerate(self.hidden, start=1)}


def fit_classifier(x: Tensor, labels: Tensor, hidden: int, seed: int, *, max_iter: int = 200) -> PatchClassifier:
    """A perceptron with two hidden layers, without weight decay, trained by Adam until the loss no longer falls."""
    model = MLPClassifier((hidden, hidden), alpha=0.0, tol=1e-5, max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it says that max_iter came first, and that may be
        return PatchClassifier(model.fit(x.flatten(1).numpy(), labels.numpy()))


def fit_denoiser(x: Tensor, config: NoisyDigitsConfig, seed: int) -> MLPDenoiser:
    """An :class:`repdyn.networks.mlp.MLPDenoiser` trained on patches ``x`` (N, 2, D) at ``config.sigma``."""
    training_config = TrainConfig(
        dataset=config.dataset,
        network=None,
        images=config.images,
        warmup_images=0,
        levels=Listed((config.sigma,)),
        weighting=EpsilonWeight(),
        precision="float32",
        seed=seed,
    )
    start = MLPDenoiser(x[0].numel(), hidden=config.hidden, seed=seed)
    *_, last = training.train(training_config, denoiser=start, data=x, cpu=True)
    return last.denoiser


def response(model: nn.Module, x: Tensor, sigma: float, layer: str = _LAYER) -> tuple[float, float]:
    """How far a layer moves along either patch of clean ``x`` (N, 2, D): root mean square of gradient times patch.

    The counterpart of |<w_r, mu>| and |<w_r, xi_i>| for a network of any depth.

    Equation: ``eq-feature-learning-response``.
    """
    found: list[Tensor] = []

    def activation(inputs: Tensor) -> Tensor:
        model(inputs, sigma)
        return found.pop()

    handle = cast(Any, model).feature_layers()[layer].register_forward_hook(lambda _m, _i, output: found.append(output))
    try:
        sizes = []
        for patch in range(2):
            along = torch.zeros_like(x)
            along[:, patch] = x[:, patch]
            moved = torch.autograd.functional.jvp(activation, x, along)[1]
            sizes.append(moved.square().sum(1).mean().sqrt().item())
    finally:
        handle.remove()
    return sizes[0], sizes[1]


def readable(model: nn.Module, train: Tensor, test: Tensor, sigma: float, layer: str = _LAYER) -> tuple[float, float]:
    """Share of the variance of either patch of ``test`` (N, 2, D) that a linear map reads from a layer's activations.

    The map is fitted on clean ``train`` patches, with a ridge penalty that leaving one out chooses. At most 1; below 0
    it is worse than the mean.
    """
    train_features, test_features = (
        features.extract(model, x.flatten(1), sigma, [layer])[layer].double().numpy() for x in (train, test)
    )
    scale = train_features.var(0).sum()
    shares = []
    for patch in range(2):
        target, truth = train[:, patch].double().numpy(), test[:, patch].double().numpy()
        ridge = RidgeCV(alphas=[scale * 10.0**k for k in range(-5, 2)]).fit(train_features, target)
        shares.append(float(1 - ((ridge.predict(test_features) - truth) ** 2).mean() / truth.var(0).mean()))
    return shares[0], shares[1]


@torch.no_grad()
def rebuilt(denoiser: nn.Module, x: Tensor, sigma: float, seed: int, draws: int = 8) -> tuple[float, float]:
    """Share of the mean square of either patch of ``x`` (N, 2, D) that the denoiser restores at noise ``sigma``."""
    generator = torch.Generator().manual_seed(seed)
    noisy = (x + sigma * torch.randn(x.shape, generator=generator) for _ in range(draws))
    error = sum((denoiser(z, sigma) - x).square().mean((0, 2)) for z in noisy) / draws
    signal, noise = (1 - error / x.square().mean((0, 2))).tolist()
    return signal, noise


@torch.no_grad()
def swapped(classifier: nn.Module, x: Tensor, labels: Tensor, seed: int) -> tuple[float, float]:
    """Accuracy on training samples ``x`` (N, 2, D) with the noise of another sample, and with the signal of another."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    other_noise = torch.stack([x[:, 0], x[order, 1]], dim=1)
    other_signal = torch.stack([x[order, 0], x[:, 1]], dim=1)
    first, second = ((classifier(z).argmax(1) == labels).double().mean().item() for z in (other_noise, other_signal))
    return first, second


def measure(
    config: NoisyDigitsConfig, *, cache: str | os.PathLike | None = None, progress: bool = False
) -> dict[str, Any]:
    """Train both models at every SNR and say what they keep of either patch.

    Returns lists (snr, seed): ``response_*``, base-ten logarithms of signal over noise in :func:`response` on the
    training samples; ``signal_*`` and ``noise_*``, what is :func:`readable` of either patch, for * the denoiser, the
    classifier and the untrained denoiser; ``new_noise`` and ``new_signal``, :func:`swapped`; ``accuracy`` on test
    samples; ``rebuilt_train`` and ``rebuilt_test``, pairs (signal, noise). With ``cache``, a folder, finished pairs of
    SNR and seed are kept there.
    """
    train, test = (_subset(config, split) for split in ("train", "test"))
    pairs = [_Pair(config, snr, seed) for snr in config.snrs for seed in range(config.seeds)]
    one = functools.partial(_one, train=train, test=test)
    found = sweeps.run(one, pairs, cache=cache, progress=progress, desc="noisy digits")
    rows = [found[i : i + config.seeds] for i in range(0, len(found), config.seeds)]
    return {key: [[run[key] for run in row] for row in rows] for key in rows[0][0]}


class _Pair(NamedTuple):
    config: NoisyDigitsConfig
    snr: float
    seed: int


def _one(pair: _Pair, _folder: Path | None, *, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    config, snr, seed = pair
    x, fresh = (two_patches(part, snr, config.scale, 2 * seed + i) for i, part in enumerate((train, test)))
    denoiser = fit_denoiser(x, config, seed)
    models = {
        "denoiser": denoiser,
        "classifier": fit_classifier(x, train.labels, config.hidden, seed),
        "untrained": MLPDenoiser(x[0].numel(), hidden=config.hidden, seed=seed),
    }
    found: dict[str, Any] = {}
    for name, model in models.items():
        signal, noise = response(model, x, config.sigma)
        found[f"response_{name}"] = math.log10(signal / noise)
        found[f"signal_{name}"], found[f"noise_{name}"] = readable(model, x, fresh, config.sigma)
    classifier = models["classifier"]
    found["new_noise"], found["new_signal"] = swapped(classifier, x, train.labels, seed)
    with torch.no_grad():
        found["accuracy"] = (classifier(fresh).argmax(1) == test.labels).double().mean().item()
    found["rebuilt_train"], found["rebuilt_test"] = (rebuilt(denoiser, z, config.sigma, seed) for z in (x, fresh))
    return found


def _subset(config: NoisyDigitsConfig, split: str) -> ImageSet:
    data = datasets.load(config.dataset, split)
    num = config.num_train if split == "train" else config.num_test
    chosen, _ = datasets.stratified_split(data.labels, num, 0)
    small = F.avg_pool2d(data.images[chosen].float(), config.pool).round().to(torch.uint8)
    return data._replace(images=small, labels=data.labels[chosen])
