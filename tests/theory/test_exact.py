"""The exact CSNR against direct integrals, many digits and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import distance_to_peak, laplace_csnr, laplace_csnr_mp, two_class_csnr

from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

# (K, d, delta, sigma, noisy_input), hard ones: two scales, rare events, many classes, many dimensions.
CORNERS = [
    (3, 5, 0.1, 0.4364, False),
    (1000, 1, 0.01, 0.05, False),
    (1000, 5, 0.01, 0.3, False),
    (1000, 32, 0.1, 1.0, False),
    (10, 2, 0.01, 1e-4, False),
    (1000, 4, 0.5, 0.5, True),
    (1000, 256, 0.1, 1.8, False),
    (1000, 256, 0.01, 1.0, False),
    (100, 3, 0.95, 2.0, True),
    (2, 1, 0.01, 1e3, False),
    (3, 5, 1e-6, 0.3, False),
    (3, 500, 0.1, 2.0, False),
]


@pytest.mark.parametrize(("K", "d", "delta", "sigma", "noisy_input"), CORNERS)
def test_agrees_with_laplace_transforms_in_extended_precision(K, d, delta, sigma, noisy_input):
    value = csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy_input)
    assert math.isclose(value, laplace_csnr(sigma, d, K, delta, noisy_input), rel_tol=5e-12)


@pytest.mark.parametrize(
    ("d", "delta", "sigma", "noisy_input"),
    [(1, 0.01, 0.05, False), (1, 0.01, 3.0, True), (5, 0.2, 0.7, False), (32, 0.1, 0.6, True), (2, 0.5, 1e-3, False)],
)
def test_agrees_with_the_double_integral_over_two_energies(d, delta, sigma, noisy_input):
    value = csnr.exact(sigma, d=d, K=2, delta=delta, noisy_input=noisy_input)
    assert math.isclose(value, two_class_csnr(sigma, d, delta, noisy_input), rel_tol=2e-13)


MPMATH = [((3, 5, 0.2, 0.7, False), 227.63338170765016), ((3, 5, 0.1, 0.4364, False), 7525.31608389209)]


@pytest.mark.parametrize(("corner", "reference"), MPMATH)
def test_agrees_with_25_digits(corner, reference):
    """The references are what ``python tests/theory/oracles.py`` prints, in minutes."""
    K, d, delta, sigma, noisy_input = corner
    assert math.isclose(csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy_input), reference, rel_tol=1e-14)


def test_agrees_with_mpmath_now():
    reference = laplace_csnr_mp(1.5, 2, 4, 0.6, digits=16, order=6)
    assert math.isclose(csnr.exact(1.5, d=2, K=4, delta=0.6), reference, rel_tol=1e-7)


@pytest.mark.parametrize("noisy_input", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "K", "delta", "sigma"), [(50, 5, 3, 0.2, 0.7), (24, 2, 10, 0.4, 0.5), (9, 1, 2, 0.1, 1.0)]
)
def test_agrees_with_the_denoiser_on_samples(n, d, K, delta, sigma, noisy_input):
    model, num = NoisyMoLRG.random(n, d, K, delta, seed=1), 40_000
    x, labels = model.sample(num, 2)
    if noisy_input:
        x = x + sigma * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    x_hat = model(x, sigma)
    energies = torch.stack([(x_hat @ U).square().sum(1) for U in model.bases], dim=1)
    own = energies[torch.arange(num), labels]
    others = energies.sum(1) - own
    value = csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy_input)
    influence = own / own.mean() - others / others.mean()  # delta method for the logarithm of the ratio
    z = math.log(csnr.csnr(x_hat, labels, model.bases) / value) / (influence.std().item() / math.sqrt(num))
    assert abs(z) < 4.0


def test_limits():
    for d, K, delta in ((1, 2, 0.01), (5, 3, 0.2), (40, 1000, 0.9)):
        limit = 1.0 / ((K - 1) * delta**2)
        np.testing.assert_allclose(csnr.exact([0.0, 1e-9, 1e9, 1e70], d=d, K=K, delta=delta), limit, rtol=1e-9)
        noisy = csnr.exact([0.0, 1e9], d=d, K=K, delta=delta, noisy_input=True)
        np.testing.assert_allclose(noisy, [limit, 1.0 / (K - 1)], rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    d=st.integers(1, 300),
    K=st.integers(2, 3000),
    delta=st.floats(0.005, 0.97),
    log_sigma=st.floats(-9.0, 7.0),
    noisy=st.booleans(),
)
def test_bounds(d, K, delta, log_sigma, noisy):
    """Never below the ratio of the energies of the input, never above that times ((zeta / xi)^2)."""
    sigma = math.exp(log_sigma)
    value = csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy)
    energies = (1 + sigma**2) / (delta**2 + sigma**2) if noisy else 1 / delta**2
    gain = (delta**2 + sigma**2) / ((1 + sigma**2) * delta**2)
    assert 1.0 - 1e-11 <= value * (K - 1) / energies <= gain**2 * (1.0 + 1e-11)


def test_theorem2_holds_at_both_ends_and_not_at_the_peak():
    sigma = np.array([1e-3, 30.0])
    np.testing.assert_allclose(
        csnr.theorem2(sigma, d=5, K=3, delta=0.2), csnr.exact(sigma, d=5, K=3, delta=0.2), rtol=1e-3
    )
    assert csnr.theorem2(0.7, d=5, K=3, delta=0.2) > 1.8 * csnr.exact(0.7, d=5, K=3, delta=0.2)


@pytest.mark.parametrize(
    ("d", "K", "delta", "noisy"), [(5, 3, 0.2, False), (5, 3, 0.2, True), (1, 2, 0.01, False), (2, 100, 0.9, False)]
)
def test_peak(d, K, delta, noisy):
    found = csnr.peak(d=d, K=K, delta=delta, noisy_input=noisy)
    curve = lambda sigma: csnr.exact(sigma, d=d, K=K, delta=delta, noisy_input=noisy)  # noqa: E731
    assert found.value == curve(found.sigma)
    assert found.value >= curve(np.geomspace(1e-3, 30.0, 60)).max()
    assert abs(distance_to_peak(lambda t: np.log(curve(np.exp(t))), math.log(found.sigma))) < 1e-8


def test_peak_at_zero_when_a_noisy_input_only_hurts():
    found = csnr.peak(d=1, K=1000, delta=0.95, noisy_input=True)
    assert found == (0.0, 1.0 / (999 * 0.95**2))
    assert found.value > csnr.exact(np.geomspace(1e-3, 1e2, 20), d=1, K=1000, delta=0.95, noisy_input=True).max()
