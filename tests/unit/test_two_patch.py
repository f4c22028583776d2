"""Two-patch data and quadratic networks: the exact loss, the descent, where it ends, the classifier's switch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repdyn import features, records, training
from repdyn.chapters import recipes
from repdyn.chapters.feature_learning.dynamics import (
    Descent,
    alignment,
    descend,
    settle,
    span,
    train_classifier,
    train_denoiser,
)
from repdyn.chapters.feature_learning.measure import TwoPatchConfig, exponent, measure, stationary_ratio, switch
from repdyn.chapters.feature_learning.two_patch import (
    QuadraticClassifier,
    QuadraticDenoiser,
    TwoPatchModel,
    classification_loss,
    denoising_loss,
)
from repdyn.probes import LinearProbe
from repdyn.theory import csnr
from repdyn.training import TrainConfig

MODEL = TwoPatchModel(30, signal=2.0, noise=0.5)
DATA = MODEL.sample(6, 0)
SIGMA = 0.7


def random_weights(*shape: int, scale: float = 0.4) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# Data


def test_samples_are_as_defined() -> None:
    model = TwoPatchModel(50, signal=3.0, noise=0.4)
    x, labels = model.sample(4000, 1)
    assert x.shape == (4000, 2, 50) and labels.bincount().tolist() == [2000, 2000]
    assert torch.equal(x[:, 0], model.signals[labels])
    gram = model.signals @ model.signals.T
    torch.testing.assert_close(gram, 9 * torch.eye(2, dtype=torch.float64))
    assert (x[:, 1] @ model.signals.T == 0).all()
    assert x[:, 1, 2:].std().item() == pytest.approx(0.4, rel=0.01)
    assert model.snr == pytest.approx(3 / (0.4 * math.sqrt(50)))


def test_the_two_numbers_are_those_asked_for() -> None:
    model = TwoPatchModel.with_numbers(5.0, 2.0, num=40, D=9000, sigma=0.3)
    assert 40 * model.snr**2 == pytest.approx(5)
    signal, noise = model.sample(40, 0).x.mean(0).norm(dim=1) / 0.3
    assert noise.item() == pytest.approx(2.0, rel=0.03)
    assert signal.item() == pytest.approx(2.0 * math.sqrt(5 / 2))


def test_one_seed_gives_unrelated_data_and_weights() -> None:
    data, network = TwoPatchModel(400, 1.0, 1.0).sample(8, 5), QuadraticDenoiser(400, 8, seed=5)
    assert F.cosine_similarity(data.x[:, 1], network.weights.detach()).abs().max() < 0.25


@pytest.mark.parametrize("bad", [{"D": 2}, {"signal": 0.0}, {"noise": -1.0}, {"noise": math.inf}])
def test_impossible_data_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(MODEL, **bad)


# Networks


def test_the_networks_by_hand() -> None:
    denoiser, classifier = QuadraticDenoiser(30, 3, start=0.3, seed=1), QuadraticClassifier(30, 3, start=0.3, seed=1)
    w, v, alpha = denoiser.weights, classifier.weights, 1 / math.sqrt(1 + SIGMA**2)
    for x in DATA.x[:2]:
        predicted = torch.stack([sum((r @ (alpha * p)) ** 2 * r for r in w) for p in x]) / math.sqrt(3)
        torch.testing.assert_close(denoiser(x[None], SIGMA)[0], x - SIGMA * predicted)
        logits = torch.stack([sum((r @ p) ** 2 for r in group for p in x) / 3 for group in v])
        torch.testing.assert_close(classifier(x[None])[0], logits)
    flat = DATA.x.flatten(1)
    torch.testing.assert_close(denoiser(flat, SIGMA).view_as(DATA.x), denoiser(DATA.x, SIGMA))
    with pytest.raises(ValueError, match="^x .*two patches"):
        denoiser(flat[:, 1:], SIGMA)
    with pytest.raises(ValueError, match="^start"):
        QuadraticDenoiser(30, 3, start=0.0)


@pytest.mark.parametrize("sigma", [0.2, 0.7, 3.0])
def test_the_exact_loss_against_draws_of_noise(sigma: float) -> None:
    network = QuadraticDenoiser(30, 5, start=0.2)
    exact = denoising_loss(network.weights.detach(), DATA.x, sigma)[0].item()
    clean, rng, means = DATA.x.repeat(2000, 1, 1), np.random.default_rng(0), []
    for _ in range(10):
        draw = torch.from_numpy(rng.standard_normal(clean.shape))
        pair = 0.0
        for noise in (draw, -draw):  # what is odd in the noise cancels
            noisy = clean + sigma * noise
            predicted = (noisy - network(noisy, sigma).detach()) / sigma
            pair += (predicted * (predicted - 2 * noise)).sum((1, 2)).mean().item() / 2
        means.append(pair)
    error = np.std(means, ddof=1) / math.sqrt(10)
    assert error < 0.03 * abs(exact)
    assert abs(np.mean(means) - exact) < 4 * error


def test_gradients_against_autograd() -> None:
    weights = random_weights(5, 30).requires_grad_()
    value, gradient = denoising_loss(weights, DATA.x, SIGMA)
    torch.testing.assert_close(torch.autograd.grad(value, weights)[0], gradient)
    weights = random_weights(2, 5, 30).requires_grad_()
    value, gradient = classification_loss(weights, DATA.x, DATA.labels)
    torch.testing.assert_close(torch.autograd.grad(value, weights)[0], gradient)
    network = QuadraticClassifier(30, 5)
    network.weights.data = weights.detach()
    torch.testing.assert_close(F.cross_entropy(network(DATA.x), DATA.labels), value)


def test_the_books_training_loop_lowers_the_exact_loss() -> None:
    start = QuadraticDenoiser(30, 5, start=0.05)
    config = TrainConfig("two patches", None, images=12_800, batch_size=64, levels=training.Listed((SIGMA,)),
                         warmup_images=0, precision="float32", learning_rate=3e-3)  # fmt: skip
    *_, last = training.train(config, denoiser=start, data=DATA.x.float(), cpu=True)
    before, after = (denoising_loss(n.weights.detach(), DATA.x, SIGMA)[0].item() for n in (start, last.denoiser))
    weights, best, _ = settle(lambda w: denoising_loss(w, DATA.x, SIGMA), last.denoiser.weights.detach().double())
    assert before > 0.1 * best > 0.8 * best > after > best


def test_features_probes_and_csnr_take_both_networks() -> None:
    x, labels = MODEL.sample(80, 2)
    frames = torch.zeros(2, 60, 1, dtype=torch.float64)
    frames[0, 0], frames[1, 1] = 1, 1
    for network, channels in ((QuadraticDenoiser(30, 5, start=0.3), 5), (QuadraticClassifier(30, 5, start=0.3), 10)):
        assert features.layers(network) == ["hidden", features.POSTERIOR]
        found = features.extract(network, x.flatten(1), SIGMA, ["hidden"], pool="none")["hidden"]
        assert found.shape == (80, 2 * channels)
        assert LinearProbe(l2=1e-3).fit(found, labels).score(found, labels.numpy()) == 1.0
        pooled = features.extract(network, x.flatten(1), SIGMA, ["hidden"])["hidden"]
        torch.testing.assert_close(pooled, found.view(80, channels, 2).mean(2))
    posterior = features.extract(QuadraticDenoiser(30, 5), x.flatten(1), SIGMA, ["posterior"])["posterior"]
    assert csnr.csnr(posterior.double(), labels, frames) > 100  # at its tiny start the network returns its input


# Descent


def test_descent_in_the_span_is_the_descent() -> None:
    start = random_weights(4, 30, scale=0.1)
    basis = span(MODEL.signals, DATA.x[:, 1], start)
    assert basis.shape == (30, 12)
    torch.testing.assert_close(MODEL.signals @ basis, 2.0 * torch.eye(2, 12, dtype=torch.float64))
    *_, (_, full) = descend(lambda w: denoising_loss(w, DATA.x, SIGMA), start, 0.01, 300)
    *_, (_, inside) = descend(lambda w: denoising_loss(w, DATA.x @ basis, SIGMA), start @ basis, 0.01, 300)
    assert (full - start).norm() > start.norm()
    torch.testing.assert_close(inside @ basis.T, full)


def test_a_rate_that_is_too_high_is_reported() -> None:
    with pytest.raises(FloatingPointError, match="rate"):
        list(descend(lambda w: denoising_loss(w, DATA.x, SIGMA), random_weights(4, 30), 10.0, 50))
    with pytest.raises(RuntimeError, match="after 3 steps"):
        train_classifier(MODEL, Descent(num=6, width=3, steps=3), 0)


def test_alignment_by_hand() -> None:
    weights = random_weights(2, 3, 30)
    signal = np.mean([[abs((weights[j, r] @ MODEL.signals[j]).item()) for r in range(3)] for j in range(2)])
    noise = np.mean(
        [[abs((weights[y, r] @ x[1]).item()) for r in range(3)] for x, y in zip(DATA.x, DATA.labels.tolist())]
    )
    assert alignment(weights, DATA, MODEL.signals) == pytest.approx((signal, noise))


def test_plain_descent_ends_where_it_is_polished_to() -> None:
    model, descent = TwoPatchModel.with_numbers(4.0, 1.0, num=20, D=2000, sigma=SIGMA), Descent(steps=4000)
    plain, polished = (train_denoiser(model, descent, 0, polish=p) for p in (False, True))
    assert polished.residual < 1e-6
    assert plain.ratio == pytest.approx(polished.ratio, rel=1e-4)
    assert plain.loss[-1] == pytest.approx(polished.loss[-1], rel=1e-8)
    assert plain.weights.shape == (8, 2000)


# Where it ends


@pytest.mark.parametrize("width", [2, 8])
def test_ends_of_the_stationary_ratio(width: int) -> None:
    for n_snr2 in (0.3, 2.0, 7.0):
        assert stationary_ratio(n_snr2, 0.01, width) == pytest.approx(n_snr2 / 2, rel=2e-3)
        assert stationary_ratio(n_snr2, 1e4, width) == pytest.approx(1, abs=0.02)
    assert stationary_ratio(2.0, 1.0, width) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="^strength"):
        stationary_ratio(1.0, 0.0, width)


@pytest.fixture(scope="module")
def sweep() -> dict:
    return measure(TwoPatchConfig(n_snr2=(0.1, 1.0, 10.0), strengths=(0.1, 5.0), starts=(1e-2, 1e-4), seeds=2))


def test_finished_trainings_are_kept(tmp_path: Path) -> None:
    config = TwoPatchConfig(n_snr2=(10.0,), strengths=(5.0,), starts=(1e-2,), D=200, seeds=2)
    whole = measure(config, cache=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 4 and measure(config, cache=tmp_path) == whole


def test_gradient_descent_ends_at_the_stationary_ratio(sweep: dict) -> None:
    off = np.array(sweep["denoiser"]) - np.array(sweep["theory"])[:, :, None]
    assert np.abs(off).max() < math.log10(1.03)
    assert sweep["residual"] < 1e-5


def test_the_exponent_and_its_interval(sweep: dict) -> None:
    weak, strong = (exponent([0.1, 1.0, 10.0], 10.0 ** np.array(rows)) for rows in sweep["denoiser"])
    assert weak.low < 0.995 < weak.high and weak.high - weak.low < 0.1
    assert 0.3 < strong.value < 0.45  # three points on a bend: their interval says nothing
    entry = records.read(recipes.get("two-patch"))
    n_snr2 = np.array(entry["config"]["n_snr2"])
    inside = n_snr2 <= 10.01
    assert n_snr2[inside].max() / n_snr2.min() > 99
    ratios = 10.0 ** np.array(entry["metrics"]["denoiser"])[:, inside]
    weak, *_, strong = (exponent(n_snr2[inside], rows) for rows in ratios)
    assert 0.99 < weak.low < weak.value < weak.high < 1
    assert 0.2 < strong.low < strong.value < strong.high < 0.5


def test_the_classifiers_switch(sweep: dict) -> None:
    ratios, accuracy = np.array(sweep["classifier"]).mean(2), np.array(sweep["accuracy"]).mean(2)
    assert (ratios[0] < [-2, -1, 3]).all() and (ratios[0, 2] > 1) and (ratios[1, 2] > 2) and (ratios[1, 0] < -4)
    assert (accuracy[:, 2] == 1).all() and np.abs(accuracy[:, 0] - 0.5).max() < 0.05
    entry = records.read(recipes.get("two-patch"))
    places, slopes = np.transpose(
        [
            np.mean([switch(entry["config"]["n_snr2"], 10.0**row) for row in np.transpose(rows)], axis=0)
            for rows in entry["metrics"]["classifier"]
        ]
    )
    assert (np.diff(places) < 0).all() and 2 < places[-1] < places[0] < 2.8
    assert (np.diff(slopes) > 3).all()


def test_a_known_power_and_a_known_switch() -> None:
    x = np.geomspace(0.1, 10, 7)
    rng = np.random.default_rng(0)
    noisy = 3 * x[:, None] ** 0.8 * np.exp(0.05 * rng.standard_normal((7, 4)))
    fit = exponent(x, noisy)
    assert fit.low < 0.8 < fit.high < 0.86 and fit.value == pytest.approx((fit.low + fit.high) / 2)
    assert 0 < fit.between_seeds < 0.05
    assert switch(x, (x / 1.7) ** 3) == pytest.approx((1.7, 3.0))
    for bad in (x + 1, 1 / x, np.ones(7) * 0.5):
        with pytest.raises(ValueError, match="^ratios"):
            switch(x, bad)
    with pytest.raises(ValueError, match="ratios .*seeds > 1"):
        exponent(x, noisy[:, :1])
    with pytest.raises(ValueError, match="ratios .*positive"):
        exponent(x, noisy - 100)
