"""The measurement of a curve: what chooses what, the cache, the untrained twin, and no leak from test to training."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from repdyn import curves, datasets, features
from repdyn.curves import CurveConfig, measure
from repdyn.datasets.subset import image_subset
from repdyn.denoisers import EDMDenoiser, VPDenoiser
from repdyn.images import ImageSet
from repdyn.metrics.resampling import peak_height
from repdyn.noise import ddpm_alpha_bar
from repdyn.probes import LinearProbe, probe_curves
from repdyn.probes import levels as _probing
from repdyn.records import cache
from repdyn.training import TrainConfig, make_denoiser

CONFIG = CurveConfig(
    dataset="digits", num_train=200, num_test=100, sigmas=(0.01, 0.3, 3.0), splits=2, validation=0.25, l2=1e-2
)


@pytest.fixture
def extractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The noise levels at which features are extracted, in order."""
    levels: list[float] = []
    original = features.extract

    def counted(denoiser: EDMDenoiser, images: torch.Tensor, sigma: float, *args: object, **options: object) -> dict:
        levels.append(sigma)
        return original(denoiser, images, sigma, *args, **options)

    monkeypatch.setattr(features, "extract", counted)
    return levels


def test_what_is_returned(denoiser: EDMDenoiser) -> None:
    result = measure(CONFIG, denoiser)
    assert result == json.loads(json.dumps(result)) | {"peak": result["peak"]}, "plain lists only"
    assert result["sigmas"] == [0.01, 0.3, 3.0]
    assert result["layers"] == features.layers(denoiser)[:-1]
    assert np.shape(result["validation"]) == (len(result["layers"]), 3)
    assert np.shape(result["test"]) == np.shape(result["posterior"]) == (2, 3)
    assert np.shape(result["pixels"]) == (2,)
    best = np.max(result["validation"], axis=1).argmax()
    assert result["best_layer"] == result["layers"][best]
    peak = result["peak"]
    assert peak["index"] == np.argmax(result["validation"][best])
    mean = np.mean(result["test"], axis=0)
    assert peak["above_left"] == pytest.approx(mean[peak["index"]] - mean[0])
    assert peak["above_right"] == pytest.approx(mean[peak["index"]] - mean[-1])


def test_accuracies_against_one_probe_at_a_time(denoiser: EDMDenoiser) -> None:
    config = replace(CONFIG, layers=("enc/8x8_block0", "enc/4x4_down"), splits=1)
    result = measure(config, denoiser)
    train, test = datasets.load("digits", "train"), datasets.load("digits", "test")
    chosen, chosen_test = (
        datasets.stratified_split(data.labels, num, 0)[0] for data, num in ((train, 200), (test, 100))
    )
    held, fitted = datasets.stratified_split(train.labels[chosen], 50, 0)
    layer = result["layers"].index(result["best_layer"])
    for level, sigma in enumerate(config.sigmas):
        read = {"sigma": sigma, "layers": [result["best_layer"]]}
        x = features.extract(denoiser, train.images[chosen], **read)[result["best_layer"]]
        x_test = features.extract(denoiser, test.images[chosen_test], **read)[result["best_layer"]]
        labels = train.labels[chosen].numpy()
        probe = LinearProbe(l2=1e-2).fit(x[fitted], labels[fitted])
        assert result["validation"][layer][level] == pytest.approx(probe.score(x[held], labels[held]), abs=0.021)
        assert result["test"][0][level] == pytest.approx(
            probe.score(x_test, test.labels[chosen_test].numpy()), abs=0.011
        )


def test_the_test_images_choose_nothing(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = measure(CONFIG, denoiser)
    original = datasets.load

    def with_other_test_labels(name: str, split: str) -> ImageSet:
        data = original(name, split)
        return data._replace(labels=(data.labels + 1) % 10) if split == "test" else data

    monkeypatch.setattr(datasets, "load", with_other_test_labels)
    # All test images of a class are drawn, so that the same images are used under their new labels.
    fooled = measure(replace(CONFIG, num_test=None), denoiser)
    assert np.max(fooled["test"]) < 0.2 < np.min(honest["test"])
    for key in ("validation", "best_layer"):
        assert fooled[key] == honest[key]
    assert fooled["peak"]["index"] == honest["peak"]["index"]


def test_shuffled_labels_give_chance(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    original = datasets.load

    def with_shuffled_labels(name: str, split: str) -> ImageSet:
        data = original(name, split)
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
        return data._replace(labels=data.labels[order])

    monkeypatch.setattr(datasets, "load", with_shuffled_labels)
    result = measure(replace(CONFIG, num_train=None, num_test=None, layers=("enc/8x8_block0",)), denoiser)
    spread = (0.1 * 0.9 / 359) ** 0.5
    for accuracies in (result["validation"], result["test"], result["posterior"], result["pixels"]):
        assert np.abs(np.mean(accuracies) - 0.1) < 4 * spread


def test_interrupted_and_resumed_from_the_cache(
    denoiser: EDMDenoiser, tmp_path: Path, extractions: list[float]
) -> None:
    whole = measure(CONFIG, denoiser, cache=tmp_path)
    assert extractions == [0.01, 0.3, 3.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"features-{i}.safetensors" for i in range(3)]
    (tmp_path / "features-1.safetensors").unlink()
    assert measure(CONFIG, denoiser, cache=tmp_path) == whole
    assert extractions == [0.01, 0.3, 3.0, 0.3]
    assert measure(CONFIG, denoiser) == whole


def test_a_foreign_or_damaged_cache_is_refused(denoiser: EDMDenoiser, tmp_path: Path) -> None:
    config = replace(CONFIG, sigmas=(0.3,), layers=("enc/8x8_conv",), posterior=False)
    assert measure(config, denoiser, cache=tmp_path)["peak"] is None
    with pytest.raises(ValueError, match="features-0.safetensors .*noisy_input: false"):
        measure(replace(config, noisy_input=True), denoiser, cache=tmp_path)
    denoiser.model.enc["8x8_conv"].weight.data += 1e-3
    with pytest.raises(ValueError, match="another measurement"):
        measure(config, denoiser, cache=tmp_path)
    path = tmp_path / "features-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no readable"):
        measure(config, denoiser, cache=tmp_path)


def test_untrained_is_the_same_network_with_other_weights(
    denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[EDMDenoiser] = []
    original = features.extract

    def watched(network: EDMDenoiser, *args: object, **options: object) -> dict:
        used.append(network)
        return original(network, *args, **options)

    monkeypatch.setattr(features, "extract", watched)
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    config = replace(CONFIG, sigmas=(0.3,), untrained=True)
    first, again = measure(config, denoiser), measure(config, denoiser)
    assert first == again
    assert measure(replace(config, seed=1), denoiser)["validation"] != first["validation"]
    twin = used[0]
    assert twin is not denoiser and twin.model.config == denoiser.model.config
    assert not torch.equal(twin.model.enc["8x8_conv"].weight, denoiser.model.enc["8x8_conv"].weight)
    assert all(torch.equal(before[k], v) for k, v in denoiser.state_dict().items())


def test_the_untrained_twin_of_a_ddpm(denoiser: EDMDenoiser) -> None:
    ddpm = VPDenoiser(denoiser.model, ddpm_alpha_bar()[:600], "v_prediction", interpolate=False)
    twin, again = curves.untrained_twin(ddpm, 0), curves.untrained_twin(denoiser, 0)
    assert isinstance(twin, VPDenoiser) and (twin.prediction_type, twin.interpolate) == ("v_prediction", False)
    assert torch.equal(twin.log_sigmas, ddpm.log_sigmas) and twin.sigma_max == ddpm.sigma_max
    assert ddpm.model is denoiser.model is not twin.model
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), again.parameters(), strict=True))
    assert measure(replace(CONFIG, untrained=True, layers=("enc/8x8_conv",)), ddpm)["best_layer"] == "enc/8x8_conv"
    with pytest.raises(ValueError, match="no configuration"):
        curves.untrained_twin(VPDenoiser(torch.nn.Linear(2, 2)), 0)


def test_the_penalty_is_chosen_on_validation(denoiser: EDMDenoiser) -> None:
    penalties = (1e-3, 10.0, 1e-1)
    config = replace(CONFIG, layers=("enc/8x8_block0", "enc/4x4_down"), l2=penalties)
    result = measure(config, denoiser)
    assert result["validation"] == json.loads(json.dumps(result))["validation"]
    singles = [measure(replace(config, l2=l2), denoiser) for l2 in penalties]
    assert all("l2" not in single for single in singles), "one penalty: nothing to choose"
    assert np.shape(result["l2"]["layers"]) == (2, 2, 3)
    assert np.shape(result["l2"]["posterior"]) == (2, 3) and np.shape(result["l2"]["pixels"]) == (2,)
    assert np.unique(result["l2"]["layers"]) == [1e-3], "on this data the weakest is the best, by far"
    best = np.max([single["validation"] for single in singles], axis=0)
    assert (np.array(result["validation"]) >= best - 0.021).all()  # one image of 50, after another solution path


def test_the_strongest_of_equal_penalties_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    activations = torch.randn(2, 60, 4, generator=generator) + 100 * labels[:, None]  # any penalty separates them
    splits = [datasets.stratified_split(labels[:40], 10, 0)]
    found = probe_curves(list(activations), labels[:40], labels[40:], splits, (1e-4, 1e-2, 1e-3))
    assert found.validation.min() == 1 and (found.l2 == 1e-2).all()
    with pytest.raises(ValueError, match="l2"):
        probe_curves(activations, labels[:40], labels[40:], splits, ())


def test_without_a_cache_nothing_is_left_behind_and_nothing_is_hashed(
    denoiser: EDMDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "digest", None)  # would fail
    measure(replace(CONFIG, layers=("enc/8x8_conv",)), denoiser)
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, torch
from torch import nn
from repdyn import curves, datasets
from repdyn.probes import levels as _probing
from repdyn.images import ImageSet
torch.set_num_threads(1)
N, WIDTH, LAYERS = 6000, 512, 5
class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, WIDTH) for _ in range(LAYERS))
    def feature_layers(self):
        return {f"wide{i}": layer for i, layer in enumerate(self.layers)}
    def forward(self, x, sigma):
        for layer in self.layers:
            layer(x.flatten(1))
        return x
labels = torch.arange(N // 2) % 10
images = torch.randint(0, 256, (N // 2, 1, 8, 8), dtype=torch.uint8)
data = datasets.load("digits", "train")._replace(images=images, labels=labels)
datasets.load = lambda name, split: data
_probing._TOGETHER = 3e6
config = curves.CurveConfig(splits=1, l2=100.0, pixels=False, posterior=False)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
curves.measure(curves.CurveConfig(splits=1, l2=100.0, sigmas=(1.0,), layers=("wide0",), posterior=False), Wide())
before = peak()
curves.measure(config, Wide())
print(peak() - before, 1e-6 * 4 * N * WIDTH * LAYERS * len(config.sigmas))
"""


def test_memory_does_not_grow_with_layers_and_levels() -> None:
    """Five layers at ten levels, 614 MB, are measured with one level, or a layer at one level, in memory."""
    output = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    growth, features_size = map(float, output.split())
    assert features_size == pytest.approx(614.4)
    assert growth < 250


def test_labels_of_pixels_are_refused(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.load("digits", "train")
    monkeypatch.setattr(datasets, "load", lambda *_: data._replace(labels=torch.zeros(len(data.images), 8, 8)))
    with pytest.raises(ValueError, match="digits labels pixels"):
        measure(CONFIG, denoiser)


def test_fewer_layers_on_request(denoiser: EDMDenoiser) -> None:
    wanted = ("enc/8x8_block0", "enc/8x8_conv")
    result = measure(replace(CONFIG, sigmas=(0.3,), layers=wanted, posterior=False), denoiser)
    assert result["layers"] == ["enc/8x8_conv", "enc/8x8_block0"] and result["posterior"] is None
    with pytest.raises(ValueError, match="layers has enc/2x2_conv"):
        measure(replace(CONFIG, layers=("enc/2x2_conv",)), denoiser)


def test_noise_levels_in_portions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(5, 60, 8, generator=generator)
    labels = torch.arange(60) % 3
    activations[:, :, 0] += 2 * labels
    splits = [datasets.stratified_split(labels[:40], 10, seed) for seed in range(2)]
    sizes: list[int] = []
    original = _probing.fit_path

    def counted(features: torch.Tensor, *args: object, **options: object) -> list[list[LinearProbe]]:
        sizes.append(len(features))
        return original(features, *args, **options)

    monkeypatch.setattr(_probing, "fit_path", counted)
    validation, correct, _ = probe_curves(activations, labels[:40], labels[40:], splits, 1e-2)
    assert sizes == [5, 5]
    assert validation.shape == (2, 5) and correct.shape == (2, 5, 20) and correct.dtype == bool
    for level in range(5):
        one = probe_curves(activations[level : level + 1], labels[:40], labels[40:], splits, 1e-2)
        np.testing.assert_array_equal(one[0][:, 0], validation[:, level])
        np.testing.assert_array_equal(one[1][:, 0], correct[:, level])
    assert correct.mean() > 0.6
    assert peak_height(correct.mean(0), 2).index == 2


def test_a_subset_for_any_settings() -> None:
    settings = SimpleNamespace(dataset="digits", num_train=30, num_test=None, seed=3)
    train, test = (image_subset(settings, split) for split in ("train", "test"))
    whole = datasets.load("digits", "train")
    chosen, _ = datasets.stratified_split(whole.labels, 30, 3)
    assert torch.equal(train.images, whole.images[chosen]) and torch.equal(train.labels, whole.labels[chosen])
    assert train.labels.bincount().tolist() == [3] * 10 and len(test.images) == len(datasets.load("digits", "test")[0])
    settings.num_train = 100_000
    with pytest.raises(ValueError, match="num=100000"):
        image_subset(settings, "train")


def test_images_that_the_network_does_not_take_are_refused(tiny: TrainConfig) -> None:
    colour = make_denoiser(replace(tiny, network=replace(tiny.network, channels=3)))
    with pytest.raises(ValueError, match=r"3 channels .*\(1, 8, 8\)"):
        measure(CurveConfig(dataset="digits", num_train=50, num_test=20), colour)


@pytest.mark.parametrize(
    "change", [{"sigmas": (3.0, 0.3)}, {"sigmas": ()}, {"splits": 0}, {"validation": 1.0}, {"num_test": 0}]
)
def test_a_configuration_that_measures_nothing_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="got "):
        CurveConfig(**change)


def test_a_cache_of_a_network_told_otherwise_is_refused(denoiser: EDMDenoiser, tmp_path: Path) -> None:
    config = CurveConfig(dataset="digits", num_train=100, num_test=50, sigmas=(0.3,), splits=1, l2=1e-2)
    measure(config, denoiser, cache=tmp_path)
    other = EDMDenoiser(denoiser.model, 10 * denoiser.sigma_data)
    with pytest.raises(ValueError, match="another measurement .network: "):
        measure(config, other, cache=tmp_path)
    with pytest.raises(ValueError, match="precision: .float32. there, .bf16."):
        measure(replace(config, precision="bf16"), denoiser, cache=tmp_path)
    with pytest.raises(ValueError, match="images: "):
        measure(replace(config, num_train=110), denoiser, cache=tmp_path)


def test_an_unknown_precision_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="precision"):
        CurveConfig(precision="half")
