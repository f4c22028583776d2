"""Curves along a training: a stage for each file of weights, in order, and the untrained network before them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repdyn import curves, pretrained, training
from repdyn.chapters.unimodal.measure import TrainingCurveConfig, measure
from repdyn.curves import CurveConfig
from repdyn.records import sweeps
from repdyn.training import TrainConfig

CURVE = CurveConfig(
    dataset="digits",
    num_train=100,
    num_test=50,
    sigmas=(0.1, 1.0, 3.0),
    splits=1,
    validation=0.25,
    l2=1e-2,
    layers=("enc/8x8_block0",),
    pixels=False,
)


@pytest.fixture
def weights(tiny: TrainConfig, tmp_path: Path) -> tuple[str, ...]:
    """Files of a training after two and after four steps."""
    files = []
    for step in training.train(replace(tiny, images=4 * tiny.batch_size), cpu=True):
        if step.step in (2, 4):
            files.append(str(tmp_path / f"weights-{step.images}.safetensors"))
            pretrained.export_step(step, tiny, files[-1])
    return tuple(files)


def test_each_stage_is_the_curve_of_its_weights(weights: tuple[str, ...], tiny: TrainConfig, tmp_path: Path) -> None:
    stages = measure(TrainingCurveConfig(CURVE, weights), cache=tmp_path / "cache")["stages"]
    assert [stage["images"] for stage in stages] == [0, 2 * tiny.batch_size, 4 * tiny.batch_size]
    for stage, changes in zip(
        stages,
        ({"weights": weights[0], "untrained": True}, {"weights": weights[0]}, {"weights": weights[1]}),
        strict=True,
    ):
        expected = curves.measure(replace(CURVE, **changes))
        assert stage["weights"] == changes["weights"]
        assert stage["test"] == expected["test"] and stage["posterior"] == expected["posterior"]
    assert stages[1]["posterior"] != stages[2]["posterior"] or stages[1]["test"] != stages[2]["test"]


def test_weights_along_a_training_are_found_in_the_folder_of_runs(
    weights: tuple[str, ...], tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 2 * tiny.batch_size
    place = tmp_path / "runs" / "small" / f"weights-{seen}.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(weights[0]).read_bytes())
    expected = pretrained.load(weights[0]).state_dict()
    monkeypatch.chdir(tmp_path)  # the default is the folder runs
    assert pretrained.load(f"small@{seen}").state_dict().keys() == expected.keys()
    monkeypatch.chdir("/")
    monkeypatch.setenv("REPDYN_RUNS", str(tmp_path / "runs"))
    assert pretrained.provenance(f"small@{seen}").images == seen
    found = pretrained.load(f"small@{seen}").state_dict()
    assert all((found[key] == value).all() for key, value in expected.items())
    (stage,) = measure(TrainingCurveConfig(CURVE, (f"small@{seen}",), untrained=False))["stages"]
    assert stage["weights"] == f"small@{seen}" and stage["images"] == seen
    with pytest.raises(ValueError, match="small@1.*REPDYN_RUNS"):
        pretrained.load("small@1")


def test_other_weights_under_the_same_name_are_not_taken_for_those_that_were(
    weights: tuple[str, ...], tmp_path: Path
) -> None:
    config = TrainingCurveConfig(CURVE, weights[:1], untrained=False)
    measure(config, cache=tmp_path / "cache")
    Path(weights[0]).write_bytes(Path(weights[1]).read_bytes())
    with pytest.raises(sweeps.SweepError, match="another measurement .network: "):
        measure(config, cache=tmp_path / "cache")


def test_without_the_untrained_network(weights: tuple[str, ...], tiny: TrainConfig) -> None:
    (stage,) = measure(TrainingCurveConfig(CURVE, weights[1:], untrained=False))["stages"]
    assert stage["images"] == 4 * tiny.batch_size


def test_weights_that_tell_no_length_are_refused(tmp_path: Path) -> None:
    snapshot = tmp_path / "old.pkl"
    snapshot.write_bytes(b"")
    with pytest.raises(ValueError, match="old.pkl"):
        measure(TrainingCurveConfig(CURVE, (str(snapshot),)))


def test_a_stage_that_cannot_be_read_is_named(weights: tuple[str, ...]) -> None:
    curve = replace(CURVE, layers=("enc/9x9_block0",))
    with pytest.raises(sweeps.SweepError, match="2 of 2(.|\n)*9x9_block0"):
        measure(TrainingCurveConfig(curve, weights, untrained=False))
