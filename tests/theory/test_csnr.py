"""The CSNR metric, Lemma 1 and Theorem 2 against dense linear algebra with frozen weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import DenseMixture, distance_to_peak
from scipy.optimize import minimize_scalar

from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

CASES = [(12, 2, 3, 0.2), (20, 5, 4, 0.6), (9, 1, 2, 0.05), (8, 2, 4, 0.9)]
SIGMAS = np.array([0.02, 0.3, 0.8, 2.0, 15.0])
cases = pytest.mark.parametrize(("n", "d", "K", "delta"), CASES)


def dense(n, d, K, delta):
    return DenseMixture([basis.numpy() for basis in NoisyMoLRG.random(n, d, K, delta, seed=0).bases], delta)


def test_metric_is_a_ratio_of_expectations():
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((6, d)))[0] for d in (1, 3, 2)]
    x, labels = rng.standard_normal((50, 6)) * rng.exponential(size=(50, 1)), rng.integers(0, 3, 50)
    signal = sum(np.linalg.norm(bases[k] @ bases[k].T @ v) ** 2 for v, k in zip(x, labels, strict=True))
    noise = sum(
        np.linalg.norm(bases[m] @ bases[m].T @ v) ** 2
        for v, k in zip(x, labels, strict=True)
        for m in range(3)
        if m != k
    )
    value = csnr.csnr(x, labels, bases)
    assert isinstance(value, float) and math.isclose(value, signal / noise, rel_tol=1e-12)
    tensors = [torch.tensor(basis) for basis in bases]
    assert math.isclose(csnr.csnr(torch.tensor(x), torch.tensor(labels), tensors), value, rel_tol=1e-15)
    assert math.isclose(csnr.csnr(3.0 * x, labels, bases), value, rel_tol=1e-12)
    assert math.isclose(csnr.csnr(x.astype(np.float32), labels, bases), value, rel_tol=1e-5)


def test_metric_is_infinite_without_interference():
    U = np.eye(4)
    assert csnr.csnr(U[:1], [0], [U[:, :2], U[:, 2:]]) == math.inf
    assert csnr.csnr(U[:1], [1], [U[:, :2], U[:, 2:]]) == 0.0


@cases
def test_class_confidence_is_the_softmax_of_the_mean_exponents(n, d, K, delta):
    w_plus, w_minus = csnr.class_confidence(SIGMAS, d=d, K=K, delta=delta)
    for i, sigma in enumerate(SIGMAS):
        weights, _, _ = dense(n, d, K, delta).frozen_energies(sigma)
        np.testing.assert_allclose([w_plus[i], *[w_minus[i]] * (K - 1)], weights, rtol=1e-9)


@cases
def test_lemma1_and_theorem2_are_the_energies_of_frozen_weights(n, d, K, delta):
    lemma = csnr.lemma1(SIGMAS, n=n, d=d, K=K, delta=delta)
    ratio = csnr.theorem2(SIGMAS, d=d, K=K, delta=delta)
    for i, sigma in enumerate(SIGMAS):
        _, energies, complement = dense(n, d, K, delta).frozen_energies(sigma)
        np.testing.assert_allclose([lemma.true_class[i], *[lemma.other_class[i]] * (K - 1)], energies, rtol=1e-8)
        np.testing.assert_allclose(lemma.complement[i], complement, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(ratio[i], energies[0] / energies[1:].sum(), rtol=1e-8)


def test_lemma1_on_samples():
    """The frozen denoiser applied to samples: every energy within its standard error."""
    n, d, K, delta, sigma, num = 20, 3, 4, 0.3, 0.8, 40_000
    model = NoisyMoLRG.random(n, d, K, delta, seed=1)
    x, labels = model.sample(num, 2)
    w_plus, w_minus = csnr.class_confidence(sigma, d=d, K=K, delta=delta)
    zeta, xi = 1 / (1 + sigma**2), delta**2 / (delta**2 + sigma**2)
    parts = torch.stack([(x @ U) @ U.mT for U in model.bases], dim=1)  # (num, K, n)
    own = torch.nn.functional.one_hot(labels, K).bool()
    weights = own * (w_plus - w_minus) + w_minus
    x_hat = xi * x + (zeta - xi) * (weights[:, :, None] * parts).sum(1)
    energies = torch.stack([(x_hat @ U).square().sum(1) for U in model.bases], dim=1)
    lemma = csnr.lemma1(sigma, n=n, d=d, K=K, delta=delta)
    outside = x_hat.square().sum(1) - energies.sum(1)
    for sample, value in (
        (energies[own], lemma.true_class),
        (energies[~own], lemma.other_class),
        (outside, lemma.complement),
    ):
        assert abs(sample.mean() - value) < 4.5 * sample.std() / math.sqrt(len(sample))
    assert math.isclose(
        csnr.csnr(x_hat, labels, model.bases), csnr.theorem2(sigma, d=d, K=K, delta=delta), rel_tol=0.03
    )


def test_limits():
    for d, K, delta in ((1, 2, 0.3), (7, 10, 0.05)):
        limit = 1.0 / ((K - 1) * delta**2)
        for sigma in (0.0, 1e-8, 1e8, 1e60):
            assert math.isclose(csnr.theorem2(sigma, d=d, K=K, delta=delta), limit, rel_tol=1e-9)
        w_plus, w_minus = csnr.class_confidence(1e10, d=d, K=K, delta=delta)
        assert math.isclose(w_plus, 1 / K) and math.isclose(w_minus, 1 / K)
    w_plus, w_minus = csnr.class_confidence(0.1, d=5, K=3, delta=0.1)  # no cancellation in 1 - w_plus
    assert w_plus == 1.0 and math.isclose(math.log(w_minus), -5 * 0.99**2 / (2 * 1.01 * 0.02), rel_tol=1e-12)
    without_noise = csnr.lemma1(0.5, n=9, d=2, K=3, delta=0.0)
    assert without_noise.other_class == without_noise.complement == 0.0 < without_noise.true_class


@pytest.mark.parametrize(
    ("d", "K", "delta"), [(5, 3, 0.2), (1, 2, 0.01), (256, 1000, 0.01), (2, 100, 0.9), (64, 2, 0.5)]
)
def test_peak_of_theorem2(d, K, delta):
    found = csnr.peak(d=d, K=K, delta=delta, method="theorem2")
    curve = lambda t: np.log(csnr.theorem2(np.exp(t), d=d, K=K, delta=delta))  # noqa: E731
    grid = np.linspace(math.log(1e-4), math.log(1e3), 4001)
    start = grid[np.argmax(curve(grid))]
    reference = minimize_scalar(lambda t: -curve(t), bounds=(start - 0.01, start + 0.01), method="bounded")
    assert abs(math.log(found.sigma) - reference.x) < 1e-4
    assert math.isclose(found.value, math.exp(-reference.fun), rel_tol=1e-8)
    assert found.value == csnr.theorem2(found.sigma, d=d, K=K, delta=delta)
    assert isinstance(found.sigma, float) and isinstance(found.value, float)
    assert abs(distance_to_peak(curve, math.log(found.sigma))) < 1e-8


FUNCTIONS = [
    lambda sigma: csnr.theorem2(sigma, d=2, K=3, delta=0.3),
    lambda sigma: csnr.exact(sigma, d=2, K=3, delta=0.3),
    lambda sigma: csnr.class_confidence(sigma, d=2, K=3, delta=0.3)[0],
    lambda sigma: csnr.class_confidence(sigma, d=2, K=3, delta=0.3)[1],
    *(lambda sigma, i=i: csnr.lemma1(sigma, n=7, d=2, K=3, delta=0.3)[i] for i in range(3)),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_comes_in_comes_out(function):
    value = function(0.5)
    assert isinstance(value, float)
    array = function(np.array([[0.5, 2.0], [1.0, 0.25]]))
    assert array.dtype == np.float64 and array.shape == (2, 2) and array[0, 0] == value
    assert function([0.5, 2.0]).tolist() == array[0].tolist()
    tensor = function(torch.tensor([0.5, 2.0], dtype=torch.float64))
    assert tensor.dtype == torch.float64 and tensor.tolist() == array[0].tolist()
    assert function(torch.tensor(0.5)).dtype == torch.float32 and function(torch.tensor(2)).dtype == torch.float64
    assert function(np.zeros(0)).shape == (0,)


U = np.eye(4)
BASES, X = [U[:, :2], U[:, 2:]], np.ones((3, 4))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x0_hat", lambda: csnr.csnr(np.ones(4), [0], BASES)),
        ("x0_hat", lambda: csnr.csnr(np.ones((3, 5)), [0, 1, 0], BASES)),
        ("x0_hat", lambda: csnr.csnr(X * np.nan, [0, 1, 0], BASES)),
        ("x0_hat", lambda: csnr.csnr(X[:0], [], BASES)),
        ("x0_hat", lambda: csnr.csnr(0 * X, [0, 1, 0], BASES)),
        ("labels", lambda: csnr.csnr(X, [0, 1], BASES)),
        ("labels", lambda: csnr.csnr(X, [0, 1, 2], BASES)),
        ("labels", lambda: csnr.csnr(X, [0, 1, -1], BASES)),
        ("labels", lambda: csnr.csnr(X, [0.0, 1.0, 1.0], BASES)),
        ("labels", lambda: csnr.csnr(X, [True, False, True], BASES)),
        ("bases", lambda: csnr.csnr(X, [0, 0, 0], BASES[:1])),
        ("bases", lambda: csnr.csnr(X, [0, 1, 0], [2 * U[:, :2], U[:, 2:]])),
        ("sigma", lambda: csnr.theorem2(-1.0, d=1, K=2, delta=0.1)),
        ("sigma", lambda: csnr.theorem2([1.0, math.nan], d=1, K=2, delta=0.1)),
        ("sigma", lambda: csnr.exact(math.inf, d=1, K=2, delta=0.1)),
        ("sigma", lambda: csnr.class_confidence(0.0, d=1, K=2, delta=0.0)),
        ("sigma", lambda: csnr.lemma1(0.0, n=4, d=1, K=2, delta=0.0)),
        ("d must", lambda: csnr.exact(1.0, d=0, K=2, delta=0.1)),
        ("d must", lambda: csnr.peak(d=1.5, K=2, delta=0.1)),
        ("K must", lambda: csnr.theorem2(1.0, d=1, K=1, delta=0.1)),
        ("K must", lambda: csnr.class_confidence(1.0, d=1, K=1, delta=0.1)),
        ("delta", lambda: csnr.theorem2(1.0, d=1, K=2, delta=0.0)),
        ("delta", lambda: csnr.exact(1.0, d=1, K=2, delta=0.0)),
        ("delta", lambda: csnr.peak(d=1, K=2, delta=0.0)),
        ("delta", lambda: csnr.lemma1(1.0, n=4, d=1, K=2, delta=1.0)),
        ("n = 3", lambda: csnr.lemma1(1.0, n=3, d=2, K=2, delta=0.1)),
        ("n must", lambda: csnr.lemma1(1.0, n=4.5, d=2, K=2, delta=0.1)),
        ("method", lambda: csnr.peak(d=1, K=2, delta=0.1, method="lemma1")),
        ("noisy_input", lambda: csnr.peak(d=1, K=2, delta=0.1, method="theorem2", noisy_input=True)),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}.*(: |, )"):
        call()


# ---------------------------------------------------------------------------------------------- exact energies


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("sigma", [0.1, 0.6, 2.5])
def test_exact_energies_are_those_of_samples(sigma: float, noisy: bool) -> None:
    n, d, K, delta = 30, 4, 3, 0.3
    model = NoisyMoLRG.random(n=n, d=d, K=K, delta=delta, seed=0)
    x, labels = model.sample(60_000, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    estimate = model.posterior_mean(x + noisy * sigma * noise, sigma)
    inside = torch.stack([(estimate @ basis).square().sum(1) for basis in model.bases], 1)  # (num, K)
    own = torch.nn.functional.one_hot(labels, K).bool()
    outside = estimate.square().sum(1) - inside.sum(1)
    expected = csnr.exact_energies(sigma, n=n, d=d, K=K, delta=delta, noisy_input=noisy)
    for sampled, value in zip((inside[own], inside[~own], outside), expected, strict=True):
        assert sampled.mean().item() == pytest.approx(value, abs=4.5 * sampled.std().item() / len(sampled) ** 0.5)
    ratio = expected.true_class / expected.other_class / (K - 1)
    assert ratio == pytest.approx(csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy), rel=1e-13)


def test_exact_energies_have_the_form_of_sigma_and_need_room() -> None:
    grid = torch.tensor([[0.1, 0.5]])
    energies = csnr.exact_energies(grid, n=12, d=2, K=3, delta=0.2)
    assert all(isinstance(e, torch.Tensor) and e.shape == (1, 2) for e in energies)
    at_zero = csnr.exact_energies(0.0, n=12, d=2, K=3, delta=0.2)
    assert at_zero == pytest.approx((2, 2 * 0.04, 6 * 0.04)), "the estimate is the sample"
    with pytest.raises(ValueError, match="^n = 5"):
        csnr.exact_energies(0.1, n=5, d=2, K=3, delta=0.2)
