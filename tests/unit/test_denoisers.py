"""Denoisers: the EDM coefficients, Tweedie's formula on a Gaussian, the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repdyn.denoisers import (
    EDMDenoiser,
    PlainDenoiser,
    VPDenoiser,
    dae_loss,
    denoiser_from_score,
    edm_coefficients,
    edm_loss_weight,
    expand_sigma,
    score_from_denoiser,
)
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma, ddpm_timestep

SIGMAS = torch.tensor([0.002, 0.1, 0.5, 2.0, 80.0], dtype=torch.float64)


class Recorder(nn.Module):
    """A network that keeps what it was called with and returns a constant."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, noise_label: Tensor, **conditions: Tensor) -> Tensor:
        self.called_with = x, noise_label, conditions
        return torch.full_like(x, self.value)


def gaussian_denoiser(x: Tensor, sigma: float | Tensor, mean: float = 0.3, scale: float = 0.7) -> Tensor:
    """E[x_0 | x] for x_0 ~ N(mean, scale^2)."""
    variance = expand_sigma(sigma, x) ** 2
    return (scale**2 * x + variance * mean) / (scale**2 + variance)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_coefficients_by_hand(sigma_data: float) -> None:
    for sigma in SIGMAS.tolist():
        expected = (
            sigma_data**2 / (sigma**2 + sigma_data**2),
            sigma * sigma_data / math.hypot(sigma, sigma_data),
            1 / math.hypot(sigma, sigma_data),
            math.log(sigma) / 4,
        )
        found = edm_coefficients(torch.tensor(sigma, dtype=torch.float64), sigma_data)
        assert [value.item() for value in found] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_network_input_and_target_have_unit_variance(sigma_data: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = sigma_data * torch.randn(400_000, generator=generator, dtype=torch.float64)
    noise = torch.randn(400_000, generator=generator, dtype=torch.float64)
    for sigma in SIGMAS:
        c_skip, c_out, c_in, _ = edm_coefficients(sigma, sigma_data)
        x = x0 + sigma * noise
        assert (c_in * x).var().item() == pytest.approx(1, rel=0.01)
        target = (x0 - c_skip * x) / c_out
        assert target.var().item() == pytest.approx(1, rel=0.01)
        # Of all c_skip, EDM's leaves the least to the network: the target does not correlate with the input.
        assert abs((target * c_in * x).mean().item()) < 0.01


def test_loss_weight_undoes_the_output_scale() -> None:
    _, c_out, _, _ = edm_coefficients(SIGMAS, 0.5)
    torch.testing.assert_close(edm_loss_weight(SIGMAS, 0.5) * c_out**2, torch.ones(5, dtype=torch.float64))


def test_without_noise_the_input_and_with_much_noise_the_network() -> None:
    x = torch.linspace(-1, 1, 8).reshape(2, 1, 2, 2)
    denoiser = EDMDenoiser(Recorder(3.0), sigma_data=0.5)
    torch.testing.assert_close(denoiser(x, 1e-6), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoiser(x, 1e6), torch.full_like(x, 0.5 * 3.0), atol=1e-5, rtol=0)


def test_denoiser_assembles_the_network_call() -> None:
    network, x = Recorder(2.0), torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    sigma, label = torch.tensor([0.1, 1.0, 10.0]), torch.eye(3)
    output = EDMDenoiser(network, sigma_data=0.8)(x, sigma, class_labels=label)
    for i, s in enumerate(sigma.tolist()):
        total = s**2 + 0.64
        torch.testing.assert_close(network.called_with[0][i], x[i] / total**0.5)
        assert network.called_with[1][i].item() == pytest.approx(math.log(s) / 4, abs=1e-6)
        torch.testing.assert_close(output[i], 0.64 / total * x[i] + s * 0.8 / total**0.5 * 2.0)
    assert network.called_with[2]["class_labels"] is label


def test_defaults_are_those_of_edm_and_ddpm() -> None:
    """Guards what a denoiser is unless told otherwise."""
    network = Recorder(2.0)
    assert EDMDenoiser(network).sigma_data == 0.5
    ddpm, sigma = VPDenoiser(network), torch.tensor([0.3])
    assert ddpm.prediction_type == "epsilon" and len(ddpm.log_sigmas) == 1000
    assert 0 < ddpm.timestep(sigma).frac().item() < 1, "interpolated"
    torch.testing.assert_close(ddpm.loss_weight(sigma), sigma**-2)
    torch.testing.assert_close(EDMDenoiser(network, 0.8).loss_weight(sigma), edm_loss_weight(sigma, 0.8))


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan])
def test_sigma_data_must_be_positive(sigma_data: float) -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        EDMDenoiser(nn.Identity(), sigma_data)


def test_tweedie_on_a_gaussian() -> None:
    x = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(4, 3)
    for sigma in (0.05, 1.0, torch.tensor([0.1, 0.5, 2.0, 9.0])):
        score = score_from_denoiser(gaussian_denoiser, x, sigma)
        torch.testing.assert_close(score, (0.3 - x) / (0.49 + expand_sigma(sigma, x) ** 2))
        torch.testing.assert_close(denoiser_from_score(score, x, sigma), gaussian_denoiser(x, sigma))


def test_score_is_the_gradient_of_the_log_density() -> None:
    x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(3, 2).requires_grad_()
    log_density = torch.distributions.Normal(0.3, math.hypot(0.7, 0.4)).log_prob(x).sum()
    gradient = torch.autograd.grad(log_density, x)[0]
    torch.testing.assert_close(score_from_denoiser(gaussian_denoiser, x.detach(), 0.4), gradient)


def test_loss_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 2, 2, generator=generator)
    sigma = torch.tensor([0.1, 0.5, 1.0, 3.0])
    expected = []
    for i in range(4):
        noised = x0[i] + sigma[i] * noise[i]
        variance = sigma[i] ** 2
        denoised = (0.49 * noised + variance * 0.3) / (0.49 + variance)
        expected.append(sum((a - b) ** 2 for a, b in zip(denoised.flatten().tolist(), x0[i].flatten().tolist())))
    torch.testing.assert_close(dae_loss(gaussian_denoiser, x0, sigma, noise), torch.tensor(expected))


def test_posterior_mean_minimises_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = 0.3 + 0.7 * torch.randn(200_000, 1, generator=generator)
    noise = torch.randn(200_000, 1, generator=generator)
    best = dae_loss(gaussian_denoiser, x0, 0.5, noise).mean().item()
    assert best == pytest.approx(0.49 * 0.25 / (0.49 + 0.25), rel=0.02)  # the variance of the posterior
    for wrong in (0.9, 1.1):
        assert dae_loss(lambda x, s, w=wrong: w * gaussian_denoiser(x, s), x0, 0.5, noise).mean().item() > best


@pytest.mark.parametrize("sigma", [0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.full((3,), 0.5), 1])
def test_sigma_is_brought_to_the_shape_of_the_batch(sigma: float | Tensor) -> None:
    expanded = expand_sigma(sigma, torch.zeros(3, 2, 4, 4))
    assert expanded.shape == (3, 1, 1, 1)
    assert expanded.dtype == torch.float32
    assert expanded.unique().item() == float(sigma if isinstance(sigma, int | float) else sigma.flatten()[0])


def test_sigma_keeps_the_precision_of_the_data_but_never_half() -> None:
    assert expand_sigma(0.1, torch.zeros(2, 1, dtype=torch.float64)).dtype == torch.float64
    assert expand_sigma(0.002, torch.zeros(2, 1, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (0.0, "sigma .*positive and finite"),
        (-1.0, "sigma .*positive and finite"),
        (math.nan, "sigma .*positive and finite"),
        (math.inf, "sigma .*positive and finite"),
        (torch.tensor([1.0, 0.0, 1.0]), "sigma .*positive and finite"),
        (torch.ones(2), r"sigma .*\(3,\), got .*\(2,\)"),
        (torch.ones(3, 1), r"sigma .*\(3,\), got .*\(3, 1\)"),
    ],
)
def test_a_sigma_that_makes_no_sense_is_refused(sigma: float | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand_sigma(sigma, torch.zeros(3, 2))


class GaussianDDPM(nn.Module):
    """The optimal network of a DDPM for x_0 ~ N(0.3, 0.7^2), in each of the three parametrisations."""

    def __init__(self, prediction_type: str, alpha_bar: np.ndarray) -> None:
        super().__init__()
        self.prediction_type, self.alpha_bar = prediction_type, torch.as_tensor(alpha_bar)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        alpha_bar = self.alpha_bar[timestep.round().long()].reshape(-1, 1, 1, 1)
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        x0 = gaussian_denoiser(x / signal, (noise / signal).flatten())
        epsilon = (x - signal * x0) / noise
        return {"epsilon": epsilon, "sample": x0, "v_prediction": signal * epsilon - noise * x0}[self.prediction_type]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_ddpm_is_the_same_denoiser_whatever_it_predicts(kind: str) -> None:
    alpha_bar = ddpm_alpha_bar()
    sigma = torch.tensor([ddpm_sigma(step, alpha_bar) for step in (0, 100, 500, 999)], dtype=torch.float64)
    x = sigma[:, None, None, None] * torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    found = VPDenoiser(GaussianDDPM(kind, alpha_bar), alpha_bar, kind)(x, sigma)
    torch.testing.assert_close(found, gaussian_denoiser(x, sigma))


def test_a_ddpm_sees_unit_variance_and_the_time_step_of_sigma() -> None:
    model, x = Recorder(0.5), torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    alpha_bar = ddpm_alpha_bar()
    sigmas = torch.tensor([ddpm_sigma(10, alpha_bar), ddpm_sigma(700, alpha_bar)])
    found = VPDenoiser(model)(x, sigmas, class_labels=x)
    seen, timestep, conditions = model.called_with
    scale = torch.tensor([alpha_bar[10], alpha_bar[700]]).sqrt().float()[:, None, None, None]
    torch.testing.assert_close(seen, scale * x)
    torch.testing.assert_close(timestep, torch.tensor([10.0, 700.0]), atol=1e-2, rtol=0)
    assert conditions["class_labels"] is x
    torch.testing.assert_close(found, x - sigmas[:, None, None, None] * 0.5)


def test_time_steps_between_those_of_the_schedule() -> None:
    alpha_bar = ddpm_alpha_bar()
    grid = ddpm_sigma(np.arange(1000), alpha_bar)
    between = torch.as_tensor(np.sqrt(grid[1:] * grid[:-1]))  # half-way in log sigma
    steps = VPDenoiser(Recorder(0)).timestep(between)
    torch.testing.assert_close(steps, torch.arange(999) + 0.5, atol=0.02, rtol=0)
    sigmas = torch.tensor([0.02, 0.1, 1.0, 30.0])
    whole = VPDenoiser(Recorder(0), interpolate=False).timestep(sigmas)
    assert whole.tolist() == ddpm_timestep(sigmas.numpy(), alpha_bar).tolist()


def test_noise_levels_outside_a_schedule() -> None:
    denoiser = VPDenoiser(Recorder(0.0))
    assert denoiser.timestep(torch.tensor([0.002, denoiser.sigma_min, denoiser.sigma_max])).tolist() == [0, 0, 999]
    with pytest.raises(ValueError, match="sigma .*157.4"):
        denoiser(torch.zeros(1, 1, 2, 2), 200.0)


def test_rounding_above_the_schedule_is_allowed_and_no_more() -> None:
    """Guards the tolerance at the largest sigma, and that the last time step is not exceeded there."""
    denoiser = VPDenoiser(Recorder(0.0))
    assert denoiser.timestep(torch.tensor([denoiser.sigma_max * (1 + 5e-5)])).tolist() == [999]
    assert VPDenoiser(Recorder(0.0), [0.9, 0.5]).timestep(torch.ones(1)).tolist() == [1], "two steps are a schedule"
    with pytest.raises(ValueError, match="sigma"):
        denoiser.timestep(torch.tensor([denoiser.sigma_max * (1 + 2e-4)]))


@pytest.mark.parametrize(
    "alpha_bar", [[0.9], [0.5, 0.6], [0.5, 0.5], [1.0, 0.5], [0.5, 0.0], [[0.5, 0.4]], [0.5, float("nan")]]
)
def test_schedules_that_are_none_are_refused(alpha_bar: list) -> None:
    with pytest.raises(ValueError, match="alpha_bar"):
        VPDenoiser(Recorder(0), alpha_bar)
    with pytest.raises(ValueError, match="prediction_type .*'flow'"):
        VPDenoiser(Recorder(0), prediction_type="flow")


def test_a_vp_denoiser_keeps_its_schedule_out_of_the_weights() -> None:
    assert list(VPDenoiser(nn.Linear(1, 1)).state_dict()) == ["model.weight", "model.bias"]


def test_a_plain_denoiser_is_its_network_and_tells_it_the_level() -> None:
    def network(x: Tensor, label: Tensor) -> Tensor:
        return x * label[:, None].exp()

    denoiser, x = PlainDenoiser(network), torch.ones(2, 3)
    sigma = torch.tensor([0.0016, 16.0])
    torch.testing.assert_close(denoiser(x, sigma), torch.tensor([[0.2], [2.0]]).expand(2, 3))
    torch.testing.assert_close(denoiser(x, 16.0), torch.full((2, 3), 2.0))
    assert torch.equal(denoiser.loss_weight(sigma), torch.ones(2))
    with pytest.raises(ValueError, match="sigma"):
        denoiser(x, 0.0)
