"""Denoising auto-encoders of one level and of many: what they learn, and what is made of their readings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from repdyn import training
from repdyn.chapters.dae_ablations.measure import REPAIRS, AblationConfig, measure_ablations, repair_table
from repdyn.chapters.weight_sharing import measure as dae_curves
from repdyn.chapters.weight_sharing.measure import (
    SharingConfig,
    at_best_level,
    at_own_layer,
    dataset,
    measure_sharing,
    reading,
    standardised,
)
from repdyn.chapters.weight_sharing.runs import DAEConfig, learn, levels, material, measure, pixels, untrained
from repdyn.denoisers import EDMDenoiser, PlainDenoiser, VPDenoiser
from repdyn.noise import PAPER_SIGMAS
from repdyn.records.variants import Variant, expand, grid

TINY = DAEConfig(
    dataset="digits", pool=1, widths=(16, 16, 16), images=640, num_train=200, num_test=100, num_noisy=10, num_kept=20
)


def test_what_a_level_teaches_on_digits() -> None:
    """VP at 0.002 is the identity from the start and stays so; at 1 it denoises; the bare network is far off at 0.002.

    Measured with three seeds: errors 1.002, 0.639 to 0.644, 122 to 128; at 1, Jacobians of 0.677 to 0.682.
    """
    config = replace(TINY, widths=(128, 128, 128), images=20_000)
    low, middle, bare = (
        measure(replace(config, sigmas=(sigma,), preconditioning=kind))["checkpoints"][-1]
        for sigma, kind in ((0.002, "vp"), (1.0, "vp"), (0.002, "none"))
    )
    assert 0.9 < low["error"][0] < 1.1 and low["jacobian"][0] < 1e-3
    assert middle["error"][0] < 0.75 and 0.6 < middle["jacobian"][0] < 0.75
    assert bare["error"][0] > 50
    # And what the identity has cost: the same network with nothing around it tells digits better.
    assert max(low["test"][1]) < max(bare["test"][1]) - 0.1


def test_a_reading_is_complete_and_json_and_determined_by_the_seed() -> None:
    config = replace(TINY, sigmas=(0.002, 0.5), read=(0.002, 0.14, 0.5))
    first, again, other = (json.dumps(measure(replace(config, seed=seed))) for seed in (0, 0, 1))
    assert first == again and first != other
    result = json.loads(first)
    assert result["sigmas"] == [0.002, 0.14, 0.5] and result["layers"] == ["hidden1", "hidden2", "hidden3"]
    assert [stage["images"] for stage in result["checkpoints"]] == [64, 640]
    for stage in result["checkpoints"]:
        assert np.shape(stage["validation"]) == np.shape(stage["test"]) == (3, 3)
        assert all(np.shape(stage[key]) == (3,) for key in ("error", "change", "jacobian"))
        assert 0.3 < np.min(stage["test"]) < 1  # ten classes
    assert np.shape(result["kept"]) == (3, 20, 16)


def test_images_do_not_depend_on_the_seed_and_are_averaged() -> None:
    own, other = material(TINY), material(replace(TINY, seed=5))
    assert torch.equal(own.probed[0], other.probed[0]) and torch.equal(own.tested[1], other.tested[1])
    assert len(own.images) == 1437 and (len(own.probed[0]), len(own.tested[0])) == (200, 100)
    halved = material(replace(TINY, pool=2))
    means = own.images.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    assert torch.allclose(halved.images, means, atol=1e-6)
    assert 0.5 < pixels(TINY) < 1


def test_levels_that_are_read() -> None:
    assert levels(TINY) == (0.002,) and levels(replace(TINY, sigmas=None)) == PAPER_SIGMAS
    assert levels(replace(TINY, sigmas=None, read=(0.1,))) == (0.1,)


@pytest.mark.parametrize(("name", "kind"), [("vp", VPDenoiser), ("edm", EDMDenoiser), ("none", PlainDenoiser)])
def test_networks_and_what_is_around_them(name: str, kind: type) -> None:
    for network, widths in (("mlp", (16, 16)), ("unet", (4, 8))):
        config = replace(TINY, preconditioning=name, network=network, widths=widths, dropout=0.5)
        denoiser, same, other = (untrained(replace(config, seed=seed), (1, 8, 8)) for seed in (0, 0, 1))
        assert type(denoiser) is kind and denoiser(torch.zeros(2, 1, 8, 8), 0.5).shape == (2, 1, 8, 8)
        assert any(isinstance(m, nn.Dropout) or getattr(m, "dropout", 0) == 0.5 for m in denoiser.modules())
        state = denoiser.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items())
        assert any(not torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_a_unet_is_read_at_its_lowest_resolution() -> None:
    config = replace(TINY, network="unet", widths=(4, 8), images=64, early=())
    result = measure(config)
    assert result["layers"] == ["enc/4x4_block0", "dec/4x4_in0", "dec/4x4_in1", "dec/4x4_block0", "dec/4x4_block1"]
    assert len(result["checkpoints"]) == 1 and np.shape(result["kept"]) == (1, 20, 8)


def test_the_training_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    def spy(plan: training.TrainConfig, **kept: object) -> object:
        plans.append(plan)
        return original(plan, **kept)

    original = training.train
    monkeypatch.setattr(training, "train", spy)
    images = material(TINY).images
    for change in ({}, {"sigmas": None}, {"sigmas": None, "preconditioning": "none"}):
        config = replace(TINY, **change, weight_decay=0.5, seed=7)
        assert [seen for seen, _ in learn(config, images)] == [64, 640]
    assert [p.levels for p in plans] == [training.Listed((0.002,)), training.VPTime(), training.LogNormal()]
    assert {(p.weight_decay, p.seed, p.images, p.precision) for p in plans} == {(0.5, 7, 640, "float32")}
    (untrained,) = learn(replace(TINY, images=0), images)
    assert untrained[0] == 0 and len(plans) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preconditioning": "ddpm"}, "preconditioning"),
        ({"network": "cnn"}, "network"),
        ({"network": "unet", "widths": (8, 12)}, "widths"),
        ({"images": -1}, "images"),
        ({"early": (1.0,)}, "early"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


SHARING = SharingConfig(TINY, sigmas=(0.002, 0.5), families=("vp", "none"), long=("vp",), projections=20)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    cache = tmp_path_factory.mktemp("runs")
    return measure_sharing(SHARING, cache=cache), cache


def test_sharing_has_the_runs_of_each_kind_in_their_places(shared: tuple[dict, Path]) -> None:
    result = json.loads(json.dumps(shared[0], allow_nan=False))
    assert {name: list(kinds) for name, kinds in result["families"].items()} == {
        "vp": ["daes", "diffusion", "long"],
        "none": ["daes", "diffusion"],
    }
    daes, long = result["families"]["vp"]["daes"], result["families"]["vp"]["long"]
    assert np.shape(daes["test"]) == (2, 3, 2) and np.shape(daes["early"]["jacobian"]) == (2, 2)
    assert (daes["images"], daes["early"]["images"], long["images"]) == ([640, 640], [64, 64], [1280, 1280])
    alone = measure(replace(TINY, sigmas=(0.5,), seed=1))["checkpoints"][-1]
    assert [layer[1] for layer in daes["test"][1]] == [layer[0] for layer in alone["test"]]
    assert daes["error"][1][1] == alone["error"][0]
    assert result["untrained"]["images"] == 0 and result["pixels"] == pixels(TINY)


def test_axes_of_the_sharing_have_names(shared: tuple[dict, Path]) -> None:
    result = shared[0]
    data = dataset(result)
    assert data.test.dims == ("family", "kind", "stage", "seed", "layer", "sigma")
    daes, late = result["families"]["vp"]["daes"], data.sel(family="vp", kind="daes", stage="end")
    np.testing.assert_array_equal(late.test.sel(layer="hidden3", sigma=0.5), np.array(daes["test"])[:, 2, 1])
    for key in ("error", "distance", "cka", "best", "images"):
        np.testing.assert_array_equal(late[key], daes[key])
    early = data.sel(family="none", kind="diffusion", stage="early")
    np.testing.assert_array_equal(early.jacobian, result["families"]["none"]["diffusion"]["early"]["jacobian"])
    assert late.seeds_apart.sel(likeness="cka") == daes["seeds_apart"][2]
    assert data.test.sel(family="none", kind="long").isnull().all(), "it was not trained so long"
    assert data.pixels == result["pixels"]
    np.testing.assert_array_equal(data.untrained, result["untrained"]["test"])


def test_distances_count_from_the_best_level(shared: tuple[dict, Path]) -> None:
    for kinds in shared[0]["families"].values():
        for kind in kinds.values():
            for seed, best in enumerate(kind["best"]):
                assert best == int(np.argmax(kind["validation"][seed][1]))
                assert kind["distance"][seed][best] == 0 and kind["cka"][seed][best] == pytest.approx(1)
                other = 1 - best
                assert kind["distance"][seed][other] > 3 * kind["distance_error"][seed][other] > 0
                assert 0 < kind["cka"][seed][other] < 1
            assert kind["seeds_apart"][0] > 0.5 and kind["seeds_apart"][2] < 0.999
    fixed = measure_sharing(replace(SHARING, reference=0.5), cache=shared[1])
    assert fixed["families"]["vp"]["daes"]["best"] == [1, 1]
    single = measure_sharing(replace(SHARING, seeds=(0,)), cache=shared[1])
    assert single["families"]["vp"]["daes"]["seeds_apart"] is None


def test_repairs_are_rows_and_share_runs_with_the_sharing(
    shared: tuple[dict, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repairs = (
        Variant((), (0, 1), "as it is"),
        Variant((("preconditioning", "none"),), (0, 1), "no preconditioning"),
    )

    def none_new(config: DAEConfig, folder: Path | None) -> dict:
        raise AssertionError(f"trained again: {config}")

    with monkeypatch.context() as patch:
        patch.setattr(dae_curves, "measure", none_new)
        result = measure_ablations(AblationConfig(TINY, repairs), cache=shared[1])
    daes = shared[0]["families"]["none"]["daes"]
    assert [row["name"] for row in result["rows"]] == ["as it is", "no preconditioning"]
    assert result["rows"][1]["sigmas"] == [0.002]
    assert np.array_equal(result["rows"][1]["test"], np.array(daes["test"])[:, :, :1])
    (row,) = measure_ablations(AblationConfig(TINY, grid(dropout=(0.5,), seeds=(0,))))["rows"]
    assert np.shape(row["test"]) == (1, 3, 1) and row["test"] != result["rows"][0]["test"][:1]


def test_every_repair_is_a_configuration_whose_first_level_is_the_lowest() -> None:
    assert len({repair.name for repair in REPAIRS}) == len(REPAIRS)
    assert all(levels(run.config)[0] == 0.002 for run in expand(DAEConfig(), REPAIRS))


def test_the_layer_is_chosen_on_validation_images() -> None:
    validation = [[[0.5, 0.9], [0.7, 0.8]]]  # one seed, two layers, two levels
    kind = reading({"validation": validation, "test": [[[0.1, 0.2], [0.3, 0.4]]]}, "seed")
    assert at_own_layer(kind, one_model=False).values.tolist() == [[0.3, 0.2]]
    assert at_own_layer(kind, one_model=True).values.tolist() == [[0.1, 0.2]]


def test_a_table_reads_the_lowest_level_and_the_one_that_validation_chooses() -> None:
    many = {
        "name": "many",
        "sigmas": [0.002, 3.0],
        "validation": [[[0, 0], [0.7, 0.8]]],
        "test": [[[0, 0], [0.5, 0.4]]],
    }
    one = {"name": "one", "sigmas": [0.002], "validation": [[[0], [0.7]]], "test": [[[0], [0.6]]]}
    assert repair_table({"rows": [many, one]}, layer=1) == [
        {"name": "many", "low": [0.5], "best": [0.4]},
        {"name": "one", "low": [0.6], "best": None},
    ]


def test_standardised_channels() -> None:
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100, 0]) + 5
    found = standardised(features)
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.var(0, correction=0), torch.tensor([1.0, 1, 0]), atol=1e-4)


def test_a_sweep_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        replace(SHARING, reference=0.3)
    with pytest.raises(ValueError, match="long"):
        replace(SHARING, long=("edm",))


def test_the_level_is_chosen_by_validation_images_seed_by_seed() -> None:
    found = {"validation": [[[9, 9, 9], [1, 3, 2]], [[9, 9, 9], [5, 4, 3]]], "test": [[[0] * 3, [0.1, 0.2, 0.9]]] * 2}
    accuracies, levels = at_best_level(reading(found, "seed").isel(layer=1))
    assert accuracies.values.tolist() == [0.2, 0.1] and levels.values.tolist() == [1, 0]
