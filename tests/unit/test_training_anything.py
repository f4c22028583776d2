"""Training of a denoiser and data of one's own: levels, weightings, and refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

from repdyn import training
from repdyn.denoisers import dae_loss, edm_loss_weight
from repdyn.networks import MLPDenoiser, MoLRGDenoiser, UNetConfig
from repdyn.theory.molrg import NoisyMoLRG
from repdyn.training import (
    DDPMSteps,
    EDMWeight,
    EpsilonWeight,
    Listed,
    NoWeight,
    OwnWeight,
    TrainConfig,
    batches,
    train,
)

MODEL = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0)
DATA = MODEL.sample(300, seed=1)[0].float()
CONFIG = TrainConfig(
    dataset="molrg",
    network=None,
    images=6_400,
    batch_size=64,
    learning_rate=3e-3,
    warmup_images=0,
    levels=DDPMSteps(),
    precision="float32",
)


def last(config: TrainConfig, **options: object) -> training.Step:
    *_, step = train(config, cpu=True, **options)
    return step


@pytest.mark.parametrize("make", [lambda: MLPDenoiser(12, hidden=64), lambda: MoLRGDenoiser(12, 2, 3)])
def test_any_denoiser_learns_any_data_and_the_one_passed_stays_as_it_was(make: object) -> None:
    denoiser, noise = make(), torch.randn(300, 12, generator=torch.Generator().manual_seed(2))
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    trained = last(CONFIG, denoiser=denoiser, data=DATA).denoiser
    after = denoiser.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert dae_loss(trained, DATA, 0.5, noise).mean() < 0.85 * dae_loss(denoiser, DATA, 0.5, noise).mean()


def test_rows_of_any_shape() -> None:
    step = last(replace(CONFIG, images=128), denoiser=MLPDenoiser(12, hidden=8), data=DATA.view(-1, 3, 4))
    assert math.isfinite(step.loss)


def test_data_in_double_precision_is_brought_to_the_network_s() -> None:
    step = last(replace(CONFIG, images=128), denoiser=MLPDenoiser(12, hidden=8), data=DATA.double())
    assert math.isfinite(step.loss)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(12), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


def test_the_average_has_the_statistics_of_what_it_averages() -> None:
    step = last(replace(CONFIG, weighting=NoWeight(), levels=Listed((0.1,))), denoiser=Normalised(), data=DATA + 10)
    assert torch.equal(step.ema.norm.running_mean, step.denoiser.norm.running_mean)
    assert step.ema.norm.running_mean.min() > 5


def test_trainings_on_cpu_and_gpu_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook; the device "meta" takes the GPU's place, on which accelerate settles at its first use."""
    config = replace(CONFIG, images=64)
    monkeypatch.setattr(PartialState, "default_device", property(lambda _: torch.device("meta")))
    for first in (lambda: last(config, denoiser=MLPDenoiser(12, hidden=8), data=DATA), Accelerator):
        AcceleratorState._reset_state(reset_partial_state=True)
        first()
        assert Accelerator().device.type == "meta"
        assert last(config, denoiser=MLPDenoiser(12, hidden=8), data=DATA).step == 1
    AcceleratorState._reset_state(reset_partial_state=True)


def test_only_the_given_levels_are_drawn_and_evenly() -> None:
    config = replace(CONFIG, levels=Listed((0.1, 2.0, 5.0)))
    levels = torch.cat([batches.draw(i, config, batches.unlabelled(DATA)).sigma for i in range(40)])
    values, counts = levels.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.1, 2.0, 5.0]))
    assert counts.min() > 0.28 * len(levels)


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [
        (NoWeight(), 1.0),
        (EpsilonWeight(), 4.0),
        (OwnWeight(), 4.0),
        (EDMWeight(0.7), edm_loss_weight(torch.tensor(0.5), 0.7).item()),
    ],
)
def test_loss_of_the_first_step_by_hand(
    weighting: OwnWeight | EDMWeight | EpsilonWeight | NoWeight, weight: float
) -> None:
    config = replace(CONFIG, levels=Listed((0.5,)), weighting=weighting)
    denoiser = MLPDenoiser(12, hidden=8)
    batch = batches.draw(0, config, batches.unlabelled(DATA))
    with torch.no_grad():
        expected = weight * dae_loss(denoiser, batch.x0, 0.5, batch.noise).mean() / 12
    assert next(train(config, denoiser=denoiser, data=DATA, cpu=True)).loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_training_goes_on_from_its_state_to_the_same_bits(tmp_path: Path) -> None:
    config = replace(CONFIG, images=640, levels=Listed((0.5, 1.0)))
    state = tmp_path / "state.safetensors"
    options = {"denoiser": MoLRGDenoiser(12, 2, 3), "data": DATA}
    for step in train(config, state, cpu=True, save_every_s=0, **options):
        if step.step == 4:
            break
    resumed = list(train(config, state, cpu=True, **options))
    assert [step.step for step in resumed] == list(range(4, 11))
    whole = last(config, **options)
    for name in ("denoiser", "ema"):
        got, expected = getattr(resumed[-1], name).state_dict(), getattr(whole, name).state_dict()
        assert all(torch.equal(got[key], expected[key]) for key in expected)
    with pytest.raises(ValueError, match="another denoiser"):
        next(train(replace(config), state, denoiser=MLPDenoiser(12, hidden=8), data=DATA, cpu=True))


class Bare(nn.Linear):
    """A denoiser that does not say how its loss is weighted."""

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def test_a_denoiser_without_weight_needs_a_weighting() -> None:
    assert math.isfinite(last(replace(CONFIG, images=64, weighting=NoWeight()), denoiser=Bare(12, 12), data=DATA).loss)
    with pytest.raises(ValueError, match="loss_weight"):
        last(CONFIG, denoiser=Bare(12, 12), data=DATA)


def test_without_denoiser_and_network_there_is_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="config.network"):
        last(CONFIG, data=DATA)


@pytest.mark.parametrize(
    "data", [DATA.to(torch.int64), DATA[:0], DATA[:, 0], DATA.masked_fill(DATA > 1, float("nan"))], ids=str
)
def test_data_that_is_none_is_refused(data: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="data"):
        last(CONFIG, denoiser=MLPDenoiser(12, hidden=8), data=data)


def test_what_data_of_ones_own_cannot_do() -> None:
    with pytest.raises(ValueError, match="flip"):
        last(replace(CONFIG, flip=True), denoiser=MLPDenoiser(12, hidden=8), data=DATA)
    network = UNetConfig(resolution=4, channels=1, num_classes=2)
    with pytest.raises(ValueError, match="labels"):
        last(replace(CONFIG, network=network), denoiser=MLPDenoiser(12, hidden=8), data=DATA)


@pytest.mark.parametrize(
    ("field", "value"),
    [("levels", "edm"), ("levels", None), ("preconditioning", "ve"), ("weighting", "loud"), ("augment", 0.1)],
)
def test_a_configuration_that_cannot_train_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})
