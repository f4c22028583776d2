"""What is measured of a model that may have memorised: against models of which one knows that they do, or do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from repdyn import datasets, features, records, training
from repdyn.chapters import recipes
from repdyn.chapters.memorisation import early_stopping
from repdyn.chapters.memorisation import sweep as memorisation_sweep
from repdyn.chapters.memorisation.measure import (
    MemoryConfig,
    curves,
    generate_images,
    participation_ratio,
    read,
    scene,
    score,
    weighted_losses,
)
from repdyn.chapters.memorisation.sweep import MemorySweep, by_size, learn_images, measure, measure_memorisation, plan
from repdyn.probes import LinearProbe
from repdyn.records.variants import grid
from repdyn.theory.empirical import EmpiricalDenoiser, LinearDenoiser

SMALL = MemoryConfig(
    dataset="digits", pool=1, num_train=40, width=8, images=1280, batch_size=32, warmup_images=200, precision="no",
    checkpoints=3, layer="dec/4x4_block0", sigmas=(0.02, 0.3, 2.0), num_probe=200, num_test=100, samples=32,
    steps=(8,), thresholds=(0.2, 1 / 3), loss_sigmas=(0.1, 0.6), num_loss=64,
)  # fmt: skip


def with_a_device(denoiser: nn.Module) -> nn.Module:
    denoiser.register_parameter("nothing", nn.Parameter(torch.zeros(1)))
    return denoiser


# ------------------------------------------------------------------------------------------------------ the images


def test_no_image_is_both_trained_and_probed_and_sets_are_nested() -> None:
    small, large, other = (scene(c) for c in (SMALL, replace(SMALL, num_train=300), replace(SMALL, seed=1)))
    assert small.train.shape == (40, 1, 8, 8) and small.test.shape == (100, 1, 8, 8)
    assert torch.equal(small.train, large.train[:40]) and not torch.equal(small.train, other.train)
    for field in ("probe", "probe_labels", "test", "test_labels"):
        assert all(torch.equal(getattr(small, field), getattr(own, field)) for own in (large, other))
    images = datasets.load("digits").images.float() / 127.5 - 1
    places = [
        {tuple(np.flatnonzero((images == image).flatten(1).all(1))) for image in part}
        for part in (large.train, large.probe)
    ]
    assert len(places[0]) == 300 and len(places[1]) == 200 and not places[0] & places[1]


def test_images_are_averaged_over_squares() -> None:
    own = scene(replace(SMALL, pool=4))
    whole = scene(SMALL).train
    assert own.train.shape == (40, 1, 2, 2)
    torch.testing.assert_close(own.train[:, :, 0, 1], whole[:, :, :4, 4:].mean((2, 3)))


@pytest.mark.parametrize("num_train", [1, 1238])
def test_a_training_set_must_leave_the_probes_their_images(num_train: int) -> None:
    with pytest.raises(ValueError, match=r"num_train .*2\.\.1237"):
        scene(replace(SMALL, num_train=num_train))


# ---------------------------------------------------------------------------------------------------- the readings


def test_effective_dimension() -> None:
    x = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0))
    assert participation_ratio(x) == pytest.approx(6, rel=0.01)
    assert participation_ratio(x * torch.tensor([1e-3, 1, 1, 10, 100, 1e4]) + 5) == pytest.approx(6, rel=0.01)
    assert participation_ratio(x[:, :1].repeat(1, 4)) == pytest.approx(1)
    assert participation_ratio(torch.cat([x, torch.full((20_000, 3), 0.7)], 1)) == pytest.approx(6, rel=0.01)


def test_a_denoiser_that_copies_makes_copies_and_one_of_other_images_does_not() -> None:
    own = scene(SMALL)
    copy, other = (with_a_device(EmpiricalDenoiser(part)) for part in (own.train, own.probe))
    found, fresh = score(copy, own, SMALL), score(other, own, SMALL)
    assert found["novel"] == [[0, 0]]
    assert fresh["novel"][0] == [1, 1] and found["real"] == fresh["real"] and min(found["real"]) > 0.95
    assert fresh["distance"][0] < found["distance"][0], "200 images are more like the digits than 40 of them"
    steps = score(copy, own, replace(SMALL, steps=(8, 16)))["novel"]
    assert steps == [[0, 0], [0, 0]]
    assert torch.equal(*(generate_images(copy, (1, 8, 8), 4, steps=8, seed=seed) for seed in (3, 3)))


def test_losses_of_the_copying_denoiser_are_its_own() -> None:
    own = scene(SMALL)
    found = weighted_losses(with_a_device(EmpiricalDenoiser(own.train)), own, SMALL)
    for part in ("train", "held"):
        np.testing.assert_allclose(found[f"{part}_loss"], found[f"copy_{part}"], rtol=1e-3, atol=1e-6)
    assert found["estimate_novel"][0] < 0.05 and found["estimate_novel"][1] < 0.4, "but for means of a few images"
    assert found["copy_train"][0] < 1e-6 < 1 < found["copy_held"][0]
    # Wiener's filter of all the digits treats training images like others, copies none, and its loss is known.
    linear = LinearDenoiser(scene(replace(SMALL, num_train=1237)).train)
    found = weighted_losses(with_a_device(linear), own, replace(SMALL, num_loss=100))
    assert found["estimate_novel"] == [1, 1]
    for level, sigma in enumerate(SMALL.loss_sigmas):
        least = (linear.variances * sigma**2 / (linear.variances + sigma**2)).sum().item() / 64
        expected = least * (sigma**2 + 0.25) / (0.5 * sigma) ** 2
        for part in ("train", "held"):
            assert found[f"{part}_loss"][level] == pytest.approx(expected, rel=0.1)


def test_curves_against_one_probe_at_a_time() -> None:
    own = scene(SMALL)
    network = training.make_denoiser(plan(SMALL, 8))
    found = curves(network, own, SMALL)
    held, fitted = datasets.stratified_split(own.probe_labels, 50, 0)
    assert len(held) == 50 and len(fitted) == 150
    for key, name in (("layer", SMALL.layer), ("posterior", features.POSTERIOR)):
        x, asked = (features.extract(network, part, 0.3, [name])[name] for part in (own.probe, own.test))
        probe = LinearProbe(l2=SMALL.l2).fit(x[fitted], own.probe_labels[fitted])
        assert found[key]["accuracy"][1] == pytest.approx(probe.score(asked, own.test_labels.numpy()), abs=0.021)
        assert found[key]["validation"][1] == pytest.approx(
            probe.score(x[held], own.probe_labels[held].numpy()), abs=0.041
        )
        assert found[key]["dimension"][1] == pytest.approx(participation_ratio(asked), rel=0.02)
        peak, accuracy = found[key]["peak"], found[key]["accuracy"]
        assert peak["index"] == int(np.argmax(found[key]["validation"]))
        assert peak["above_left"] == pytest.approx(accuracy[peak["index"]] - accuracy[0])


# --------------------------------------------------------------------------------------------------- the trainings


def test_few_images_are_memorised_and_many_are_not() -> None:
    """After 16,384 images, measured with two seeds: 4 images 0.00 and 0.00 new, 1000 images 1.00 and 1.00."""
    novel, excess = {}, {}
    for num in (4, 1000):
        config = replace(SMALL, num_train=num, images=16_384, batch_size=64, learning_rate=5e-3, checkpoints=1)
        own = scene(config)
        ((_, denoiser),) = learn_images(config, own.train)
        novel[num] = score(denoiser, own, config)["novel"][0][1]
        found = weighted_losses(denoiser, own, config)
        excess[num] = found["held_loss"][1] / found["train_loss"][1]
    assert novel[4] < 0.2 and novel[1000] > 0.9
    assert excess[4] > 3 and excess[1000] < 1.3


def test_a_training_is_measured_at_its_halvings_and_survives_a_kill(tmp_path: Path, monkeypatch) -> None:
    whole = measure(SMALL)
    assert [stage["images"] for stage in whole["checkpoints"]] == [320, 640, 1280]
    assert whole == json.loads(json.dumps(whole)) and whole["sigmas"] == list(SMALL.sigmas)

    def killed(*_: Any) -> dict[str, Any]:
        if (tmp_path / "320.json").exists():
            raise KeyboardInterrupt
        return read(*_)

    monkeypatch.setattr(memorisation_sweep, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(SMALL, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"320.json", "state.safetensors"}, "saved where it was killed"
    monkeypatch.setattr(memorisation_sweep, "read", read)
    assert measure(SMALL, tmp_path) == whole


@pytest.mark.parametrize("lost", [True, False])
def test_what_a_finished_training_lacks_is_measured_from_its_state(tmp_path: Path, monkeypatch, lost: bool) -> None:
    config = replace(SMALL, checkpoints=2)
    whole = measure(config, tmp_path)
    if lost:  # killed while it measured what the state holds
        (tmp_path / "1280.json").unlink()
    measured = []
    monkeypatch.setattr(memorisation_sweep, "read", lambda *_: measured.append(_) or read(*_))
    assert measure(config, tmp_path) == whole
    assert len(measured) == lost


def test_a_sweep_is_each_change_with_its_own_seeds(tmp_path: Path) -> None:
    quick = replace(SMALL, images=320, checkpoints=1, sigmas=(0.3,))
    sweep = MemorySweep(
        quick,
        (*grid(num_train=(8,), images=(640,), checkpoints=(2,), seeds=(0, 1)), *grid(width=(4,), seeds=(2,))),
    )
    runs = measure_memorisation(sweep, cache=tmp_path)["runs"]
    assert [(run["change"].get("num_train"), run["seed"]) for run in runs] == [(8, 0), (8, 1), (None, 2)]
    alone = measure(replace(quick, width=4, seed=2))
    assert {key: runs[2][key] for key in alone} == alone and sweep.dataset == "digits"
    assert by_size(runs, quick, 8) == {8: runs[0]["checkpoints"][0]}, "the one after the base's length"
    assert by_size(runs, quick, 8, seed=1) == {8: runs[1]["checkpoints"][0]}
    assert by_size(runs, quick, 4, seed=2) == {40: runs[2]["checkpoints"][0]}
    with pytest.raises(ValueError, match="width: .*16"):
        by_size(runs, quick, 16)


# -------------------------------------------------------------------------------------------------- early stopping


def stage(novel: float, held: float, top: float, estimates: float, heights: tuple[float, float]) -> dict[str, Any]:
    peak = {"index": 1, "above_left": heights[0], "above_right": heights[1]}
    peak |= {f"{side}_interval": (h - 0.01, h + 0.01) for side, h in zip(("left", "right"), heights, strict=True)}
    part = {"accuracy": [top - heights[0], top, top - heights[1]], "peak": peak, "dimension": [3.0, 4.0, 5.0]}
    return {
        "novel": [[1.0, novel]], "train_loss": [0.2, 0.4], "held_loss": [held, held],
        "estimate_novel": [1.0, estimates], "posterior": part, "layer": part | {"dimension": [held, held, held]},
    }  # fmt: skip


RUN = [
    stage(1.0, 0.9, 0.5, 1.0, (0.005, 0.2)),  # no peak yet that is beyond doubt
    stage(1.0, 0.6, 0.6, 1.0, (0.05, 0.2)),
    stage(0.97, 0.5, 0.8, 0.9, (0.03, 0.1)),
    stage(0.5, 0.7, 0.9, 0.6, (-0.01, 0.3)),
    stage(0.1, 0.9, 0.7, 0.2, (0.04, 0.3)),
]


def test_each_rule_stops_where_it_should() -> None:
    assert early_stopping.stops(RUN) == {
        "score": 2,
        "validation loss": 2,
        "posterior curve unimodal": 2,
        "hidden curve unimodal": 2,
        "hidden accuracy": 3,
        "one-step copies": 1,
    }
    assert early_stopping.stops(RUN[:1])["posterior curve unimodal"] is None
    assert [early_stopping.height(c) for c in RUN] == pytest.approx([0.005, 0.05, 0.03, -0.01, 0.04])


@pytest.mark.parametrize(
    ("holds", "expected"),
    [([], None), ([False, False], None), ([True], 0), ([False, True, True], 2), ([True, False, True], 0)],
)
def test_last_while(holds: list[bool], expected: int | None) -> None:
    assert early_stopping.last_while(holds) == expected


def test_agreement_is_one_for_a_sign_that_knows_the_order_and_zero_for_a_constant() -> None:
    found = early_stopping.agreement([RUN[i] for i in (0, 2, 3, 4)])
    assert found["one-step copies"] == pytest.approx(1)
    assert found["effective dimension, posterior"] == 0
    assert found["held-out loss"] == pytest.approx(-found["effective dimension, hidden"])


def test_the_record_reaches_from_copies_to_new_images() -> None:
    recipe = recipes.get("memorisation-sweep")
    entry = records.read(recipe)
    sizes = by_size(entry["metrics"]["runs"], recipe.config.base, 16)
    novel = [c["novel"][0][1] for c in sizes.values()]
    assert novel[0] < 0.1 and novel[-1] > 0.99 and sorted(novel) == pytest.approx(novel, abs=0.02)
    # What the chapter and the ledger say in words.
    stages = [c for run in entry["metrics"]["runs"] for c in run["checkpoints"]]
    assert all(c["novel"][0][1] == 1 for c in stages if early_stopping.is_unimodal(c))
    watched = [run for run in entry["metrics"]["runs"] if len(run["checkpoints"]) > 1]
    never = [
        run["change"]["num_train"] for run in watched if not any(map(early_stopping.is_unimodal, run["checkpoints"]))
    ]
    assert never == [32]
