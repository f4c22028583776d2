"""Samplers against closed forms: for Gaussian data the flow is known, and so is every step of every sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repdyn.denoisers import EDMDenoiser
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma, edm_sigmas
from repdyn.sampling import Churn, sample, trajectory
from repdyn.theory.molrg import NoisyMoLRG

VARIANCES = torch.tensor([4.0, 1.0, 0.25, 0.01], dtype=torch.float64)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """The optimal denoiser of N(0, diag(VARIANCES))."""
    return VARIANCES / (VARIANCES + sigma**2) * x


def start(num: int, sigma: float, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(num, 4, dtype=torch.float64, generator=generator)


def flow(x: Tensor, high: float, low: float) -> Tensor:
    """Exact solution of the probability flow for Gaussian data: each axis scales as the deviation at its level."""
    return x * ((VARIANCES + low**2) / (VARIANCES + high**2)).sqrt()


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method: str, order: int) -> None:
    x, errors = start(5, 10.0), []
    exact = flow(x, 10.0, 0.05)
    for num in (65, 129, 257):
        found = sample(gaussian, x, edm_sigmas(num, 0.05, 10.0), seed=0, method=method, to_zero=False)
        errors.append((found - exact).abs().max().item())
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(rates, order, atol=0.12)
    assert errors[-1] < {1: 0.1, 2: 2e-3}[order]


def test_trajectory_follows_the_flow_at_every_level() -> None:
    x, sigmas = start(3, 20.0), edm_sigmas(300, 0.002, 20.0)
    states = list(trajectory(gaussian, x, sigmas, seed=0))
    assert [state.sigma for state in states] == pytest.approx([*sigmas, 0.0])
    assert torch.equal(states[0].x, x)
    for state in states:
        torch.testing.assert_close(state.x, flow(x, 20.0, state.sigma), rtol=2e-3, atol=2e-4)
    assert torch.equal(states[-1].x, sample(gaussian, x, sigmas, seed=0))


def test_flow_of_one_noisy_subspace() -> None:
    """With one class the noisy MoLRG is Gaussian: two scales, inside and outside its subspace."""
    model = NoisyMoLRG.random(n=8, d=2, K=1, delta=0.3, seed=0)
    x = 20 * torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inside = x @ model.bases[0] @ model.bases[0].T
    exact = inside / (1 + 400) ** 0.5 + (x - inside) * 0.3 / (0.09 + 400) ** 0.5
    found = sample(model, x, edm_sigmas(400, 0.002, 20.0), seed=0)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-5)


def test_heun_of_two_steps_by_hand() -> None:
    x = start(4, 2.0)
    slope = (x - gaussian(x, 2.0)) / 2
    moved = x - 1.5 * slope
    x1 = x - 1.5 * (slope + (moved - gaussian(moved, 0.5)) / 0.5) / 2
    torch.testing.assert_close(sample(gaussian, x, [2.0, 0.5], seed=0), gaussian(x1, 0.5), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("arguments", "gains"),
    [
        ((0.6,), (0.2, 0.2, 0.2)),  # amount / steps: three levels are three steps, the last one to zero
        ((0.6, 0.5, 1.0, 0.7), (0.0, 0.2, 0.2)),
        ((0.6, 0.6, 2.0, 1.3), (0.2, 0.2, 0.0)),
        ((0.6, 1.0, 1.0), (0.0, 0.2, 0.0)),
        ((0.6, 0.0, math.inf, 0.0), (0.2, 0.2, 0.2)),
        ((60.0,), (math.sqrt(2) - 1,) * 3),
    ],
)
def test_churned_steps_by_hand(arguments: tuple[float, ...], gains: tuple[float, ...]) -> None:
    """Guards the gain of each step, its bounds and the size of the noise, draw by draw."""
    churn, levels, x = Churn(*arguments), [2.0, 1.0, 0.5, 0.0], start(4, 2.0)
    assert churn.noise == (arguments[3] if len(arguments) > 3 else 1.0)
    found = sample(gaussian, x, levels[:-1], seed=7, churn=churn, method="euler")
    generator = torch.Generator().manual_seed(7)
    for sigma, target, gain in zip(levels, levels[1:], gains):
        raised = sigma * (1 + gain)
        if gain:
            fresh = torch.randn(x.shape, dtype=x.dtype, generator=generator)
            x = x + churn.noise * math.sqrt(raised**2 - sigma**2) * fresh
        x = x + (target - raised) * (x - gaussian(x, raised)) / raised
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_euler_is_ddim_and_ddpm_in_their_own_coordinates(eta: float) -> None:
    """The update of Song, Meng and Ermon (2021) in x_t = sqrt(abar_t) x, with the same noise; eta = 1 is DDPM's."""
    alpha_bar = ddpm_alpha_bar(1000)
    steps = np.arange(999, -1, -111)
    sigmas = ddpm_sigma(steps, alpha_bar)
    x = start(6, sigmas[0])
    found = sample(gaussian, x, sigmas, seed=7, method="euler", eta=eta)

    generator = torch.Generator().manual_seed(7)
    xt = math.sqrt(alpha_bar[999]) * x
    for t, s in zip(steps, [*steps[1:], None]):
        a, b = alpha_bar[t], 1.0 if s is None else alpha_bar[s]
        sigma = math.sqrt((1 - a) / a)
        x0 = gaussian(xt / math.sqrt(a), sigma)
        eps = (xt - math.sqrt(a) * x0) / math.sqrt(1 - a)
        spread = eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        xt = math.sqrt(b) * x0 + math.sqrt(1 - b - spread**2) * eps
        if spread:
            xt = xt + spread * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    torch.testing.assert_close(found, xt, rtol=1e-11, atol=1e-12)


def test_ancestral_step_is_the_posterior_of_ho_et_al() -> None:
    """Mean and variance of q(x_{t-1} | x_t, x_0) with x_0 replaced by its estimate, on neighbouring time steps."""
    alpha_bar, t = ddpm_alpha_bar(1000), 500
    high, low = ddpm_sigma(np.array([t, t - 1]), alpha_bar)
    x = start(1, high).expand(40_000, 4)
    found = sample(gaussian, x, [high, low], seed=0, method="euler", eta=1.0, to_zero=False)
    found = found * math.sqrt(alpha_bar[t - 1])
    beta = 1 - alpha_bar[t] / alpha_bar[t - 1]
    xt, x0 = math.sqrt(alpha_bar[t]) * x[0], gaussian(x[0], high)
    mean = math.sqrt(alpha_bar[t - 1]) * beta * x0 + math.sqrt(1 - beta) * (1 - alpha_bar[t - 1]) * xt
    mean = mean / (1 - alpha_bar[t])
    variance = beta * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    assert ((found.mean(0) - mean) / (variance / 40_000) ** 0.5).abs().max() < 4
    assert ((found.var(0) / variance - 1) / (2 / 40_000) ** 0.5).abs().max() < 4


def variance_of(sigmas: np.ndarray, method: str, eta: float, churn: Churn | None) -> Tensor:
    """Variances of the samples, by the linear recursion that a sampler is on Gaussian data."""
    levels = [*sigmas, 0.0]
    variance = torch.full((4,), sigmas[0] ** 2, dtype=torch.float64)
    for s, t in zip(levels, levels[1:]):
        if churn is not None and churn.sigma_min <= s <= churn.sigma_max:
            raised = s * (1 + min(churn.amount / len(sigmas), 2**0.5 - 1))
            variance, s = variance + churn.noise**2 * (raised**2 - s**2), raised
        fresh = eta * t * math.sqrt(1 - (t / s) ** 2)
        low = math.sqrt(t**2 - fresh**2)
        slope = s / (VARIANCES + s**2)
        factor = 1 + (low - s) * slope
        if method == "heun" and t:
            factor = 1 + (low - s) / 2 * (slope + factor * low / (VARIANCES + low**2))
        variance = factor**2 * variance + fresh**2
    return variance


@pytest.mark.parametrize(
    ("method", "eta", "churn"),
    [
        ("heun", 0.0, None),
        ("euler", 0.5, None),
        ("euler", 1.0, None),
        ("heun", 0.0, Churn(10.0)),
        ("heun", 0.0, Churn(60.0, 0.05, 8.0, 1.01)),
        ("euler", 0.0, Churn(6.0, sigma_max=1.0)),
    ],
)
def test_distribution_of_samples(method: str, eta: float, churn: Churn | None) -> None:
    """Variances within their standard errors of those that the scheme has; no correlation; no mean."""
    num, sigmas = 20_000, edm_sigmas(24, 0.02, 20.0)
    x = sample(gaussian, start(num, 20.0), sigmas, seed=3, method=method, eta=eta, churn=churn)
    variance = variance_of(sigmas, method, eta, churn)
    assert ((x.var(0) / variance - 1) / (2 / num) ** 0.5).abs().max() < 4
    assert (x.mean(0) / (variance / num).sqrt()).abs().max() < 4
    assert (torch.corrcoef(x.T) - torch.eye(4)).abs().max() < 4 / num**0.5


@pytest.mark.parametrize(("method", "eta", "churn"), [("euler", 1.0, None), ("heun", 0.0, Churn(20.0))])
def test_noise_on_the_way_keeps_the_distribution(method: str, eta: float, churn: Churn | None) -> None:
    """With many steps every sampler has the variances of the data, that of the start apart (20 is not infinity)."""
    found = variance_of(edm_sigmas(2000, 0.002, 20.0), method, eta, churn)
    torch.testing.assert_close(found, VARIANCES, rtol=0.02, atol=0)


def test_samples_of_a_mixture_have_its_classes_and_covariances() -> None:
    model, num = NoisyMoLRG.random(n=8, d=2, K=2, delta=0.2, seed=0, weights=[0.3, 0.7]), 4000
    start = 30 * torch.randn(num, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # The first-order scheme needs more steps: with 60 its variances are a few percent short.
    for steps, options in ((60, {}), (60, {"churn": Churn(10.0)}), (400, {"method": "euler", "eta": 1.0})):
        x = sample(model, start, edm_sigmas(steps, 0.01, 30.0), seed=2, **options)
        weight = model.class_posterior(x, 0.01)[:, 0]  # soft: classes overlap near the origin
        assert abs(weight.mean() - 0.3) / (0.21 / num) ** 0.5 < 4
        for basis, share in zip(model.bases, (0.3, 0.7)):
            energy = (x @ basis).square().sum(1)
            reference = (model.sample(num, 5)[0] @ basis).square().sum(1)
            expected = share * 2 + (1 - share) * 2 * 0.04
            assert abs(energy.mean() - expected) / (reference.std() / num**0.5) < 4


def test_churn_of_zero_is_deterministic_and_seeds_matter_otherwise() -> None:
    x, sigmas = start(3, 5.0), edm_sigmas(10, 0.01, 5.0)
    plain = sample(gaussian, x, sigmas, seed=0)
    assert torch.equal(plain, sample(gaussian, x, sigmas, seed=1))
    assert torch.equal(plain, sample(gaussian, x, sigmas, seed=1, churn=Churn(0.0)))
    assert torch.equal(plain, sample(gaussian, x, sigmas, seed=1, churn=Churn(9.0, 6.0, 7.0)))
    churned = [sample(gaussian, x, sigmas, seed=seed, churn=Churn(9.0)) for seed in (1, 1, 2)]
    assert torch.equal(churned[0], churned[1]) and not torch.allclose(churned[0], churned[2])
    assert not torch.allclose(churned[0], plain)


def test_a_shape_starts_from_noise_and_a_network_is_evaluated(denoiser: EDMDenoiser) -> None:
    first = next(iter(trajectory(denoiser, (50, 1, 8, 8), [7.0, 1.0], seed=0)))
    assert first.sigma == 7.0 and first.x.dtype == torch.float32
    assert first.x.std().item() == pytest.approx(7.0, rel=0.05)
    samples = [sample(denoiser, (2, 1, 8, 8), edm_sigmas(4), seed=0) for _ in range(2)]
    assert torch.equal(*samples), "dropout is on"
    assert denoiser.training and not samples[0].requires_grad
    assert not torch.equal(samples[0], sample(denoiser, (2, 1, 8, 8), edm_sigmas(4), seed=1))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((2, 4), [1.0, 2.0]), {}, "sigmas"),
        (((2, 4), [1.0, 0.0]), {}, "sigmas"),
        (((2, 4), [1.0, 1.0]), {}, "sigmas"),
        (((2, 4), [1.5, 1.0, 1.2]), {}, "sigmas"),
        (((2, 4), []), {}, "sigmas"),
        (((2, 4), [1.0]), {"churn": Churn(1.0, noise=-1.0)}, "churn"),
        (((2, 4), [1.0]), {"churn": Churn(1.0, 2.0, 1.0)}, "churn"),
        (((2, 4), [1.0]), {"method": "euler", "eta": -0.5}, "eta"),
        (((2, 4), [1.0]), {"to_zero": False}, "sigmas"),
        (((2, 4), [[1.0]]), {}, "sigmas"),
        (((2, 4), [math.nan]), {}, "sigma"),
        (((2, 0), [1.0]), {}, "start"),
        ((torch.tensor([[math.nan]]), [1.0]), {}, "start .*finite"),
        ((torch.tensor([[1]]), [1.0]), {}, "start .*floating-point"),
        (((2, 4), [1.0]), {"seed": -1}, "seed"),
        (((2, 4), [1.0]), {"method": "rk4"}, "method .*'rk4'"),
        (((2, 4), [1.0]), {"method": "euler", "eta": 1.5}, "eta .*got 1.5"),
        (((2, 4), [1.0]), {"eta": 0.5}, "eta is for"),
        (((2, 4), [1.0]), {"method": "euler", "eta": 0.5, "churn": Churn(1.0)}, "eta is for .*without"),
        (((2, 4), [1.0]), {"churn": Churn(-1.0)}, "churn .*amount"),
    ],
)
def test_what_cannot_be_sampled_is_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(nn.Identity(), *arguments, **{"seed": 0} | options)
