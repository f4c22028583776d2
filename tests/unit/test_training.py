"""Training: determinism, resume after a kill, refusal of foreign and damaged states, and every formula on the way."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from repdyn import datasets, pretrained, training
from repdyn.networks import UNet, UNetConfig
from repdyn.noise import ddpm_alpha_bar, ddpm_timestep
from repdyn.training import EDM, VP, DDPMSteps, Epsilon, TrainConfig, batches, config_from_dict, make_denoiser, train


def run(config: TrainConfig, state_file: Path | None = None, **options: object) -> dict[str, Tensor]:
    """All weights, and their averages, at the end of a training."""
    *_, last = train(config, state_file, cpu=True, **options)
    return weights(last)


def weights(step: training.Step) -> dict[str, Tensor]:
    state = {f"model.{k}": v.clone() for k, v in step.denoiser.state_dict().items()}
    return state | {f"ema.{k}": v.clone() for k, v in step.ema.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata() or {}


# -------------------------------------------------------------------------------------------------- determinism


def test_the_seed_determines_the_weights(tiny: TrainConfig) -> None:
    torch.manual_seed(11)
    first = run(tiny)
    torch.manual_seed(22)
    torch.rand(5)
    assert same(first, run(tiny))
    assert not same(first, run(replace(tiny, seed=4)))


def test_training_leaves_the_global_generator_alone(tiny: TrainConfig) -> None:
    before = torch.random.get_rng_state()
    run(tiny)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_seed_determines_the_initial_weights(tiny: TrainConfig) -> None:
    first, again, other = (make_denoiser(config).state_dict() for config in (tiny, tiny, replace(tiny, seed=4)))
    assert same(first, again)
    assert not same(first, other)


def test_loss_falls(tiny: TrainConfig) -> None:
    losses = [step.loss for step in train(replace(tiny, images=150 * 32, batch_size=32), cpu=True)]
    assert len(losses) == 150
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


@pytest.mark.filterwarnings("ignore:precision 'bf16' is only emulated")  # not every processor has it
def test_both_precisions_in_one_process(tiny: TrainConfig) -> None:
    exact, rounded = (list(train(replace(tiny, precision=p), cpu=True)) for p in ("float32", "bf16"))
    assert [s.loss for s in exact] == pytest.approx([s.loss for s in rounded], rel=0.05)
    assert exact[0].loss != rounded[0].loss
    assert {p.dtype for p in rounded[-1].denoiser.parameters()} == {torch.float32}


def test_what_a_step_reports(tiny: TrainConfig) -> None:
    steps = [(s.step, s.images, s.images_per_second > 0) for s in train(replace(tiny, images=40), cpu=True)]
    assert steps == [(1, 16, True), (2, 32, True), (3, 48, True)]  # 40 images are not cut in the middle of a batch


def test_ema_network_is_frozen_and_in_evaluation_mode(tiny: TrainConfig) -> None:
    step = next(train(tiny, cpu=True))
    assert not step.ema.training and step.denoiser.training
    assert not any(p.requires_grad for p in step.ema.parameters())


# ------------------------------------------------------------------------------------------------------- resume

CHILD = """
import json, sys, torch
torch.set_num_threads(1)
from repdyn.training import config_from_dict
from repdyn.training import train
for step in train(config_from_dict(json.loads(sys.argv[1])), sys.argv[2], cpu=True, save_every_s=-1):
    print(step.step, flush=True)
"""


def test_killed_at_a_random_instant_and_resumed_ends_with_the_same_bits(tiny: TrainConfig, tmp_path: Path) -> None:
    config, state_file = replace(tiny, images=120 * 16), tmp_path / "state.safetensors"
    chance = random.SystemRandom()
    reached = 0
    for earliest in (5, 50):
        victim = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(asdict(config)), str(state_file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        last = chance.randrange(earliest, earliest + 40)
        while reached < last:
            reached = int(victim.stdout.readline())
        time.sleep(chance.uniform(0, 0.02))  # in the middle of a step, or of a write
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL, "the victim finished before it was killed"
        saved = int(read(state_file)[1]["step"])
        assert last <= saved < config.steps
    steps = [(step.step, weights(step)) for step in train(config, state_file, cpu=True)]
    assert [number for number, _ in steps] == list(range(saved, config.steps + 1)), "the restored step is the first"
    assert same(steps[-1][1], run(config)), f"killed after step {saved}"


def test_resumed_after_every_step(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "state.safetensors"
    losses = [step.loss for step in train(tiny, cpu=True)]
    first = next(train(tiny, state_file, cpu=True, save_every_s=-1))
    assert (first.step, first.restored) == (1, False), "a training that starts does not yield what it starts from"
    for expected in range(2, tiny.steps + 1):
        steps = train(tiny, state_file, cpu=True, save_every_s=-1)
        restored, step = next(steps), next(steps)
        assert (restored.step, restored.restored, restored.loss) == (expected - 1, True, losses[expected - 2])
        assert (step.step, step.restored, step.loss) == (expected, False, losses[expected - 1])
    assert same(weights(step), run(tiny))


def test_a_finished_training_yields_its_end_and_does_nothing_more(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "state.safetensors"
    *_, end = train(tiny, state_file, cpu=True)
    before = state_file.read_bytes()
    (again,) = train(tiny, state_file, cpu=True)
    assert (again.step, again.images, again.loss, again.restored) == (end.step, end.images, end.loss, True)
    assert same(weights(again), weights(end))
    assert state_file.read_bytes() == before


def test_a_state_without_a_loss_resumes(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    tensors, metadata = read(state_file)
    del metadata["loss"]
    save_file(tensors, state_file, metadata)
    restored, *_, last = train(tiny, state_file, cpu=True)
    assert math.isnan(restored.loss) and math.isfinite(last.loss)


def test_state_is_saved_by_the_clock_and_at_the_end(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "folder" / "state.safetensors"
    saved = [state_file.exists() for _ in train(tiny, state_file, cpu=True, save_every_s=1e9)]
    assert saved == [False] * (tiny.steps - 1) + [True]
    assert [path.name for path in state_file.parent.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("images", [torch.zeros(40, 3, 8, 8), torch.zeros(40, 1, 9, 9)])
def test_images_that_the_network_does_not_take_are_refused(tiny: TrainConfig, images: Tensor) -> None:
    with pytest.raises(ValueError, match="1 channels .*halved 1 times"):
        next(train(tiny, data=images, cpu=True))


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"images": 999}, {"learning_rate": 1e-4}, {"network": UNetConfig(resolution=8, channels=1)}]
)
def test_the_state_of_another_training_is_refused_and_kept(tiny: TrainConfig, tmp_path: Path, change: dict) -> None:
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    before = state_file.read_bytes()
    with pytest.raises(ValueError, match="state.safetensors .*another training"):
        next(train(replace(tiny, **change), state_file, cpu=True))
    assert state_file.read_bytes() == before


def test_a_state_from_before_a_field_existed_resumes(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    tensors, metadata = read(state_file)
    older = json.loads(metadata["config"])
    for name in ("flip", "preconditioning", "augment", "weight_decay"):
        del older[name]
    save_file(tensors, state_file, {**metadata, "config": json.dumps(older)})
    with pytest.raises(ValueError, match="another training"):
        next(train(replace(tiny, flip=True), state_file, cpu=True))
    assert same(run(tiny, state_file), run(tiny))


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_truncated_state_is_refused_and_kept(tiny: TrainConfig, tmp_path: Path, keep: int) -> None:
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    state_file.write_bytes(state_file.read_bytes()[:keep])
    before = state_file.read_bytes()
    with pytest.raises(ValueError, match="state.safetensors is no readable"):
        next(train(tiny, state_file, cpu=True))
    assert state_file.read_bytes() == before


def test_a_file_that_is_no_state_is_refused(tiny: TrainConfig, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another training"):
        next(train(tiny, tmp_path / "other.safetensors", cpu=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_the_state(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    state_file = tmp_path / "state.safetensors"
    steps = train(tiny, state_file, cpu=True, save_every_s=-1)
    next(steps), next(steps)
    before = state_file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("repdyn.training.loop.dae_loss", lambda model, x0, sigma, noise: value * x0.flatten(1).sum(1))
        with pytest.raises(FloatingPointError, match="step 2: .*learning_rate"):
            next(steps)
    assert state_file.read_bytes() == before
    steps = train(tiny, state_file, cpu=True)
    assert [next(steps).step, next(steps).step] == [2, 3]


def test_a_gradient_that_is_not_finite_is_not_saved(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_file = tmp_path / "state.safetensors"
    steps = train(tiny, state_file, cpu=True, save_every_s=-1)
    next(steps)
    before = state_file.read_bytes()

    def steep(model: nn.Module, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        nothing = 0 * model(x0 + sigma[:, None, None, None] * noise, sigma)
        return nothing.flatten(1).sum(1).abs().sqrt()  # zero, with an infinite slope

    monkeypatch.setattr("repdyn.training.loop.dae_loss", steep)
    with pytest.raises(FloatingPointError, match="gradient.* step 1: .*learning_rate"):
        next(steps)
    assert state_file.read_bytes() == before


# ----------------------------------------------------------------------------------------------------- formulas


def test_average_of_the_weights_against_a_loop(tiny: TrainConfig) -> None:
    config = replace(tiny, images=10 * 16, ema_halflife_images=100, ema_rampup=1.0)
    average = {k: v.double() for k, v in make_denoiser(config).state_dict().items()}
    for number, step in enumerate(train(config, cpu=True), start=1):
        halflife = min(100, number * 16)
        decay = 0.5 ** (16 / halflife)
        for name, value in step.denoiser.state_dict().items():
            if "resample_filter" not in name:
                average[name] = decay * average[name] + (1 - decay) * value.double()
    for name, value in step.ema.state_dict().items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7)


def test_learning_rate_rises_over_the_warm_up(tiny: TrainConfig) -> None:
    config = replace(tiny, warmup_images=64, learning_rate=1e-3)
    before = [p.detach().clone() for p in make_denoiser(config).parameters()]
    # The first step of Adam moves every weight by the learning rate, here 16/64 of the full one.
    after = next(train(config, cpu=True)).denoiser.parameters()
    largest = max((a - b).abs().max().item() for a, b in zip(after, before))
    assert largest == pytest.approx(1e-3 * 16 / 64, rel=1e-2)


def test_decay_shrinks_the_weights_beside_adams_step(tiny: TrainConfig) -> None:
    start, none, some = (
        [parameter.detach().clone() for parameter in denoiser.parameters()]
        for denoiser in (
            make_denoiser(tiny),
            next(train(tiny, cpu=True)).denoiser,
            next(train(replace(tiny, weight_decay=2.0), cpu=True)).denoiser,
        )
    )
    rate = tiny.learning_rate * tiny.batch_size / tiny.warmup_images
    for before, plain, decayed in zip(start, none, some, strict=True):
        torch.testing.assert_close(decayed, plain - 2 * rate * before, rtol=0, atol=1e-6)
    assert max((a - b).abs().max() for a, b in zip(none, some, strict=True)) > 1e-4


def test_without_decay_the_optimiser_is_adam(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = run(tiny)
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, lr, weight_decay: torch.optim.Adam(weights, lr=lr))
    assert same(now, run(tiny))


def test_loss_of_the_first_step_by_hand(tiny: TrainConfig) -> None:
    config = replace(tiny, network=replace(tiny.network, dropout=0.0))
    data = datasets.load("digits")
    x0, sigma, noise, *_ = batches.draw(0, config, data)
    denoiser = make_denoiser(config)
    expected = []
    for x, s, eps in zip(x0, sigma, noise):
        error = denoiser((x + s * eps)[None], s.item())[0] - x
        expected.append((s**2 + 0.25) / (s * 0.5) ** 2 * error.square().mean())
    assert next(train(config, cpu=True)).loss == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_loss_of_the_first_step_of_a_ddpm_is_that_of_the_predicted_noise(tiny: TrainConfig) -> None:
    config = replace(tiny, preconditioning=Epsilon(), levels=DDPMSteps(), network=replace(tiny.network, dropout=0.0))
    x0, sigma, noise, *_ = batches.draw(0, config, datasets.load("digits"))
    network, alpha_bar = make_denoiser(config).model, ddpm_alpha_bar()
    expected = []
    for x, s, eps in zip(x0, sigma, noise):
        step = ddpm_timestep(s.item(), alpha_bar)
        noised = alpha_bar[step] ** 0.5 * x + (1 - alpha_bar[step]) ** 0.5 * eps
        expected.append((network(noised[None].float(), torch.tensor([float(step)]))[0] - eps).square().mean())
    assert next(train(config, cpu=True)).loss == pytest.approx(torch.stack(expected).mean().item(), rel=1e-3)


@pytest.mark.parametrize("preconditioning", [EDM(), Epsilon(), VP()])
def test_the_network_is_told_class_and_augmentation(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, preconditioning: EDM | Epsilon | VP
) -> None:
    network = replace(tiny.network, num_classes=10, augment_dim=6)
    config = replace(tiny, network=network, preconditioning=preconditioning, augment=0.5, images=16)
    seen = []
    forward = UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda self, *args, **told: (seen.append(told), forward(self, *args, **told))[1]
    )
    before = make_denoiser(config).state_dict()
    after = next(train(config, cpu=True)).denoiser.state_dict()
    conditions = batches.draw(0, config, datasets.load("digits")).conditions
    assert len(seen) == 1 and seen[0].keys() == conditions.keys() == {"class_labels", "augment_labels"}
    assert all(torch.equal(seen[0][name], conditions[name]) for name in conditions)
    assert conditions["augment_labels"].any()
    for name in ("model.map_label.weight", "model.map_augment.weight"):
        assert not torch.equal(before[name], after[name]), f"{name} does not learn"


# --------------------------------------------------------------------------------------- configuration and files


def test_a_configuration_survives_json(tiny: TrainConfig) -> None:
    assert config_from_dict(json.loads(json.dumps(asdict(tiny)))) == tiny


def test_unknown_fields_are_refused(tiny: TrainConfig) -> None:
    values = asdict(tiny)
    with pytest.raises(ValueError, match="colour, flavour"):
        config_from_dict({**values, "flavour": 1, "colour": 2})
    with pytest.raises(ValueError, match="heads"):
        config_from_dict({**values, "network": {**values["network"], "heads": 4}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("ema_halflife_images", 0),
        ("ema_rampup", 0.0),
        ("weight_decay", -0.1),
        ("precision", "no"),
        ("preconditioning", "ve"),
        ("augment", -0.1),
        ("augment", 1.5),
        ("network.augment_dim", 9),
    ],
)
def test_a_configuration_that_cannot_train_is_refused(tiny: TrainConfig, field: str, value: object) -> None:
    changes = {field: value}
    if field == "network.augment_dim":
        changes = {"network": replace(tiny.network, augment_dim=value), "augment": 0.1}
    with pytest.raises(ValueError, match=field):
        replace(tiny, **changes)


def test_a_full_disk_leaves_the_old_file_and_no_other(tiny: TrainConfig, tmp_path: Path) -> None:
    path, step = tmp_path / "weights.safetensors", next(train(tiny, cpu=True))
    save_file({"a": torch.arange(3.0)}, path, {"step": "7"})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # writing beyond 4 kB fails, as on a full disk
    try:
        with pytest.raises(Exception, match="(?i)too large|no space"):
            pretrained.export_step(step, tiny, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["weights.safetensors"]
