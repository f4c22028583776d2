"""Preconditioning, noise levels, weighting: in every combination, from JSON old and new, with the numbers of old."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from repdyn import presets, records
from repdyn.chapters import recipes
from repdyn.training import (
    EDM,
    VP,
    DDPMSteps,
    EDMWeight,
    Epsilon,
    EpsilonWeight,
    Listed,
    LogNormal,
    NoWeight,
    OwnWeight,
    Plain,
    TrainConfig,
    VPTime,
    batches,
    config_from_dict,
    train,
)

ASSETS = Path(str(files("repdyn"))) / "assets"

# The form in which configurations were written before the three choices were apart.
FLAT = {
    "dataset": "digits",
    "network": {
        "resolution": 8,
        "channels": 1,
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
        "dropout": 0.1,
        "num_classes": 0,
        "augment_dim": 6,
        "variant": "ddpmpp",
    },
    "images": 64,
    "batch_size": 16,
    "learning_rate": 0.003,
    "warmup_images": 32,
    "ema_halflife_images": 500000,
    "ema_rampup": 0.05,
    "flip": True,
    "augment": 0.3,
    "preconditioning": "edm",
    "sigmas": None,
    "weighting": "denoiser",
    "p_mean": -1.2,
    "p_std": 1.2,
    "sigma_data": 0.5,
    "grad_clip": 1.0,
    "weight_decay": 0.0,
    "precision": "no",
    "seed": 3,
}

# Of a training of each kind, by the code that read the flat form only: a digest of weights and averages, the losses.
BEFORE: list[tuple[dict, str, list[float]]] = [
    (
        {"p_mean": -0.8, "p_std": 1.1, "sigma_data": 0.6},
        "9fa01cea5703845c",
        [1.324381709098816, 1.3516297340393066, 1.3063029050827026, 1.3487366437911987],
    ),
    (
        {"preconditioning": "epsilon"},
        "4473202cae34f5e2",
        [1.0101280212402344, 1.0252877473831177, 0.9586777091026306, 0.8421908020973206],
    ),
    (
        {"preconditioning": "vp"},
        "ddadeb9c1c7a5671",
        [1.023910641670227, 1.0288993120193481, 0.9540026187896729, 0.8412938117980957],
    ),
    (
        {"preconditioning": "vp", "sigmas": [0.1, 2.0, 5.0]},
        "71135d3759462829",
        [1.0101280212402344, 1.0239620208740234, 0.9626959562301636, 0.8280759453773499],
    ),
    (
        {"preconditioning": "epsilon", "weighting": "edm", "sigma_data": 0.7},
        "dd6c3328c58d22cc",
        [4533.53125, 1099.982666015625, 2564.85595703125, 1282.16015625],
    ),
    (
        {"weighting": "epsilon"},
        "790dadf8d5364263",
        [0.9447396993637085, 0.9843852519989014, 0.8833982348442078, 0.7478830814361572],
    ),
    (
        {"weighting": "none"},
        "e3fa15d5c6edda95",
        [0.14209376275539398, 0.13672056794166565, 0.15691536664962769, 0.22506703436374664],
    ),
]


def made_on_this_processor() -> bool:
    """Whether products are rounded here as they were for the digests: another processor adds in another order."""
    cpuinfo = Path("/proc/cpuinfo")
    same = torch.__version__ == "2.13.0+cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return same and cpuinfo.exists() and "model name\t: AMD EPYC\n" in cpuinfo.read_text()


@pytest.mark.parametrize(("change", "digest", "losses"), BEFORE, ids=[str(row[0]) for row in BEFORE])
def test_an_old_configuration_trains_to_the_same_bits(change: dict, digest: str, losses: list[float]) -> None:
    """The losses everywhere to rounding, which other random numbers would not give; the bits where they were made."""
    steps, found = [], hashlib.sha256()
    for step in train(config_from_dict({**FLAT, **change}), cpu=True):
        steps.append(step.loss)
    assert steps == pytest.approx(losses, rel=1e-3)
    for module in (step.denoiser, step.ema):
        for value in module.state_dict().values():
            found.update(value.contiguous().numpy().tobytes())
    if made_on_this_processor():
        assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("change", "preconditioning", "levels", "weighting"),
    [
        ({}, EDM(), LogNormal(), OwnWeight()),
        ({"p_mean": -0.6, "p_std": 1.0, "sigma_data": 0.3}, EDM(0.3), LogNormal(-0.6, 1.0), OwnWeight()),
        ({"preconditioning": "epsilon"}, Epsilon(), DDPMSteps(), OwnWeight()),
        ({"preconditioning": "vp", "weighting": "epsilon"}, VP(), VPTime(), EpsilonWeight()),
        ({"preconditioning": "vp", "sigmas": [0.1, 2.0]}, VP(), Listed((0.1, 2.0)), OwnWeight()),
        ({"weighting": "edm", "sigma_data": 0.3}, EDM(0.3), LogNormal(), EDMWeight(0.3)),
        ({"weighting": "none"}, EDM(), LogNormal(), NoWeight()),
        ({"levels": "preconditioning", "preconditioning": "epsilon"}, Epsilon(), DDPMSteps(), OwnWeight()),
        ({"levels": "edm", "preconditioning": "epsilon", "p_mean": 0.0}, Epsilon(), LogNormal(0.0), OwnWeight()),
        ({"levels": "epsilon"}, EDM(), DDPMSteps(), OwnWeight()),
        ({"levels": "epsilon", "sigmas": [0.5]}, EDM(), Listed((0.5,)), OwnWeight()),
    ],
)
def test_the_flat_form_says_the_same(change: dict, preconditioning: EDM, levels: LogNormal, weighting: EDM) -> None:
    config = config_from_dict({**FLAT, **change})
    assert (config.preconditioning, config.levels, config.weighting) == (preconditioning, levels, weighting)
    assert config.precision == "float32" and config.seed == 3
    assert config_from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_precision_of_the_flat_form_stays() -> None:
    for precision, now in (("bf16", "bf16"), ("no", "float32")):
        assert config_from_dict({**FLAT, "precision": precision}).precision == now
    older = {name: value for name, value in FLAT.items() if name != "precision"}
    assert config_from_dict(older).precision == "bf16", "what the field's absence meant"


@pytest.mark.parametrize("name", ["preconditioning", "levels", "weighting"])
def test_words_that_name_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        config_from_dict({**FLAT, name: "loud"})


@pytest.mark.parametrize("values", [{"kind": "loud"}, {}, {"kind": "listed", "sigmas": [1.0], "colour": 2}])
def test_objects_that_name_nothing_are_refused(tiny: TrainConfig, values: dict) -> None:
    with pytest.raises(ValueError, match="levels"):
        config_from_dict({**asdict(tiny), "levels": values})


@pytest.mark.parametrize("path", sorted(ASSETS.glob("weights/*.safetensors")), ids=lambda path: path.stem)
def test_shipped_weights_say_what_their_preset_trains(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if "config" not in metadata:
        return  # a classifier's
    config, preset = config_from_dict(json.loads(metadata["config"])), presets.get(path.stem)
    for name in ("network", "preconditioning", "levels", "weighting"):
        assert getattr(config, name) == getattr(preset, name)


def test_recorded_trainings_are_those_of_the_recipes() -> None:
    found = 0
    for recipe in recipes.RECIPES.values():
        for config, recorded in (
            (recipe.config, records.read_any(recipe.name)["config"]),
            (recipe.slice_config, records.read_any(recipe.name)["slice"]["config"]),
        ):
            training = getattr(config, "training", None)
            if isinstance(training, TrainConfig):
                assert config_from_dict(recorded["training"]) == training, recipe.name
                found += 1
    assert found >= 6


PRECONDITIONINGS = (EDM(), Epsilon(), VP(), Plain())
LEVELS = (LogNormal(), DDPMSteps(), VPTime(), Listed((0.1, 3.0)))
WEIGHTINGS = (OwnWeight(), EDMWeight(), EpsilonWeight(), NoWeight())


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS, ids=lambda value: value.kind)
@pytest.mark.parametrize("levels", LEVELS, ids=lambda value: value.kind)
def test_every_combination_trains(tiny: TrainConfig, preconditioning: EDM, levels: LogNormal) -> None:
    for weighting in WEIGHTINGS:
        config = replace(tiny, preconditioning=preconditioning, levels=levels, weighting=weighting, images=16)
        assert config_from_dict(json.loads(json.dumps(asdict(config)))) == config
        assert math.isfinite(next(train(config, cpu=True)).loss)


def test_the_choices_are_apart(tiny: TrainConfig) -> None:
    """Noise levels are those of ``levels`` alone: what is around the network moves none of them."""
    data = batches.unlabelled(torch.zeros(4, 1, 8, 8))
    for levels in LEVELS:
        drawn = [
            batches.draw(0, replace(tiny, levels=levels, preconditioning=around), data).sigma
            for around in PRECONDITIONINGS
        ]
        assert all(torch.equal(drawn[0], other) for other in drawn)


def test_levels_above_what_the_network_can_be_told_are_its_largest(tiny: TrainConfig) -> None:
    wide = replace(tiny, levels=LogNormal(4.0, 2.0), batch_size=512)
    data = batches.unlabelled(torch.zeros(4, 1, 8, 8))
    free = batches.draw(0, wide, data).sigma
    held = batches.draw(0, replace(wide, preconditioning=Epsilon()), data).sigma
    assert free.max() > 200 and held.max() == pytest.approx(157.4, abs=0.1)
    assert torch.equal(free[free < 157], held[free < 157])
    with pytest.raises(ValueError, match="levels.sigmas"):
        replace(tiny, preconditioning=Epsilon(), levels=Listed((1.0, 200.0)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Listed(()), "sigmas"),
        (lambda: Listed((0.1, 0.0)), "sigmas"),
        (lambda: Listed((float("inf"),)), "sigmas"),
        (lambda: LogNormal(std=0.0), "std"),
        (lambda: LogNormal(mean=float("nan")), "mean"),
        (lambda: EDM(float("nan")), "sigma_data"),
        (lambda: EDMWeight(-1.0), "sigma_data"),
    ],
)
def test_values_out_of_range_are_refused(make: object, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()
