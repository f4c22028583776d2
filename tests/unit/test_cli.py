"""The command line, the presets behind it, and the public surface of the package."""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open

import repdyn
from repdyn import cli, datasets, presets, pretrained, records
from repdyn.chapters import recipes
from repdyn.curves import CurveConfig, measure
from repdyn.networks import UNet
from repdyn.records import Recipe, sweeps
from repdyn.training import TrainConfig, train


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def read(weights: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(weights, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["data", "train", "probe", "record", "verify"]),
        (["data"], ["digits", "cifar10", "image-folder", "REPDYN_DATA", "--path", "--size"]),
        (["train"], ["fashion-small", "fashion-tiny", "--out", "--cpu", "--dataset"]),
        (["probe"], ["--weights", "fashion-small", "--sigmas", "--noisy", "--layers", "--l2", "posterior", "Try:"]),
        (["record"], list(recipes.RECIPES)),
        (["verify"], ["--tolerance", "shipped weights"]),
    ],
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(arguments: list[str], words: list[str], flag: str) -> None:
    result = call(*arguments, flag)
    assert result.exit_code == 0
    unwrapped = "".join(result.output.split())  # the help is wrapped, and that may be within a name
    assert all("".join(word.split()) in unwrapped for word in words)


def test_train_go_on_and_export(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", tiny)
    result = call("train", "fashion-tiny", "--out", tmp_path, "--cpu")
    assert result.exit_code == 0, result.output
    weights = tmp_path / "fashion-tiny" / "weights.safetensors"
    assert str(weights) in result.output
    before, described = read(weights)
    assert pretrained.load(weights)(torch.zeros(1, 1, 8, 8), 1.0).shape == (1, 1, 8, 8)
    weights.unlink()
    assert call("train", "fashion-tiny", "--out", tmp_path, "--cpu").exit_code == 0
    after, again = read(weights)
    assert described == again and all(torch.equal(before[name], after[name]) for name in before)


def test_train_on_another_data_set(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", replace(tiny, dataset="fashion-mnist-mini"))
    train = ("train", "fashion-tiny", "--out", tmp_path, "--cpu", "--dataset")
    assert call(*train, tiny.dataset).exit_code == 0
    assert pretrained.provenance(tmp_path / "fashion-tiny" / "weights.safetensors").dataset == tiny.dataset
    refused = call(*train, "fashion-mnist-mini")
    assert refused.exit_code == 1 and "belongs to another training configuration" in refused.output
    unknown = call("train", "fashion-tiny", "--out", tmp_path / "new", "--cpu", "--dataset", "x")
    assert unknown.exit_code == 1 and "unknown data set 'x'" in unknown.output


def test_train_reports_what_is_wrong_without_a_traceback(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", tiny)
    call("train", "fashion-tiny", "--out", tmp_path, "--cpu")
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", replace(tiny, seed=9))
    result = call("train", "fashion-tiny", "--out", tmp_path, "--cpu")
    assert result.exit_code == 1
    assert "Error: " in result.output and "belongs to another training configuration" in result.output
    assert isinstance(result.exception, SystemExit)


def test_an_unknown_preset_is_refused() -> None:
    result = call("train", "fashion-enormous")
    assert result.exit_code == 2 and "fashion-tiny" in result.output
    for function in (presets.get, recipes.get):
        with pytest.raises(ValueError, match="'x'.*fashion"):
            function("x")


QUICK = ["--dataset", "digits", "--num-train", 200, "--num-test", 100, "--splits", 2, "--layers", "enc/8x8_block0"]


@pytest.fixture
def small_weights(tiny: TrainConfig, tmp_path: Path) -> Path:
    """A file of weights for the digits."""
    list(train(tiny, tmp_path / "state.safetensors", cpu=True))
    pretrained.export(tmp_path / "state.safetensors", tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_probe_prints_and_writes_what_measure_finds(small_weights: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "folder" / "curve.json", tmp_path / "cache"
    arguments = ["probe", "--weights", small_weights, *QUICK, "--sigmas", "0.01, 0.3,3", "--noisy", "--l2", "0.1,0.01"]
    result = call(*arguments, "--cache", cache, "--out", out)
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    config = CurveConfig(
        weights=str(small_weights),
        dataset="digits",
        num_train=200,
        num_test=100,
        splits=2,
        layers=("enc/8x8_block0",),
        sigmas=(0.01, 0.3, 3.0),
        noisy_input=True,
        l2=(0.1, 0.01),
    )
    assert record["config"] == json.loads(json.dumps(asdict(config)))
    expected = json.loads(json.dumps(measure(config)))
    assert record["metrics"] == expected and record["provenance"]["libraries"]
    test, posterior = np.array(expected["test"]), np.mean(expected["posterior"], 0)
    lines = result.stdout.splitlines()  # progress bars go elsewhere
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["sigma", "test"])
    for i, sigma in enumerate(("0.01", "0.3", "3")):
        row = [f"{value:.4f}" for value in (test[:, i].mean(), np.ptp(test[:, i]), posterior[i])]
        assert lines[start + 1 + i].split() == [sigma, *row]
    assert "layer   enc/8x8_block0" in lines and f"pixels  {np.mean(expected['pixels']):.4f}" in lines
    assert any(f"{expected['peak']['above_right']:+.4f} [" in line and "highest" in line for line in lines)
    assert len(list(cache.iterdir())) == 3


def test_probe_at_two_levels_has_no_peak_and_one_penalty_no_choice(small_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.json"
    result = call("probe", "--weights", small_weights, *QUICK, "--sigmas", "0.1,1", "--l2", 0.1, "--out", out)
    assert result.exit_code == 0 and "peak" not in result.output
    assert json.loads(out.read_text())["config"]["l2"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sigmas", "0.1,x"], "'0.1,x'"),
        (["--weights", "nonsense"], "'nonsense'"),
        (["--out", "curve.txt"], "curve.txt"),
        (["--sigmas", "-1"], "sigma "),
        (["--layers", "enc/1x1"], "layers has enc/1x1"),
    ],
)
def test_probe_reports_what_is_wrong(small_weights: Path, arguments: list[str], named: str) -> None:
    result = call("probe", "--weights", small_weights, *QUICK, *arguments)
    assert result.exit_code != 0 and isinstance(result.exception, SystemExit)
    assert named in " ".join(result.output.split())


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """One recipe, whose result is the number in the list, in place of the book's, and its record shipped."""
    value = [0.5]
    name = "fashion-curve-clean"

    def measure(config: TrainConfig, **options: object) -> dict:
        return {"accuracy": value[0]}

    tiny = presets.PRESETS["fashion-tiny"]
    monkeypatch.setattr(recipes, "RECIPES", {name: Recipe(name, measure, tiny, tiny)})
    for function in ("read_any", "state", "verify"):
        monkeypatch.setattr(records, function, functools.partial(getattr(records, function), folder=tmp_path))
    return value


def test_record_then_verify(counting: list[float], tmp_path: Path) -> None:
    result = call("record", "fashion-curve-clean", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "fashion-curve-clean.json") in result.output
    result = call("verify")
    assert (result.exit_code, result.output) == (0, "fashion-curve-clean: agrees\n")
    counting[0] = 0.51
    assert call("verify", "fashion-curve-clean").exit_code == 0
    result = call("verify", "fashion-curve-clean", "--tolerance", "0.001")
    assert result.exit_code == 1
    assert "fashion-curve-clean: 1 numbers differ" in result.output
    assert "Error: fashion-curve-clean.accuracy: recorded 0.5, recomputed 0.51" in result.output


def test_a_record_that_is_missing_does_not_keep_others_from_being_checked(
    counting: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert call("record", "fashion-curve-clean", "--out", tmp_path).exit_code == 0
    known = recipes.RECIPES["fashion-curve-clean"]
    missing = replace(known, name="a-missing-one")
    monkeypatch.setattr(recipes, "RECIPES", {missing.name: missing, known.name: known})
    result = call("verify")
    assert result.exit_code == 1 and "fashion-curve-clean: agrees" in result.output
    assert "a-missing-one: cannot be checked" in result.output and "there is no record" in result.output


def test_a_record_made_again_is_measured_again(
    counting: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(config: TrainConfig, cache: Path | None = None, **options: object) -> dict:
        return {"accuracy": sweeps.run(lambda _, folder: counting[0], [0], cache=cache)[0]}

    name = "fashion-curve-clean"
    monkeypatch.setattr(recipes, "RECIPES", {name: replace(recipes.RECIPES[name], measure=measure)})
    for value in (0.5, 0.25):
        counting[0] = value
        assert call("record", name, "--out", tmp_path).exit_code == 0
        assert json.loads((tmp_path / f"{name}.json").read_text())["metrics"]["accuracy"] == value
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]


def test_presets_and_records_whose_folders_lie_side_by_side_have_different_names() -> None:
    assert not presets.PRESETS.keys() & recipes.RECIPES.keys()


def test_a_number_of_jobs_is_positive() -> None:
    assert "0 is not in the range x>=1" in call("record", "two-patch", "--jobs", "0").output


def test_the_list_says_what_is_recorded_missing_and_stale(
    counting: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "fashion-curve-clean"
    assert call("record", "--list").output.split() == [name, "missing"]
    call("record", name, "--out", tmp_path)
    assert call("record", "--list", name).output.split()[:3] == [name, "recorded", "0"]
    recipe = recipes.RECIPES[name]
    for field, reason in (("config", "images: 20000 there, 1200000 asked for"), ("slice_config", "another slice")):
        changed = replace(recipe, **{field: presets.PRESETS["fashion-small"]})
        monkeypatch.setattr(recipes, "RECIPES", {name: changed})
        assert f"{name:30}stale: " in call("record", "--list").output
        assert reason in call("record", "--list").output


def test_a_sweep_with_failures_ends_in_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(config: TrainConfig, **options: object) -> list:
        return sweeps.run(lambda value, folder: 1 / value, [1, 0], cache=options["cache"])

    tiny = presets.PRESETS["fashion-tiny"]
    monkeypatch.setattr(recipes, "RECIPES", {"two-patch": Recipe("two-patch", measure, tiny, tiny)})
    result = call("record", "two-patch", "--out", tmp_path)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "Error: 1 of 2 runs failed; the others are kept in" in result.output
    assert "ZeroDivisionError" in result.output and not (tmp_path / "two-patch.json").exists()


def test_record_needs_a_name_or_the_wish_for_a_list() -> None:
    result = call("record")
    assert result.exit_code == 2 and "name a record to make, or use --list" in result.output


def test_verify_without_a_record_says_how_to_make_it(counting: list[float]) -> None:
    result = call("verify")
    assert result.exit_code == 1
    assert "there is no record 'fashion-curve-clean': make it with 'repdyn record fashion-curve-clean'" in result.output


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_shipped_records_agree_with_the_shipped_weights(name: str, shared_data: Path) -> None:
    result = call("verify", name)
    if "is not on this computer, nor to be had from the web" in result.output:
        pytest.skip(f"NOT TESTED: {result.output.strip()}; put it into a folder named by REPDYN_DATA")
    assert (result.exit_code, result.output) == (0, f"{name}: agrees\n")


def test_a_slice_whose_images_are_missing_is_not_called_verified(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    fashion, ccp59 = (recipes.RECIPES[name] for name in ("fashion-curve-clean", "ccp59-segmentation-clean"))
    recorded = records.read_any(fashion.name)["slice"]["metrics"]
    fashion = replace(fashion, measure=lambda config: recorded)
    monkeypatch.setattr(recipes, "RECIPES", {recipe.name: recipe for recipe in (fashion, ccp59)})
    result = call("verify")
    assert result.exit_code == 0 and "fashion-curve-clean: agrees" in result.output
    missing = "ccp59-64x96.tar.xz is not on this computer, nor to be had from the web. Put it by hand into"
    assert f"ccp59-segmentation-clean: NOT CHECKED: {missing} {elsewhere}" in result.output
    assert "ccp59-segmentation-clean: agrees" not in result.output
    asked = call("verify", "ccp59-segmentation-clean")
    assert asked.exit_code == 1 and f"Error: {missing}" in asked.output


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_describe_networks_that_fit_their_images(name: str) -> None:
    config = presets.get(name)
    shapes = {"fashion": (1, 28, 28), "cifar10": (3, 32, 32), "ccp4": (3, 48, 32)}
    channels, height, width = shapes[config.dataset.split("-")[0]]
    assert config.dataset in datasets.NAMES and config.images >= 20_000
    assert (config.network.channels, config.network.resolution) == (channels, height)
    with torch.device("meta"), torch.no_grad():  # shapes alone: one of the networks is large
        x = torch.zeros(1, channels, height, width)
        assert UNet(config.network)(x, torch.zeros(1)).shape == x.shape


def test_weights_are_kept_along_the_way(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tiny, images=40 * 16)
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", config)
    averages = {
        step.images: {k: v.clone() for k, v in step.ema.state_dict().items()} for step in train(config, cpu=True)
    }
    weights = presets.train("fashion-tiny", tmp_path, cpu=True)
    steps = (1, 2, 5, 10, 20)  # 1/32 (rounded down), 1/16, ..., 1/2 of the 40
    expected = {f"weights-{16 * step}.safetensors": 16 * step for step in steps} | {"weights.safetensors": 640}
    assert {path.name for path in weights.parent.iterdir()} == {*expected, "state.safetensors"}
    for name, images in expected.items():
        tensors, metadata = read(weights.with_name(name))
        assert metadata["images"] == str(images)
        assert all(torch.equal(tensors[key], value.half()) for key, value in averages[images].items())


def test_only_the_main_process_exports(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", tiny)
    steps = [replace(step, main=False) for step in train(tiny, cpu=True)]
    monkeypatch.setattr(presets.training, "train", lambda *_, **__: iter(steps))
    presets.train("fashion-tiny", tmp_path, cpu=True)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_trainings_bar_counts_its_own_images(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    class Kept(presets.tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            bars.append(self)

    _, found, *later = train(tiny, cpu=True)
    later = [replace(found, restored=True), *later]
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", tiny)
    monkeypatch.setattr(presets, "tqdm", Kept)
    monkeypatch.setattr(presets.training, "train", lambda *_, **__: iter(later))
    monkeypatch.setattr(presets.pretrained, "export", lambda *_: None)
    presets.train("fashion-tiny", tmp_path, cpu=True)
    assert (bars[0].initial, bars[0].n) == (2 * tiny.batch_size, later[-1].images)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_are_named_as_they_are_found(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.name == name
    assert type(recipe.slice_config) is type(recipe.config)
    weights, own = (getattr(config, "weights", None) for config in (recipe.config, recipe.slice_config))
    assert own == weights or set(own) < set(weights), "a slice is a part of its record"
    shipped, others = ("digits", "fashion-mnist-mini", "ccp4"), ("cifar10-jpeg", "tinyimagenet100-32", "dtd10")
    config = recipe.slice_config
    sets = getattr(config, "targets", (getattr(getattr(config, "curve", config), "dataset", None),))
    assert set(sets) <= {*shipped, *others, None}, "a slice needs shipped data, or verify says NOT CHECKED"


# ----------------------------------------------------------------------------------------------- public surface


def test_every_public_name_is_there() -> None:
    assert len(set(repdyn.__all__)) == len(repdyn.__all__) > 10
    assert set(dir(repdyn)) == set(repdyn.__all__)
    named = {getattr(repdyn, name) for name in repdyn.__all__}
    assert None not in named
    for module in pkgutil.iter_modules(repdyn.__path__):
        if not module.name.startswith("_") and module.name != "cli":
            assert importlib.import_module(f"repdyn.{module.name}") in named, f"{module.name} is not named"


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages(repdyn.__path__, "repdyn.") if module.name != "repdyn.cli"]
)
def test_every_module_has_the_names_it_says(name: str) -> None:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        repdyn.nonsense  # noqa: B018


def test_import_is_quick_and_pulls_in_nothing_heavy() -> None:
    heavy = "{'torch', 'matplotlib', 'accelerate'}"
    code = f"import sys, repdyn; print(repdyn.__version__, sorted({heavy} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == f"{repdyn.__version__} []\n"
