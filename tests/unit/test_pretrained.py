"""Shipped weights: export and load, in half precision, and the refusal of whatever is not such a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from repdyn import pretrained
from repdyn.training import VP, Epsilon, TrainConfig, train


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata() or {}


@pytest.fixture
def exported(tiny: TrainConfig, tmp_path: Path) -> Path:
    """Weights exported from a short training, beside its state."""
    for step in train(tiny, tmp_path / "state.safetensors", cpu=True):
        torch.save(step.ema.state_dict(), tmp_path / "ema.pt")
    pretrained.export(tmp_path / "state.safetensors", tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_export_and_load_round_trip(exported: Path) -> None:
    ema = torch.load(exported.with_name("ema.pt"))
    denoiser = pretrained.load(exported)
    assert not denoiser.training and not any(p.requires_grad for p in denoiser.parameters())
    state = denoiser.state_dict()
    assert state.keys() == ema.keys()
    for name, value in ema.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value.half().float())


def test_exported_file_is_half_precision_and_describes_itself(exported: Path, tiny: TrainConfig) -> None:
    tensors, metadata = read(exported)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert metadata["images"] == "96"
    assert json.loads(metadata["config"]) == json.loads(json.dumps(asdict(tiny)))


def test_a_step_is_exported_as_its_state_file_is(tiny: TrainConfig, tmp_path: Path) -> None:
    for step in train(tiny, tmp_path / "state.safetensors", cpu=True, save_every_s=-1):
        pretrained.export(tmp_path / "state.safetensors", tmp_path / "a.safetensors")
        pretrained.export_step(step, tiny, tmp_path / "b.safetensors")
        (of_file, described), (of_step, again) = (read(tmp_path / f"{name}.safetensors") for name in "ab")
        assert described == again and described["images"] == str(16 * step.step)
        assert of_file.keys() == of_step.keys() and all(torch.equal(of_file[k], of_step[k]) for k in of_file)


@pytest.mark.parametrize(("preconditioning", "sigma_max"), [(Epsilon(), 157.4), (VP(), 152.2)])
def test_other_preconditionings_survive_the_round_trip(
    tiny: TrainConfig, tmp_path: Path, preconditioning: Epsilon | VP, sigma_max: float
) -> None:
    config = replace(tiny, preconditioning=preconditioning, images=16)
    step = next(train(config, cpu=True))
    pretrained.export_step(step, config, tmp_path / "weights.safetensors")
    x, loaded = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8), pretrained.load(tmp_path / "weights.safetensors")
    torch.testing.assert_close(loaded(x, 0.5), step.ema(x, 0.5), rtol=0.01, atol=0.01)
    assert loaded.sigma_max == step.ema.sigma_max == pytest.approx(sigma_max, abs=0.1)


def test_rounding_to_half_changes_the_output_little(exported: Path) -> None:
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rounded = pretrained.load(exported)
    exact = pretrained.load(exported)
    exact.load_state_dict(torch.load(exported.with_name("ema.pt")))
    difference = (rounded(x, 0.5) - exact(x, 0.5)).norm() / exact(x, 0.5).norm()
    assert 0 < difference < 1e-3


def test_provenance_of_weights(exported: Path) -> None:
    assert pretrained.provenance(exported) == (str(exported), "digits", 96)
    assert pretrained.provenance("fashion-small") == ("fashion-small", "fashion-mnist", 1_200_000)


@pytest.mark.parametrize("function", [pretrained.load, pretrained.provenance])
def test_an_unknown_name_is_refused(function: Callable) -> None:
    with pytest.raises(ValueError, match="fashion-huge.*edm-cifar10"):
        function("fashion-huge")


@pytest.mark.parametrize("name", pretrained.available())
@torch.no_grad()
def test_shipped_weights_denoise(name: str, shared_data: Path) -> None:
    from repdyn.datasets import load
    from repdyn.images import to_unit_range

    denoiser = pretrained.load(name)
    _, metadata = read(Path(str(files("repdyn") / "assets/weights" / f"{name}.safetensors")))
    config = json.loads(metadata["config"])
    dataset = {"fashion-mnist": "fashion-mnist-mini"}.get(config["dataset"], config["dataset"])
    try:
        x0 = to_unit_range(load(dataset, "test")[0][:16])
    except ConnectionError:
        pytest.skip(f"NOT TESTED: no {dataset} here; put it into a folder named by REPDYN_DATA")
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 0.5, 2.0):
        error = (denoiser(x0 + sigma * noise, sigma) - x0).square().mean()
        linear = sigma**2 * config["sigma_data"] ** 2 / (sigma**2 + config["sigma_data"] ** 2)
        assert error < 0.6 * linear  # the best that a denoiser pixel by pixel could do on Gaussian data


def test_damaged_and_foreign_files_are_refused(exported: Path, tmp_path: Path, tiny: TrainConfig) -> None:
    tensors, metadata = read(exported)
    bad = tmp_path / "bad.safetensors"

    bad.write_bytes(exported.read_bytes()[:-10])
    with pytest.raises(ValueError, match="bad.safetensors is no readable"):
        pretrained.load(bad)
    save_file(tensors, bad, {})
    with pytest.raises(ValueError, match="bad.safetensors holds no configuration"):
        pretrained.load(bad)
    other = replace(tiny, network=replace(tiny.network, model_channels=16))
    save_file(tensors, bad, {"config": json.dumps(asdict(other))})
    with pytest.raises(ValueError, match="bad.safetensors .*network"):
        pretrained.load(bad)
    save_file(tensors, bad, {"config": json.dumps({**json.loads(metadata["config"]), "colour": 1})})
    with pytest.raises(ValueError, match="colour"):
        pretrained.load(bad)
    with pytest.raises(ValueError, match="not the state"):
        pretrained.export(exported, bad)
    with pytest.raises(ValueError, match="nothing.safetensors is no readable"):
        pretrained.export(tmp_path / "nothing.safetensors", bad)


def test_a_page_in_place_of_a_snapshot_says_which_file_to_remove(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path)
    page = tmp_path / "weights" / "edm-cifar10-32x32-uncond-vp.pkl"
    page.parent.mkdir()
    page.write_text("<html>log in first</html>")
    with pytest.raises(ValueError, match="remove .*edm-cifar10-32x32-uncond-vp.pkl"):
        pretrained.load("edm-cifar10-32x32-uncond-vp")


def test_the_state_of_a_training_is_no_checkpoint(tiny: TrainConfig, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    next(train(tiny, state, cpu=True, save_every_s=-1))
    with pytest.raises(ValueError, match="state.safetensors .*export"):
        pretrained.provenance(state)
