"""The noisy MoLRG against dense linear algebra, many digits, autograd and statistics."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import DenseMixture

from repdyn.theory.molrg import NoisyMoLRG

MODELS = {
    "orthogonal": NoisyMoLRG.random(12, 3, 3, 0.2, seed=0),
    "unequal": NoisyMoLRG.random(11, [1, 4, 2], 3, 0.3, seed=1, weights=[0.2, 0.5, 0.3]),
    "oblique": NoisyMoLRG.random(6, [2, 3, 4, 1], 4, 0.5, seed=2, weights=[0.1, 0.2, 0.3, 0.4], orthogonal=False),
    "noiseless": NoisyMoLRG.random(8, [2, 3], 2, 0.0, seed=3, weights=[0.7, 0.3], orthogonal=False),
    "one class": NoisyMoLRG.random(5, 2, 1, 0.4, seed=4),
}
SIGMAS = [0.03, 0.4, 1.0, 7.0]
model_names = pytest.mark.parametrize("name", MODELS)


def noised(model, sigma, num=40, seed=5):
    x, _ = model.sample(num, seed)
    return x + sigma * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))


def dense(model):
    return DenseMixture([basis.numpy() for basis in model.bases], model.delta, model.weights.numpy())


@model_names
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("method", ["log_density", "class_posterior", "posterior_mean"])
def test_agrees_with_the_dense_mixture(name, sigma, method):
    model = MODELS[name]
    x = noised(model, sigma)
    expected = getattr(dense(model), method)(x.numpy(), sigma)
    np.testing.assert_allclose(getattr(model, method)(x, sigma).numpy(), expected, rtol=1e-9, atol=1e-12)


@model_names
@pytest.mark.parametrize("sigma", SIGMAS)
def test_score_is_the_gradient_of_the_log_density_and_tweedie_holds(name, sigma):
    model = MODELS[name]
    x = noised(model, sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_density(x, sigma).sum(), x)
    score = model.score(x, sigma)
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(x, sigma), x + sigma**2 * score, rtol=1e-10, atol=1e-11)


def test_posterior_mean_is_differentiable():
    model = MODELS["oblique"]
    x = noised(model, 0.5, num=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: model(y, 0.5), (x,))


def mp_mixture(model, x, sigma):
    """log density and posterior mean of one sample by dense linear algebra with 60 digits."""
    with mp.workdps(60):
        x, eye = mp.matrix([mp.mpf(v) for v in x.tolist()]), mp.eye(model.n)
        logs, means = [], []
        for basis, weight in zip(model.bases, model.weights.tolist(), strict=True):
            U = mp.matrix(basis.tolist())
            P = U * mp.inverse(U.T * U) * U.T
            C = P + mp.mpf(model.delta) ** 2 * (eye - P)
            noisy = C + mp.mpf(sigma) ** 2 * eye
            y = mp.lu_solve(noisy, x)
            logs.append(mp.log(weight) - (mp.log(mp.det(2 * mp.pi * noisy)) + (x.T * y)[0]) / 2)
            means.append(C * y)
        total = mp.log(mp.fsum(mp.exp(v) for v in logs))
        weights = [mp.exp(v - total) for v in logs]
        mean = [float(mp.fsum(w * m[i] for w, m in zip(weights, means, strict=True))) for i in range(model.n)]
        return float(total), mean, [float(w) for w in weights]


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.4])
@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_stays_accurate_at_extreme_noise_levels(delta, sigma):
    model = NoisyMoLRG.random(4, [1, 2], 2, delta, seed=7, weights=[0.4, 0.6], orthogonal=False)
    x = noised(model, sigma, num=3, seed=8)
    references = [mp_mixture(model, row, sigma) for row in x]
    logs, means, posteriors = (np.array(part) for part in zip(*references, strict=True))
    np.testing.assert_allclose(model.log_density(x, sigma).numpy(), logs, rtol=1e-9)
    np.testing.assert_allclose(model(x, sigma).numpy(), means, rtol=1e-8, atol=1e-9 * np.abs(means).max())
    np.testing.assert_allclose(model.class_posterior(x, sigma).numpy(), posteriors, rtol=1e-7, atol=1e-300)


def test_without_noise_the_input_is_returned():
    model = MODELS["unequal"]
    x, labels = model.sample(50, 9)
    torch.testing.assert_close(model(x, 0.0), x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(model.class_posterior(x, 0.0), dense(model).class_posterior(x.numpy(), 0.0), rtol=1e-9)
    np.testing.assert_allclose(model.score(x, 0.0), model.score(x, 1e-9), rtol=1e-9)


def test_infinite_noise_leaves_the_prior():
    model = MODELS["unequal"]
    x = noised(model, 1e8)
    torch.testing.assert_close(model.class_posterior(x, 1e8), model.weights.expand(len(x), -1), rtol=1e-12, atol=0)


def test_density_is_normalised():
    model = NoisyMoLRG.random(2, 1, 2, 0.3, seed=1, weights=[0.3, 0.7], orthogonal=False)
    axis = torch.linspace(-9.0, 9.0, 361, dtype=torch.float64)
    total = model.log_density(torch.cartesian_prod(axis, axis), 0.4).exp().sum() * (18.0 / 360) ** 2
    assert abs(float(total) - 1.0) < 1e-9


@pytest.mark.parametrize("name", ["unequal", "oblique", "noiseless"])
def test_samples_have_the_covariance_of_their_class(name):
    model, num = MODELS[name], 60_000
    x, labels = model.sample(num, 11)
    assert x.dtype == torch.float64 and labels.dtype == torch.int64
    for k, covariance in enumerate(dense(model).covariances):
        own = x[labels == k].numpy()
        weight = float(model.weights[k])
        assert abs(len(own) - num * weight) < 5 * math.sqrt(num * weight * (1 - weight))
        spread = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / len(own))
        assert np.all(np.abs(own.T @ own / len(own) - covariance) < 5 * spread + 1e-12)
        assert np.all(np.abs(own.mean(0)) < 5 * np.sqrt(np.diag(covariance) / len(own)) + 1e-12)
        assert abs((own**4).mean() / (3 * np.diag(covariance) ** 2).mean() - 1) < 0.1  # Gaussian, not only its variance


def test_error_of_the_posterior_mean_is_uncorrelated_with_the_input():
    model, sigma = MODELS["oblique"], 0.6
    x0, _ = model.sample(100_000, 12)
    x = x0 + sigma * torch.randn(x0.shape, dtype=x0.dtype, generator=torch.Generator().manual_seed(13))
    for feature in (x, torch.tanh(x.flip(1)), model.class_posterior(x, sigma)[:, :1].expand_as(x)):
        products = (x0 - model(x, sigma)) * feature
        z = products.mean(0) / (products.std(0) / math.sqrt(len(x)))
        assert z.abs().max() < 4.5


def test_sampling_is_seeded():
    model = MODELS["unequal"]
    first, again, other = model.sample(5, 0), model.sample(5, 0), model.sample(5, 1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and not torch.equal(first[0], other[0])
    assert model.sample(0, 0)[0].shape == (0, 11)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sigma=st.floats(0.02, 20.0), delta=st.floats(0.05, 0.95))
def test_invariances(seed, sigma, delta):
    generator = torch.Generator().manual_seed(seed)

    def rotation(n):
        return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q

    model = NoisyMoLRG.random(7, [2, 3, 1], 3, delta, seed, weights=[0.5, 0.2, 0.3], orthogonal=False)
    x, order, turn = noised(model, sigma, 4, seed), [2, 0, 1], rotation(7)
    mean, posterior, log_density = model(x, sigma), model.class_posterior(x, sigma), model.log_density(x, sigma)
    assert_close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)  # noqa: E731

    turned = NoisyMoLRG([turn @ U for U in model.bases], delta, model.weights)  # the space
    assert_close(turned(x @ turn.mT, sigma), mean @ turn.mT)
    assert_close(turned.log_density(x @ turn.mT, sigma), log_density)
    inner = NoisyMoLRG([U @ rotation(U.shape[1]) for U in model.bases], delta, model.weights)  # inside each subspace
    assert_close(inner(x, sigma), mean)
    permuted = NoisyMoLRG([model.bases[k] for k in order], delta, model.weights[order])  # the classes
    assert_close(permuted.class_posterior(x, sigma), posterior[:, order])
    assert_close(permuted(x, sigma), mean)
    assert_close(model(-x, sigma), -mean)
    assert_close(posterior.sum(1), torch.ones(4, dtype=torch.float64))


def test_sigma_per_sample_dtypes_and_arrays():
    model = MODELS["unequal"]
    x, sigma = noised(model, 0.5, 4), torch.tensor([0.1, 0.5, 1.0, 30.0])
    for method in ("posterior_mean", "class_posterior", "log_density", "score"):
        call = getattr(model, method)
        rows = torch.cat([call(x[i : i + 1], float(s)) for i, s in enumerate(sigma)])
        torch.testing.assert_close(call(x, sigma), rows)
        torch.testing.assert_close(call(x, sigma.numpy()), rows)
        single = call(x.float(), 0.5)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, call(x.float().double(), 0.5).float())
        assert torch.equal(call(x.numpy(), 0.5), call(x, 0.5))
    stacked = NoisyMoLRG(np.stack([U.numpy() for U in MODELS["orthogonal"].bases]), 0.2)
    assert torch.equal(stacked(torch.ones(1, 12), 0.5), MODELS["orthogonal"](torch.ones(1, 12), 0.5))


def test_random_subspaces():
    model = NoisyMoLRG.random(9, [2, 3, 4], 3, 0.1, seed=0)
    frame = torch.cat(model.bases, dim=1)
    torch.testing.assert_close(frame.mT @ frame, torch.eye(9, dtype=torch.float64))
    assert model.dims == (2, 3, 4) and (model.n, model.K, model.delta) == (9, 3, 0.1)
    assert repr(model) == "NoisyMoLRG(n=9, K=3, dims=(2, 3, 4), delta=0.1)"
    oblique = NoisyMoLRG.random(9, 4, 3, 0.1, seed=0, orthogonal=False)
    assert (oblique.bases[0].mT @ oblique.bases[1]).abs().max() > 0.1
    assert not torch.equal(oblique.bases[0], NoisyMoLRG.random(9, 4, 3, 0.1, seed=1, orthogonal=False).bases[0])


U = torch.eye(4, dtype=torch.float64)
GOOD = NoisyMoLRG([U[:, :2], U[:, 2:3]], 0.1)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("bases", lambda: NoisyMoLRG([], 0.1)),
        ("bases", lambda: NoisyMoLRG(3, 0.1)),
        ("bases", lambda: NoisyMoLRG([U[:, 0]], 0.1)),
        ("bases", lambda: NoisyMoLRG([U[:, :2], U[:3, :2]], 0.1)),
        ("bases", lambda: NoisyMoLRG([U[:, :0]], 0.1)),
        ("bases", lambda: NoisyMoLRG([torch.cat([U, U], 1)], 0.1)),
        ("bases", lambda: NoisyMoLRG([1.01 * U[:, :2]], 0.1)),
        ("bases", lambda: NoisyMoLRG([U[:, :2] * float("nan")], 0.1)),
        ("delta", lambda: NoisyMoLRG([U[:, :2]], 1.0)),
        ("delta", lambda: NoisyMoLRG([U[:, :2]], -0.1)),
        ("delta", lambda: NoisyMoLRG([U[:, :2]], float("nan"))),
        ("weights", lambda: NoisyMoLRG([U[:, :2], U[:, 2:]], 0.1, [0.5, 0.6])),
        ("weights", lambda: NoisyMoLRG([U[:, :2], U[:, 2:]], 0.1, [0.0, 1.0])),
        ("weights", lambda: NoisyMoLRG([U[:, :2], U[:, 2:]], 0.1, [1.0])),
        ("sum\\(d\\)", lambda: NoisyMoLRG.random(5, 2, 3, 0.1, 0)),
        ("d must", lambda: NoisyMoLRG.random(5, [2, 1], 3, 0.1, 0)),
        ("d must", lambda: NoisyMoLRG.random(5, 6, 3, 0.1, 0, orthogonal=False)),
        ("d must", lambda: NoisyMoLRG.random(5, 0, 3, 0.1, 0)),
        ("n must", lambda: NoisyMoLRG.random(5.0, 1, 3, 0.1, 0)),
        ("K must", lambda: NoisyMoLRG.random(5, 1, 0, 0.1, 0)),
        ("seed", lambda: NoisyMoLRG.random(5, 1, 3, 0.1, -1)),
        ("num", lambda: GOOD.sample(-1, 0)),
        ("seed", lambda: GOOD.sample(1, -1)),
        ("x must", lambda: GOOD(torch.zeros(4), 0.1)),
        ("x must", lambda: GOOD(torch.zeros(2, 3), 0.1)),
        ("x must", lambda: GOOD(torch.zeros(2, 4, dtype=torch.int64), 0.1)),
        ("x must", lambda: GOOD(torch.full((2, 4), float("inf")), 0.1)),
        ("sigma", lambda: GOOD(torch.zeros(2, 4), -0.1)),
        ("sigma", lambda: GOOD(torch.zeros(2, 4), float("nan"))),
        ("sigma", lambda: GOOD(torch.zeros(2, 4), float("inf"))),
        ("sigma", lambda: GOOD(torch.zeros(2, 4), [0.1, 0.2, 0.3])),
        ("sigma", lambda: NoisyMoLRG([U[:, :2]], 0.0)(torch.zeros(2, 4), 0.0)),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}.*(: |; )"):
        call()


def test_the_edges_of_the_ranges_are_allowed():
    assert NoisyMoLRG([U], 0.0).sample(1, 0)[0].shape == (1, 4)  # d = n
    assert NoisyMoLRG([(1.0 + 1e-5) * U[:, :2].float()], 0.1).n == 4  # single precision
    assert NoisyMoLRG.random(4, 2, 2, 0.1, 0).dims == (2, 2)  # no room to spare
    assert NoisyMoLRG.random(2, 2, 3, 0.1, 0, orthogonal=False).K == 3
    assert NoisyMoLRG.random(1, 1, 1, 0.1, 0).n == 1
