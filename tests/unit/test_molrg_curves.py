"""A DDPM that learns the MoLRG: convergence to the posterior mean, memory, and what the measurements are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from repdyn.chapters.ddpm import measure as molrg_curves
from repdyn.chapters.ddpm.measure import (
    LearningConfig,
    SweepConfig,
    distance,
    excess_losses,
    learn_mixture,
    measure,
    measure_learning,
    readings,
)
from repdyn.features import extract
from repdyn.metrics import class_bases
from repdyn.networks import MLPDenoiser, MoLRGDenoiser
from repdyn.probes import LinearProbe
from repdyn.records.variants import grid
from repdyn.theory import csnr
from repdyn.theory.empirical import EmpiricalDenoiser, LinearDenoiser

SMALL = LearningConfig(
    n=8, d=1, num_train=8000, hidden=128, images=128_000, timesteps=(1, 40, 100, 160, 240), num_tests=1, num_probe=500,
    checkpoints=4,
)  # fmt: skip
TINY = replace(SMALL, num_train=300, hidden=16, images=2560, num_test=200, num_tests=2, timesteps=(1, 160, 280))


def test_the_network_converges_to_the_posterior_mean() -> None:
    """Excess loss, on average over levels: 0.13, 0.10, 0.060, 0.035 as measured with two seeds, then 0.021."""
    result = measure(SMALL)
    excess = np.array([stage["excess"] for stage in result["checkpoints"]])  # (stages, S)
    assert [stage["images"] for stage in result["checkpoints"]] == [16_000, 32_000, 64_000, 128_000]
    mean = excess.mean(1)
    assert (mean[1:] < 0.8 * mean[:-1]).all() and 0.01 < mean[-1] < 0.05, mean
    assert excess[-1].max() < 0.09
    # The middle levels are those where the best linear filter, which knows no classes, is far from the optimum.
    linear = np.array(result["linear_excess"])
    assert (linear[2:4] > 0.1).all() and (excess[-1, 2:4] < 0.5 * linear[2:4]).all()
    # And with the classes comes the peak of the CSNR, that a linear filter has not.
    ratio = np.mean(result["checkpoints"][-1]["posterior_csnr"], 0)
    assert ratio[2:4].max() > 2 * max(ratio[0], ratio[-1])


def test_a_network_memorises_five_samples_and_not_many() -> None:
    config = replace(SMALL, n=4, images=64_000, checkpoints=1, timesteps=(100, 160))
    few, many = (measure(replace(config, num_train=num))["checkpoints"][0] for num in (5, 4000))
    # Measured: 0.91 and 0.97 of the way, losses 0.48 and 0.40 on the five, excesses 1.7 and 0.8 elsewhere.
    assert min(few["memorised"]) > 0.8 and max(few["train_loss"]) < 0.65 and min(few["excess"]) > 0.5
    assert min(many["train_loss"]) > 0.9 and max(many["excess"]) < 0.2


def test_worlds_are_drawn_from_the_seed_alone_and_share_no_sample() -> None:
    own, again, other = (molrg_curves.world(replace(TINY, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(own.x, again.x) and not torch.equal(own.x, other.x)
    sets = [own.x, own.probed[0], *(x for x, _ in own.tests)]
    assert [len(x) for x in sets] == [300, 500, 200, 200] and all(x.dtype == torch.float32 for x in sets)
    assert len(torch.cat(sets).unique(dim=0)) == 1200
    assert not torch.equal(own.model.bases[0], other.model.bases[0])
    # The labels belong to the samples: its own subspace holds most of each.
    x, labels = own.tests[1]
    assert csnr.csnr(x, labels, own.model.bases) == pytest.approx(1 / (2 * 0.2**2), rel=0.4)


def test_the_levels_are_those_of_the_time_steps() -> None:
    steps = replace(TINY, timesteps=(0, 280))
    betas = np.linspace(1e-4, 0.02, 1000)
    expected = [np.sqrt(1 / np.prod(1 - betas[: t + 1]) - 1) for t in (0, 280)]
    np.testing.assert_allclose(molrg_curves.sigmas(steps), expected)


def test_the_distance_is_the_excess_of_the_loss() -> None:
    own = molrg_curves.world(replace(TINY, num_test=20_000))
    (x, _), noise = own.tests[0], torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 0.8):
        loss, least = ((d(x + sigma * noise, sigma) - x).square().sum(1).mean() for d in (lambda y, _: y, own.model))
        found = distance(lambda y, _: y, own.model, x, sigma, noise)
        assert found == pytest.approx((loss / least).item() - 1, rel=0.03)
        assert distance(own.model, own.model, x, sigma, noise) == 0


def test_references_have_the_losses_they_should() -> None:
    own, levels = molrg_curves.world(TINY), molrg_curves.sigmas(TINY)
    best, copy = (excess_losses(denoiser, own, levels, 0) for denoiser in (own.model, EmpiricalDenoiser(own.x)))
    assert max(best["excess"]) < 1e-9 and max(best["memorised"]) < 1e-9
    assert min(copy["memorised"]) == 1 and copy["train_loss"][0] < 1e-6
    assert (np.array(copy["train_loss"]) < best["train_loss"]).all(), "no function does better on its own data"


def test_stops_are_halvings_and_the_average_is_not_the_last() -> None:
    own = molrg_curves.world(TINY)
    found = []
    for images, denoiser in learn_mixture(TINY, own.x):
        found.append((images, denoiser.model.output.bias.clone()))
    assert [images for images, _ in found] == [256, 640, 1280, 2560], "of 20 steps: 2, 5, 10, 20"
    ((_, last),) = learn_mixture(replace(TINY, ema=False, checkpoints=1), own.x)
    assert not torch.allclose(last.model.output.bias, found[-1][1], atol=1e-6)
    ((_, other),) = learn_mixture(replace(TINY, checkpoints=1, seed=1), own.x)
    assert not torch.allclose(other.model.output.bias, found[-1][1], atol=1e-3)


def test_only_the_first_time_steps_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = []
    monkeypatch.setattr(molrg_curves.training, "train", lambda config, **_: iter(configs.append(config) or ()))
    assert list(learn_mixture(replace(TINY, schedule=7), torch.zeros(2, 8))) == []
    np.testing.assert_allclose(configs[0].levels.sigmas, molrg_curves.sigmas(replace(TINY, timesteps=range(7))))


def test_readings_against_one_probe_at_a_time() -> None:
    own, network = molrg_curves.world(TINY), MLPDenoiser(8, hidden=16, seed=3)
    found = readings(network, own, TINY, hidden=True)
    assert found.keys() == {f"{part}_{kind}" for part in ("posterior", "hidden2") for kind in ("accuracy", "csnr")}
    assert all(np.shape(values) == (2, 3) for values in found.values())
    (x, y), (test, labels) = own.probed, own.tests[1]
    sigma = molrg_curves.sigmas(TINY)[1].item()
    fitted, read = (extract(network, part, sigma) for part in (x, test))
    posterior, hidden = read["posterior"], read["hidden2"]
    assert found["posterior_csnr"][1][1] == pytest.approx(csnr.csnr(posterior, labels, own.model.bases), rel=1e-5)
    bases = class_bases(fitted["hidden2"], y, 1)
    assert found["hidden2_csnr"][1][1] == pytest.approx(csnr.csnr(hidden, labels, bases), rel=1e-5)
    probe = LinearProbe(l2=TINY.l2).fit(fitted["posterior"].abs(), y)
    assert found["posterior_accuracy"][1][1] == pytest.approx(probe.score(posterior.abs(), labels.numpy()), abs=0.011)
    probe = LinearProbe(l2=TINY.l2).fit(fitted["hidden2"], y)
    assert found["hidden2_accuracy"][1][1] == pytest.approx(probe.score(hidden, labels.numpy()), abs=0.011)
    assert readings(network, own, TINY).keys() == {"posterior_accuracy", "posterior_csnr"}


def test_readings_of_the_optimum_are_the_theory_and_of_a_filter_flat() -> None:
    config = replace(TINY, n=30, d=5, num_train=20_000, num_test=4000)
    own = molrg_curves.world(config)
    optimal = MoLRGDenoiser(30, 5, 3, 0.2)
    optimal.bases = torch.stack(own.model.bases).float()
    measured = np.mean(readings(optimal, own, config)["posterior_csnr"], 0)
    np.testing.assert_allclose(measured, csnr.exact(molrg_curves.sigmas(config), d=5, K=3, delta=0.2), rtol=0.08)
    flat = np.mean(readings(LinearDenoiser(own.x), own, config)["posterior_csnr"], 0)
    np.testing.assert_allclose(flat, 12.5, rtol=0.05)


def test_a_sweep_is_each_change_with_each_seed_and_goes_on_from_its_folder(tmp_path: Path, monkeypatch) -> None:
    seeds = (0, 1)
    changed = (*grid(num_train=(20,), checkpoints=(1,), seeds=seeds), *grid(delta=(0.3,), seeds=seeds))
    sweep = SweepConfig(TINY, (*grid(seeds=seeds), *changed))
    runs = measure_learning(sweep, cache=tmp_path / "runs")["runs"]
    assert runs == json.loads(json.dumps(runs)), "plain lists only"
    expected = [({}, 0), ({}, 1), ({"num_train": 20, "checkpoints": 1}, 0)]
    assert [(run["change"], run["seed"]) for run in runs[:3]] == expected and len(runs) == 6
    assert [len(run["checkpoints"]) for run in runs] == [4, 4, 1, 1, 4, 4]
    alone = measure(replace(TINY, delta=0.3, seed=1))
    assert {key: runs[-1][key] for key in alone} == alone
    assert len(list((tmp_path / "runs").iterdir())) == 6
    monkeypatch.setattr(molrg_curves, "measure", lambda config: pytest.fail("measured again"))
    assert measure_learning(sweep, cache=tmp_path / "runs")["runs"] == runs


def test_a_change_of_what_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        measure_learning(SweepConfig(TINY, grid(colour=(1,))))
