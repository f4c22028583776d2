"""The denoisers of vectors, beside the closed form that they are to learn."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from repdyn.denoisers import dae_loss
from repdyn.features import POSTERIOR, extract, layers
from repdyn.networks import MLP, MLPDenoiser, MoLRGDenoiser
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma
from repdyn.sampling import sample
from repdyn.theory.molrg import NoisyMoLRG

LEVELS = ddpm_sigma(np.arange(1000), ddpm_alpha_bar())


@pytest.fixture(scope="module")
def model() -> NoisyMoLRG:
    return NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0)


@pytest.fixture(scope="module")
def data(model: NoisyMoLRG) -> Tensor:
    return model.sample(4000, 1)[0].float()


def train(denoiser: torch.nn.Module, data: Tensor, sigmas: Tensor, steps: int, lr: float) -> None:
    """Adam on DDPM's weighting of the DAE loss, the noise level of each sample drawn from ``sigmas``."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (512,), generator=generator)]
        noise = torch.randn(x0.shape, generator=generator)
        sigma = sigmas[torch.randint(len(sigmas), (len(x0),), generator=generator)]
        optimizer.zero_grad()
        (dae_loss(denoiser, x0, sigma, noise) / sigma**2).mean().backward()
        optimizer.step()


# ------------------------------------------------------------------------------------------------------------- MLP


def test_the_network_is_asked_as_a_ddpm_is() -> None:
    """At the level of time step t: eps(sqrt(abar_t) x, t), with the embedding of t, by hand."""
    denoiser, t = MLPDenoiser(5, hidden=16), torch.tensor([0, 1, 400, 999])
    network = denoiser.model
    assert network.hidden[0][0].in_features == 5 + 128 and len(network.hidden) == 2
    sigma = torch.as_tensor(LEVELS[t], dtype=torch.float32)[:, None]
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    xt = x * torch.as_tensor(ddpm_alpha_bar()[t], dtype=torch.float32).sqrt()[:, None]
    angles = t[:, None] * 10_000 ** -torch.linspace(0, 1, 64)
    h = torch.cat([xt, angles.sin(), angles.cos()], dim=1)
    for layer in network.hidden:
        h = torch.relu(h @ layer[0].weight.T + layer[0].bias)
    eps = h @ network.output.weight.T + network.output.bias
    torch.testing.assert_close(denoiser(x, sigma[:, 0]), x - sigma * eps, rtol=1e-3, atol=1e-3)


def test_hidden_layers_of_any_width_and_dropout_in_training_only() -> None:
    torch.manual_seed(0)
    network, x, label = MLP(4, (32, 3), dropout=0.5), torch.randn(6, 1, 2, 2), torch.linspace(-1.5, 0.3, 6)
    assert [layer[0].out_features for layer in network.hidden] == [32, 3]
    assert list(network.feature_layers()) == ["hidden1", "hidden2"]
    assert not torch.equal(network(x, label), network(x, label))
    network.eval()
    output = network(x, label)
    assert output.shape == x.shape and torch.equal(output, network(x, label))
    assert not torch.allclose(output, network(x, label + 0.1))  # it is told the noise level


@pytest.mark.parametrize(
    ("arguments", "named"), [((0, (4,)), "n"), ((4, ()), "widths"), ((4, (0,)), "widths"), ((4, (4,), 1.0), "dropout")]
)
def test_sizes_that_make_no_network_are_refused(arguments: tuple, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} "):
        MLP(*arguments)


def test_time_is_continuous_in_sigma() -> None:
    denoiser = MLPDenoiser(3, hidden=4)
    between = torch.as_tensor(np.sqrt(LEVELS[[10, 500]] * LEVELS[[11, 501]]), dtype=torch.float32)
    torch.testing.assert_close(denoiser.timestep(between), torch.tensor([10.5, 500.5]), rtol=0, atol=1e-3)
    ends = torch.tensor([1e-6, LEVELS[0], LEVELS[-1]], dtype=torch.float32)
    torch.testing.assert_close(denoiser.timestep(ends), torch.tensor([0.0, 0, 999]))
    with pytest.raises(ValueError, match="^sigma .*157"):
        denoiser(torch.zeros(1, 3), 200.0)


def test_dae_loss_over_variance_is_the_error_of_the_noise() -> None:
    denoiser, generator = MLPDenoiser(4, hidden=8), torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 4, generator=generator)
    sigma = torch.linspace(0.5, 3, 6)
    x = x0 + sigma[:, None] * noise
    eps = (x - denoiser(x, sigma)) / sigma[:, None]
    expected = (eps - noise).square().sum(1)
    torch.testing.assert_close(dae_loss(denoiser, x0, sigma, noise) / sigma**2, expected, rtol=1e-4, atol=1e-4)


def test_training_passes_the_best_linear_denoiser() -> None:
    """Half the way, or more, from the Wiener filter of the data's covariance to the posterior mean."""
    model = NoisyMoLRG.random(n=6, d=1, K=3, delta=0.2, seed=0)
    data, clean = (model.sample(4000, seed)[0].float() for seed in (1, 2))
    denoiser = MLPDenoiser(6, hidden=128)
    train(denoiser, data, torch.as_tensor(LEVELS[60:200:10], dtype=torch.float32), steps=600, lr=1e-2)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    covariance = data.T @ data / len(data)

    def wiener(x: Tensor, sigma: float) -> Tensor:
        return x @ torch.linalg.solve(covariance + sigma**2 * torch.eye(6), covariance)

    for sigma in (0.3, 0.4, 0.5):
        loss, least, linear = (dae_loss(d, clean, sigma, noise).mean() for d in (denoiser, model, wiener))
        assert least < loss < (least + linear) / 2, sigma


def test_seed_sets_the_weights_and_shapes_are_kept() -> None:
    state = torch.get_rng_state()
    a, b, c = MLPDenoiser(4, 8), MLPDenoiser(4, 8), MLPDenoiser(4, 8, seed=1)
    assert torch.equal(state, torch.get_rng_state()), "the global generator moved"
    x = torch.randn(3, 1, 2, 2)
    assert a(x, 0.5).shape == x.shape and torch.equal(a(x, 0.5).flatten(1), b(x.flatten(1), 0.5))
    assert not torch.allclose(a(x, 0.5), c(x, 0.5))
    assert not [name for name in a.state_dict() if "sigma" in name], "the schedule is no weight"


def test_features_of_vectors_are_the_hidden_layers(data: Tensor) -> None:
    denoiser = MLPDenoiser(12, hidden=32, layers=4)
    assert layers(denoiser) == ["hidden1", "hidden2", "hidden3", POSTERIOR]
    found = extract(denoiser, data[:20], 0.4, batch_size=7)
    assert [value.shape for value in found.values()] == [(20, 32)] * 3 + [(20, 12)]
    with torch.no_grad():
        output = denoiser.model.output(found["hidden3"])
        torch.testing.assert_close(found[POSTERIOR], data[:20] - 0.4 * output, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(denoiser.model.hidden[2](found["hidden2"]), found["hidden3"], rtol=1e-5, atol=1e-5)
    assert found["hidden1"].min() == 0, "after the ReLU"
    assert list(extract(denoiser, data[:5], 0.4, ["hidden2"], noisy_input=True, draws=2)) == ["hidden2"]


@pytest.mark.parametrize(("name", "value"), [("n", 0), ("hidden", 0), ("layers", 1), ("num_steps", 1)])
def test_what_is_no_mlp_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} .*{value}"):
        MLPDenoiser(**{"n": 3} | {name: value})


@pytest.mark.parametrize("denoiser", [MLPDenoiser(3, 4), MoLRGDenoiser(3, 1, 2)])
def test_samples_of_another_size_and_bad_levels_are_refused(denoiser: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="^x .*2, 4"):
        denoiser(torch.zeros(2, 4), 1.0)
    with pytest.raises(ValueError, match="^sigma"):
        denoiser(torch.zeros(2, 3), 0.0)


# ------------------------------------------------------------------------------------------------ learnable subspaces


@pytest.mark.parametrize("delta", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("orthogonal", [True, False])
def test_it_is_the_posterior_mean_of_its_bases(delta: float, orthogonal: bool) -> None:
    model = NoisyMoLRG.random(n=9, d=2, K=4, delta=delta, seed=0, orthogonal=orthogonal)
    denoiser = MoLRGDenoiser(9, 2, 4, delta).double()
    denoiser.fixed_delta.fill_(delta)  # to double precision
    denoiser.bases = torch.stack(model.bases)
    torch.testing.assert_close(denoiser.bases, torch.stack(model.bases), rtol=0, atol=1e-12)
    x = 2 * torch.randn(50, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, sigma), model.posterior_mean(x, sigma), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser(x, 0.7), NoisyMoLRG(denoiser.bases, delta)(x, 0.7), rtol=1e-9, atol=1e-9)
    images = x.reshape(50, 1, 3, 3)
    assert torch.equal(denoiser(images, 0.7).flatten(1), denoiser(x, 0.7))


def test_gradients_are_those_of_the_loss() -> None:
    denoiser = MoLRGDenoiser(5, 2, 2, delta=0.3, learn_delta=True).double()
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 7, 5, dtype=torch.float64, generator=generator)
    dae_loss(denoiser, x0, 0.6, noise).mean().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad.abs().max() > 1e-3
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        if "bases" in name:  # the rest of the matrix is signs, which an optimiser leaves alone
            assert (parameter.grad.triu() == 0).all()
            direction = direction.tril(-1)
        values = []
        for step in (1e-5, -1e-5):
            moved = copy.deepcopy(denoiser)
            moved.get_parameter(name).data += step * direction
            values.append(dae_loss(moved, x0, 0.6, noise).mean().item())
        assert (parameter.grad * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_adam_recovers_the_subspaces(model: NoisyMoLRG, data: Tensor) -> None:
    denoiser = MoLRGDenoiser(12, 2, 3, delta=0.35, learn_delta=True)
    noise = torch.randn(3, 12, 2, generator=torch.Generator().manual_seed(4))
    denoiser.bases = torch.linalg.qr(torch.stack(model.bases).float() + 0.15 * noise).Q
    assert denoiser.delta.item() == pytest.approx(0.35)

    def angle() -> float:
        learned = denoiser.bases.detach().numpy()
        return max(subspace_angles(a, b).max() for a, b in zip(learned, model.bases))

    before = angle()
    train(denoiser, data, torch.tensor([0.1, 0.2, 0.4]), steps=250, lr=1e-2)
    assert before > 0.4 and angle() < 0.12
    assert denoiser.delta.item() == pytest.approx(0.2, abs=0.02)
    error = denoiser.bases.mT @ denoiser.bases - torch.eye(2)
    assert error.abs().max() < 1e-5, "no longer orthonormal"


def test_it_is_a_denoiser_like_any_other(data: Tensor) -> None:
    denoiser = MoLRGDenoiser(12, 2, 3)
    assert torch.equal(denoiser.bases, MoLRGDenoiser(12, 2, 3).bases)
    assert not torch.allclose(denoiser.bases, MoLRGDenoiser(12, 2, 3, seed=1).bases)
    assert extract(denoiser, data[:9], 0.3)[POSTERIOR].shape == (9, 12)
    assert sample(denoiser, (5, 12), [10.0, 1.0, 0.1], seed=0).shape == (5, 12)
    restored = MoLRGDenoiser(12, 2, 3, seed=1)
    restored.load_state_dict(denoiser.state_dict())
    assert torch.equal(restored(data, 0.3), denoiser(data, 0.3))
    assert max(p.numel() for p in denoiser.state_dict().values()) == 3 * 12 * 2, "an n x n matrix"


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((3, 4, 1), {}, "d"),
        ((3, 1, 0), {}, "K"),
        ((3, 1, 2), {"delta": 1.0}, "delta"),
        ((3, 1, 2), {"delta": 0.0, "learn_delta": True}, "delta"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments: tuple, options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} "):
        MoLRGDenoiser(*arguments, **options)
