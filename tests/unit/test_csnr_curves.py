"""CSNR curves: against the exact values of a mixture, the definition in other code, and an explicit bootstrap."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from repdyn import datasets, features
from repdyn.chapters.csnr_real.measure import CSNRConfig, dataset, measure, summary
from repdyn.curves import read_features
from repdyn.denoisers import EDMDenoiser
from repdyn.images import ImageSet, to_unit_range
from repdyn.metrics import class_bases
from repdyn.probes import probe_curves
from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

CONFIG = CSNRConfig(
    dataset="digits",
    num_train=300,
    num_test=100,
    sigmas=(0.01, 0.3, 3.0),
    layers=("enc/8x8_block0", "enc/4x4_down"),
    ranks=(1, 3),
    shared=2,
    validation=0.25,
    l2=1e-2,
    resamples=100,
)


class OptimalDenoiser(torch.nn.Module):
    """The posterior mean of a mixture as a network with one layer: the estimate, rotated and doubled."""

    def __init__(self, model: NoisyMoLRG) -> None:
        super().__init__()
        self.molrg, self.layer = model, torch.nn.Linear(model.n, model.n, bias=False)
        generator = torch.Generator().manual_seed(0)
        rotation = torch.linalg.qr(torch.randn(model.n, model.n, generator=generator)).Q
        self.layer.weight.data = 2 * rotation

    def feature_layers(self) -> dict[str, torch.nn.Module]:
        return {"rotated": self.layer}

    def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        estimate = self.molrg(x.flatten(1), sigma).float()
        self.layer(estimate)
        return estimate.view(x.shape)


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> Callable[[NoisyMoLRG, int, int], OptimalDenoiser]:
    """Puts samples of a mixture in place of a data set, and gives its optimal denoiser."""

    def put(model: NoisyMoLRG, num_train: int, num_test: int) -> OptimalDenoiser:
        def load(_name: str, split: str) -> ImageSet:
            x, labels = model.sample(*((num_train, 1) if split == "train" else (num_test, 2)))
            like = datasets_load("digits", split)
            return like._replace(images=x.float().view(len(x), 1, 1, model.n), labels=labels)

        datasets_load = datasets.load
        monkeypatch.setattr(datasets, "load", load)
        return OptimalDenoiser(model)

    return put


@pytest.mark.parametrize("noisy_input", [False, True])
def test_exact_values_of_a_mixture(mixture: Callable, noisy_input: bool) -> None:
    """Bases from samples and from features at each level, the rank the true one: the CSNR is that of the quadrature."""
    model = NoisyMoLRG.random(n=30, d=4, K=3, delta=0.3, seed=0)
    config = CSNRConfig(
        sigmas=(0.05, 0.5, 2.0), noisy_input=noisy_input, ranks=(4,), ways=("raw", "centred", "mean-off"), resamples=200
    )
    result = measure(config, mixture(model, 12_000, 12_000))
    exact = csnr.exact(np.array(config.sigmas), d=4, K=3, delta=0.3, noisy_input=noisy_input)
    found, error = (np.array(result[key])[:, :, 0] for key in ("csnr", "error"))  # (Q, W, S)
    assert result["layers"] == ["rotated", "posterior"]
    # The bases have an error of their own, of about delta / sqrt(4000) a direction, that takes some of the ratio away.
    assert (np.abs(found[1] - exact) < 4 * error[1] + 0.01 * exact).all(), (found[1], exact, error[1])
    assert (error < 0.06 * exact).all(), "an error as large as the value would let anything pass"
    if not noisy_input:
        assert (np.abs(found[0] - exact) < 4 * error[0] + 0.03 * exact).all(), (found[0], exact, error[0])
        rise = np.array(result["rise"])[1, 0, 0]
        width = rise[2] - rise[1]  # about four standard errors
        assert abs(rise[0] - exact[1] / exact[0]) < width + 0.01 * rise[0] and width < 0.1 * rise[0]


def test_overlapping_bases_against_the_true_ones(mixture: Callable) -> None:
    model = NoisyMoLRG.random(n=12, d=3, K=3, delta=0.1, seed=0, orthogonal=False)
    denoiser = mixture(model, 9000, 4000)
    result = measure(CSNRConfig(sigmas=(0.1, 1.0), ranks=(3,), ways=("raw",), resamples=0), denoiser)
    x, labels = model.sample(4000, 2)
    for level, sigma in enumerate((0.1, 1.0)):
        true = csnr.csnr(model(x, sigma), labels, model.bases)
        assert result["csnr"][1][0][0][level] == pytest.approx(true, rel=0.02)
        own = torch.stack([U @ U.mT @ row for U, row in zip((model.bases[k] for k in labels), model(x, sigma))])
        assert result["projected"][1][0][0][level] == pytest.approx(csnr.csnr(own, labels, model.bases), rel=0.02)


@pytest.mark.parametrize(("way", "centred"), [("raw", False), ("centred", True)])
def test_definition_in_other_code(denoiser: EDMDenoiser, way: str, centred: bool) -> None:
    """Bases by a decomposition of the features themselves, the ratio by repdyn.theory.csnr.csnr."""
    result = measure(replace(CONFIG, ways=(way,)), denoiser)
    reading = read_features(CONFIG, denoiser)
    num, labels, test_labels = 300, reading.train_labels, reading.test_labels
    images = to_unit_range(reading.images[:num]).flatten(1)
    for q, name in enumerate(reading.layers):
        for s in range(3):
            x = reading.activations[name][s]
            source = images if name == features.POSTERIOR else x[:num]
            for r, rank in enumerate(CONFIG.ranks):
                bases = class_bases(source, labels, rank, centred=centred)
                assert result["csnr"][q][0][r][s] == pytest.approx(csnr.csnr(x[num:], test_labels, bases), rel=1e-4)
                assert result["in_sample"][q][0][r][s] == pytest.approx(csnr.csnr(x[:num], labels, bases), rel=1e-4)


def test_accuracies_are_those_of_the_other_chapter(denoiser: EDMDenoiser) -> None:
    result = measure(CONFIG, denoiser)
    reading = read_features(CONFIG, denoiser)
    for q, name in enumerate(reading.layers):
        validation, correct, _ = probe_curves(
            reading.activations[name], reading.train_labels, reading.test_labels, reading.splits, CONFIG.l2
        )
        np.testing.assert_allclose(result["accuracy"][q], correct.mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(result["validation"][q], validation.mean(0), rtol=1e-5)
    hidden = [max(row) for row in result["validation"][:-1]]
    assert result["best_layer"] == result["layers"][int(np.argmax(hidden))]


def test_what_is_returned(denoiser: EDMDenoiser) -> None:
    result = measure(CONFIG, denoiser)
    assert result == json.loads(json.dumps(result)), "plain lists only"
    Q, W, R, S = 3, 4, 2, 3
    for key in ("csnr", "in_sample", "projected", "error"):
        assert np.shape(result[key]) == (Q, W, R, S) and np.isfinite(result[key]).all()
    for key in ("rise", "fall", "spearman"):
        assert np.shape(result[key]) == (Q, W, R, 3)
    for key in ("pooled", "across_layers"):
        assert np.shape(result[key]) == (W, R, 3)
    assert np.shape(result["accuracy"]) == (Q, S) and result["layers"][-1] == features.POSTERIOR
    np.testing.assert_array_equal(result["peak"], np.argmax(result["in_sample"], axis=-1))
    assert result["classes"] == 10 and result["num_test"] == 100
    measured, peak = np.array(result["csnr"]), np.array(result["peak"])
    tops = np.take_along_axis(measured, peak[..., None], -1)[..., 0]
    np.testing.assert_allclose(np.array(result["rise"])[..., 0], tops / measured[..., 0], rtol=1e-4)
    np.testing.assert_allclose(np.array(result["fall"])[..., 0], tops / measured[..., -1], rtol=1e-4)
    without = measure(replace(CONFIG, resamples=0), denoiser)
    assert without["csnr"] == result["csnr"] and "spearman" not in without and not np.any(without["error"])


def test_rank_correlations_are_scipys(denoiser: EDMDenoiser) -> None:
    result = measure(CONFIG, denoiser)
    measured, accuracy = np.array(result["csnr"]), np.array(result["accuracy"])

    def expected(a: np.ndarray, b: np.ndarray) -> float:
        return spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0

    for q in range(3):
        assert result["spearman"][q][0][1][0] == pytest.approx(expected(measured[q, 0, 1], accuracy[q]), abs=1e-5)
    pooled = spearmanr(measured[:2, 0, 1].ravel(), accuracy[:2].ravel()).statistic
    assert result["pooled"][0][1][0] == pytest.approx(pooled, abs=1e-5)
    levels = [expected(measured[:2, 0, 1, s], accuracy[:2, s]) for s in range(3)]
    assert result["across_layers"][0][1][0] == pytest.approx(np.mean(levels), abs=1e-5)


def test_standard_errors_against_an_explicit_bootstrap(mixture: Callable) -> None:
    model = NoisyMoLRG.random(n=10, d=2, K=3, delta=0.3, seed=0)
    config = CSNRConfig(sigmas=(0.1, 1.0), ranks=(2,), ways=("raw",), resamples=400)
    result = measure(config, mixture(model, 3000, 200))
    x, labels = model.sample(200, 2)
    bases = class_bases(*model.sample(3000, 1), 2)
    rng = np.random.default_rng(5)
    drawn = [rng.integers(0, 200, 200) for _ in range(400)]
    values = [csnr.csnr(model(x[i], 1.0), labels[i], bases) for i in drawn]
    assert result["error"][1][0][0][1] == pytest.approx(np.std(values), rel=0.2)


def test_noise_levels_without_class_information_give_the_floor(mixture: Callable) -> None:
    """Equal classes in random subspaces: whatever is read, the CSNR is 1 / (K - 1)."""
    model = NoisyMoLRG.random(n=10, d=2, K=4, delta=0.3, seed=0)
    denoiser = mixture(model, 4000, 4000)
    denoiser.molrg = lambda x, sigma: x @ torch.eye(10).roll(1, 0) * 0 + torch.arange(10.0)
    result = measure(CSNRConfig(sigmas=(0.1, 1.0), ranks=(1, 2), ways=("raw",), layers=(), resamples=0), denoiser)
    shares = np.bincount(model.sample(4000, 2)[1]) / 4000
    np.testing.assert_allclose(result["csnr"][0][0], 1 / 3, rtol=3 * np.abs(4 * shares - 1).max())
    assert result["best_layer"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": ("raw", "white")}, "way .*'white'"),
        ({"ranks": (1, 9)}, "rank .*8, .*got 9"),
        ({"shared": 8, "ways": ("shared-off",)}, "shared .*got 8"),
        ({"layers": ("enc/1x1_conv",)}, "layers has enc/1x1_conv"),
    ],
)
def test_what_cannot_be_measured_is_refused(denoiser: EDMDenoiser, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(replace(CONFIG, **changes), denoiser)


def test_axes_have_names(denoiser: EDMDenoiser) -> None:
    result = measure(CONFIG, denoiser)
    data = dataset(result)
    found = data.csnr.sel(layer="posterior", way="mean-off", rank=3)
    np.testing.assert_array_equal(found, result["csnr"][-1][2][1])
    at = data.sel(layer="enc/4x4_down", way="centred", rank=1)
    np.testing.assert_array_equal(at.spearman.sel(bound=["value", "low", "high"]), result["spearman"][1][1][0])
    assert at.peak == result["peak"][1][1][0] and at.accuracy.sel(sigma=0.3) == result["accuracy"][1][1]
    assert data.best_layer == result["best_layer"] and data.pooled.dims == ("way", "rank", "bound")
    assert "rise" not in dataset(measure(replace(CONFIG, resamples=0), denoiser))
    for wrong in ({"layer": "nowhere"}, {"way": "white"}, {"rank": 4}):
        with pytest.raises(KeyError):
            data.csnr.sel(wrong)


def test_summary_of_a_known_curve() -> None:
    result = {"layers": ["a", "b"], "ways": ["raw"], "ranks": [1], "classes": 5, "sigmas": [0.1, 1.0, 9.0]}
    result |= {"best_layer": "a", "num_test": 10}
    result |= {"csnr": [[[[1.0, 1.0, 1.0]]], [[[0.25, 0.75, 0.5]]]], "peak": [[[0]], [[1]]]}
    result |= {"rise": [[[[1.0, 1.0, 1.0]]], [[[3.0, 2.5, 3.5]]]]}
    result |= {"accuracy": [[0, 0, 0], [0.5, 0.6, 0.4]], "validation": [[0, 0, 0], [0.7, 0.3, 0.2]]}
    assert summary(dataset(result), "b") == {
        "first": 1.0, "top": 3.0, "last": 2.0, "sigma": 1.0, "rise": 2.0, "rise_low": 1.5,
        "acc_first": 0.5, "acc_top": 0.5, "acc_last": 0.4, "acc_peak": 0.6, "acc_sigma": 0.1,
    }  # fmt: skip
    with pytest.raises(KeyError, match="layer"):
        summary(dataset(result), "c")
