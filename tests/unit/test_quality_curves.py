"""The measurement behind the trade-off: what it returns, what chooses what, the cache, and the sampler's way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from repdyn import datasets, sampling
from repdyn.chapters.generation.embeddings import Judge
from repdyn.chapters.generation.embeddings import load as load_embedding
from repdyn.chapters.generation.measure import FIGURE_SIGMAS, QualityConfig, generate, measure
from repdyn.denoisers import EDMDenoiser
from repdyn.images import ImageSet, to_unit_range
from repdyn.noise import edm_sigmas

CONFIG = QualityConfig(
    dataset="digits",
    embeddings=("pixels",),
    num_train=200,
    num_test=150,
    sigmas=(0.01, 0.3, 3.0),
    probe_seeds=2,
    steps=6,
    samples=140,
    sample_seeds=2,
    numbers=(70, 140),
    bands=2,
)


@pytest.fixture(scope="module")
def result(module_denoiser: EDMDenoiser) -> dict:
    return measure(CONFIG, module_denoiser)


@pytest.fixture(scope="module")
def module_denoiser() -> EDMDenoiser:
    """The `denoiser` of these tests, made once."""
    from repdyn.networks import UNet, UNetConfig

    network = UNetConfig(8, 1, 8, (1, 2), 1, (4,), 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        denoiser = EDMDenoiser(UNet(network)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return denoiser.requires_grad_(False)


def test_what_is_returned(result: dict) -> None:
    plain = json.loads(json.dumps(result))
    assert result["accuracy"].pop("peak").keys() == plain["accuracy"].pop("peak").keys()
    assert result == plain, "plain lists only"
    assert result["sigmas"] == [0.01, 0.3, 3.0]
    assert result["frechet"].keys() == {"clean", "noisy", "linear", "generated"}
    for series in result["frechet"].values():
        assert np.shape(series["pixels"]) == (3, 2) and np.min(series["pixels"]) > 0
    assert np.shape(result["accuracy"]["validation"]) == np.shape(result["accuracy"]["test"]) == (2, 3)
    assert np.shape(result["accuracy"]["pixels"]) == (2,)
    assert np.shape(result["power"]) == (3, 2)
    assert np.shape(result["within"]) == np.shape(result["between"]) == (3,)
    assert result["by_number"]["numbers"] == [70, 140]


def test_at_no_noise_all_that_sees_an_image_returns_it(result: dict) -> None:
    floor = result["floor"]["pixels"][0]
    for kind in ("clean", "noisy", "linear"):
        assert result["frechet"][kind]["pixels"][0][0] == pytest.approx(floor, rel=0.1)
    assert result["power"][0] == pytest.approx([1, 1], abs=0.02)
    assert result["within"][0] == pytest.approx(1, abs=0.02) == result["between"][0]
    assert np.mean(result["accuracy"]["test"], 0)[0] == pytest.approx(np.mean(result["accuracy"]["pixels"]), abs=0.08)
    assert result["bias"]["pixels"] == pytest.approx(floor, rel=0.5)


def test_distances_are_those_of_the_estimates(result: dict, module_denoiser: EDMDenoiser) -> None:
    train, test = (datasets.load("digits", split) for split in ("train", "test"))
    chosen, _ = datasets.stratified_split(test.labels, 150, 0)
    images = to_unit_range(test.images[chosen])
    judge = Judge(load_embedding("pixels"), train.images)
    with torch.no_grad():
        expected = judge.distance(module_denoiser(images, 0.3))
    assert result["frechet"]["clean"]["pixels"][1] == pytest.approx(expected, rel=0.03)
    assert result["floor"]["pixels"] == pytest.approx(judge.distance(images))


def test_the_test_labels_choose_nothing(module_denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    original = datasets.load

    def with_other_test_labels(name: str, split: str) -> ImageSet:
        data = original(name, split)
        return data._replace(labels=(data.labels + 1) % 10) if split == "test" else data

    config = replace(CONFIG, num_test=None, probe_seeds=1, groups=2)
    honest = measure(config, module_denoiser)
    monkeypatch.setattr(datasets, "load", with_other_test_labels)
    fooled = measure(config, module_denoiser)
    assert fooled["accuracy"]["validation"] == honest["accuracy"]["validation"]
    assert fooled["accuracy"]["peak"]["index"] == honest["accuracy"]["peak"]["index"]
    assert np.mean(fooled["accuracy"]["test"]) < 0.2 < np.mean(honest["accuracy"]["test"], 0)[0]


def test_interrupted_and_resumed_from_the_cache(
    module_denoiser: EDMDenoiser, tmp_path: Path, result: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = datasets.load

    def with_other_training_images(name: str, split: str) -> ImageSet:
        data = original(name, split)
        return data._replace(images=data.images.flip(3)) if split == "train" else data

    whole = measure(CONFIG, module_denoiser, cache=tmp_path)
    names = [*(f"level-{i}.safetensors" for i in range(3)), *(f"samples-{i}.safetensors" for i in range(2))]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    (tmp_path / "level-1.safetensors").unlink()
    (tmp_path / "samples-1.safetensors").unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert measure(CONFIG, module_denoiser, cache=tmp_path) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items()), "what was there is used"
    for key in ("frechet", "floor", "power", "within", "between"):
        assert whole[key] == result[key], "a cache changes nothing"
    with pytest.raises(ValueError, match="level-0.safetensors"):
        measure(replace(CONFIG, seed=1), module_denoiser, cache=tmp_path)
    with pytest.raises(ValueError, match="precision"):
        measure(replace(CONFIG, precision="bf16"), module_denoiser, cache=tmp_path)
    with monkeypatch.context() as patch:  # other training images, on which the probes are fitted
        patch.setattr(datasets, "load", with_other_training_images)
        with pytest.raises(ValueError, match="images"):
            measure(CONFIG, module_denoiser, cache=tmp_path)


def test_generate_reads_the_estimates_on_the_samplers_way(module_denoiser: EDMDenoiser) -> None:
    levels = [level for level in edm_sigmas(6) if level > 3.3]
    images = sampling.sample(module_denoiser, (5, 1, 8, 8), [*levels, 3.0, 0.3, 0.01], seed=4)
    estimates = generate(module_denoiser, (5, 1, 8, 8), (0.01, 0.3, 3.0), steps=6, seed=4)
    assert estimates.shape == (3, 5, 1, 8, 8)
    torch.testing.assert_close(estimates[0], images, atol=0.05, rtol=0.05)  # bfloat16
    other_order = generate(module_denoiser, (5, 1, 8, 8), (3.0, 0.01), steps=6, seed=4)
    assert other_order.shape[0] == 2
    assert torch.equal(generate(module_denoiser, (5, 1, 8, 8), (3.0, 0.01, 0.3), steps=6, seed=4)[[1, 2, 0]], estimates)


def test_the_levels_are_those_of_edms_grid() -> None:
    assert np.allclose(FIGURE_SIGMAS, edm_sigmas(18)[:5:-1], atol=6e-4) and FIGURE_SIGMAS[-1] == 8.401


def test_embeddings_that_do_not_fit_are_refused(module_denoiser: EDMDenoiser) -> None:
    with pytest.raises(ValueError, match="^X .*1, 8, 8"):
        measure(replace(CONFIG, embeddings=("fashion-cnn",)), module_denoiser)
