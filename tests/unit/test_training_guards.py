"""What a step does with gradient, rate, clock and random numbers: changes of these that would show in no loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from torch import nn

from repdyn import datasets
from repdyn.training import Batch, LogNormal, NoWeight, TrainConfig, batches, train


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The norm of the gradient and the learning rate with which the optimiser is stepped, step by step."""
    original, seen = torch.optim.AdamW.step, []

    def step(self: torch.optim.Optimizer, *args: object, **options: object) -> object:
        (group,) = self.param_groups
        norms = [weight.grad.norm() for weight in group["params"] if weight.grad is not None]
        seen.append((torch.stack(norms).norm().item(), group["lr"]))
        return original(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


def test_the_gradient_is_clipped_to_the_norm_of_the_configuration(
    tiny: TrainConfig, stepped: list[tuple[float, float]]
) -> None:
    list(train(replace(tiny, grad_clip=1e-3), cpu=True))
    assert [norm for norm, _ in stepped] == pytest.approx([1e-3] * tiny.steps, rel=1e-2)
    stepped.clear()
    list(train(replace(tiny, grad_clip=1e9), cpu=True))
    assert min(norm for norm, _ in stepped) > 1e-2, "so there was something to clip"


def test_the_learning_rate_stays_after_the_warm_up(tiny: TrainConfig, stepped: list[tuple[float, float]]) -> None:
    list(train(replace(tiny, learning_rate=1e-3, warmup_images=40), cpu=True))
    assert [rate for _, rate in stepped] == pytest.approx([0.4e-3, 0.8e-3, *[1e-3] * 4])


def dropout_seeds(config: TrainConfig) -> list[int]:
    """The seed of what is random in the network, in each step."""
    seen = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        seen.append(torch.initial_seed())
        return model(batch.x0, batch.sigma).square().flatten(1).mean(1)

    list(train(replace(config, weighting=NoWeight()), objective=objective, cpu=True))
    return seen


def test_dropout_is_drawn_anew_in_each_step_and_process(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = dropout_seeds(tiny), dropout_seeds(replace(tiny, seed=4))
    monkeypatch.setattr(Accelerator, "process_index", property(lambda _: 1))
    second = dropout_seeds(tiny)
    assert len({*first, *second, *other}) == 3 * tiny.steps
    for process, seeds in enumerate((first, second)):
        assert seeds == [batches.dropout_seed(tiny, step, process) for step in range(tiny.steps)]


def test_the_state_is_saved_every_two_minutes(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each step but the first takes 50 seconds: 150 are the first that are more than 120."""
    state_file, now = tmp_path / "state.safetensors", [0.0]
    monkeypatch.setattr("repdyn.training.state.time", SimpleNamespace(monotonic=lambda: now[0]))
    saved, steps = [], train(replace(tiny, images=8 * 16), state_file, cpu=True)

    def saved_step() -> int:
        with safe_open(state_file, "pt") as file:
            return int(file.metadata()["step"])

    for _ in range(8):
        now[0] += 50
        next(steps)
        saved.append(saved_step() if state_file.exists() else 0)
    assert saved == [0, 0, 0, 4, 4, 4, 7, 8]


def test_augmentation_has_random_numbers_of_its_own(tiny: TrainConfig) -> None:
    """From the stream of the noise levels, the first transform would be known from them: by Box and Muller's method
    two levels, eight places apart, give back the uniform number that would decide on it."""
    config = replace(
        tiny, network=replace(tiny.network, augment_dim=6), augment=0.5, batch_size=3200, levels=LogNormal(0.0, 1.0)
    )
    batch = batches.draw(0, config, datasets.load("digits"))
    normal = batch.sigma.log().reshape(-1, 2, 8)
    uniform = 1 - (-normal.square().sum(1) / 2).exp()  # (blocks, 8)
    mirrored = batch.conditions["augment_labels"][:, 0].reshape(-1, 2, 8)[:, 0]
    agree = ((uniform < 0.5) == mirrored.bool()).float().mean().item()
    assert agree == pytest.approx(0.5, abs=0.06)
