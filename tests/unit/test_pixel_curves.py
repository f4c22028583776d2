"""Segmentation against noise level: disjoint images, no leak from the test, counts against one probe, the bootstrap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from repdyn import datasets, features
from repdyn.chapters.segmentation import pixels
from repdyn.chapters.segmentation.config import PixelCurveConfig
from repdyn.chapters.segmentation.measure import example_images, measure, peak_height
from repdyn.chapters.segmentation.task import draw, some_pixels
from repdyn.denoisers import EDMDenoiser
from repdyn.images import ImageSet
from repdyn.metrics import mean_iou
from repdyn.probes import MLPProbe

CONFIG = PixelCurveConfig(
    dataset="digits", threshold=100, num_labelled=20, num_validation=30, num_test=40, splits=2, sigmas=(0.01, 0.3, 3.0),
    hidden=32, max_epochs=6, batch_size=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> dict[str, ImageSet]:
    return {split: datasets.load("digits", split) for split in ("train", "test")}


def as_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_labelled_validation_and_test_images_are_disjoint(digits: dict) -> None:
    task = draw(CONFIG)
    parts = [task.images[part] for part in (*task.labelled, task.validation, task.test)]
    assert [len(part) for part in parts] == [20, 20, 30, 40]
    seen = [as_bytes(part) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 110
    train, test = (as_bytes(digits[split].images) for split in ("train", "test"))
    assert set.union(*seen[:3]) <= train and seen[3] <= test
    assert len(task.classes) == 11
    for part in task.labelled:  # two images of every digit
        assert sorted(mask.max().item() for mask in task.masks[part]) == sorted(2 * list(range(1, 11)))
    assert as_bytes(draw(replace(CONFIG, seed=1)).images) != as_bytes(task.images)


def test_a_test_image_that_repeats_a_training_image_is_left_out(digits: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    original = datasets.load
    copies = {5: 100, 9: 7}  # test image -> training image

    def with_copies(name: str, split: str) -> ImageSet:
        data = original(name, split)
        if split == "train":
            return data
        images = data.images.clone()
        for place, source in copies.items():
            images[place] = digits["train"].images[source]
        images[5] = (images[5].int() + 3).clamp(max=255).to(torch.uint8)  # and not even an exact copy
        return data._replace(images=images)

    monkeypatch.setattr(datasets, "load", with_copies)
    everything = draw(replace(CONFIG, num_test=None))
    apart = draw(replace(CONFIG, num_test=None, apart=0.05))
    assert len(everything.images[everything.test]) == 360
    expected = [i for i in range(360) if i not in copies]
    assert torch.equal(apart.images[apart.test], with_copies("digits", "test").images[expected])


def test_too_few_images_are_refused() -> None:
    for changes in ({"num_labelled": 700}, {"num_test": 400}, {"num_validation": 1500}):
        with pytest.raises(ValueError, match="more items"):
            draw(replace(CONFIG, **changes))


def test_the_same_number_of_pixels_of_each_image() -> None:
    chosen = some_pixels(replace(CONFIG, pixels_per_image=5), 20 * 64, 0)
    assert len(chosen.unique()) == 100 and (chosen // 64).bincount().tolist() == [5] * 20
    assert not torch.equal(chosen, some_pixels(replace(CONFIG, pixels_per_image=5), 20 * 64, 1))
    for wanted in (None, 1000):
        everything = some_pixels(replace(CONFIG, pixels_per_image=wanted), 20 * 64, 0)
        assert everything.sort().values.tolist() == list(range(20 * 64))


def test_what_is_returned(denoiser: EDMDenoiser) -> None:
    result = measure(replace(CONFIG, window=3, examples=2, example_sigmas=(0.3,)), denoiser)
    assert result == json.loads(json.dumps(result)) | {"peak": result["peak"]}, "plain lists only"
    assert result["layers"] == ["dec/4x4_in0", "dec/8x8_up"] and len(result["classes"]) == 11
    assert np.shape(result["test"]) == np.shape(result["validation"]) == np.shape(result["pixel_accuracy"]) == (2, 3)
    assert np.shape(result["class_iou"]) == (3, 11)
    assert {key: np.shape(value) for key, value in result["raw"].items()} == {"patch": (2,), "patch_place": (2,)}
    peak, curve = result["peak"], np.mean(result["test"], 0)
    assert peak["index"] == np.mean(result["validation"], 0).argmax()
    assert peak["above_left"] == pytest.approx(curve[peak["index"]] - curve[0])
    assert peak["above_right"] == pytest.approx(curve[peak["index"]] - curve[-1])
    np.testing.assert_allclose(np.mean(result["class_iou"], 1), curve, rtol=1e-9)


def test_scores_against_one_probe_on_all_test_pixels(denoiser: EDMDenoiser) -> None:
    config = replace(CONFIG, sigmas=(0.3,), pixels_per_image=20, examples=3, example_sigmas=(0.3,))
    result, task = measure(config, denoiser), draw(config)
    for split, part in enumerate(task.labelled):
        found = list(features.extract(denoiser, task.images, 0.3, result["layers"], pool="maps").values())
        x = pixels.rows(pixels.stack_maps(found, (8, 8))).reshape(len(task.images), 64, -1)
        chosen = some_pixels(config, 20 * 64, split)
        probe = MLPProbe(32, batch_size=64, max_epochs=6, seed=split)
        probe.fit(x[part].flatten(0, 1)[chosen], task.masks[part].flatten()[chosen])
        predicted = probe.predict(x[task.test].flatten(0, 1)).reshape(40, 8, 8)
        true = task.masks[task.test]
        # Interpolating one image or all of them rounds differently, which may move single pixels of 2560.
        assert result["test"][split][0] == pytest.approx(mean_iou(predicted, true, 11), abs=0.005)
        assert result["pixel_accuracy"][split][0] == pytest.approx((predicted == true.numpy()).mean(), abs=0.003)
        if split == 0:
            kept = result["examples"]
            as_rows = [
                ["".join(f"{v:x}" for v in row) for row in mask] for mask in (*predicted[:3], *true[:3].tolist())
            ]
            written = "".join(map("".join, kept["predicted"][0] + kept["true"]))
            agree = np.mean([a == b for a, b in zip(written, "".join(map("".join, as_rows)), strict=True)])
            assert agree > 0.99
    assert torch.equal(example_images(config), task.images[task.test][:3])


def test_the_probe_learns_and_shuffled_masks_teach_nothing(
    denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, sigmas=(0.05,), max_epochs=15, num_labelled=100, num_test=100)
    honest = np.mean(measure(config, denoiser)["test"])
    original = pixels.masks

    def shuffled(data: ImageSet, threshold: int | None) -> tuple[torch.Tensor, tuple[str, ...]]:
        masks, classes = original(data, threshold)
        order = torch.randperm(masks.numel(), generator=torch.Generator().manual_seed(0))
        return masks.flatten()[order].reshape(masks.shape), classes

    monkeypatch.setattr(pixels, "masks", shuffled)
    fooled = np.mean(measure(config, denoiser)["test"])
    background = (original(datasets.load("digits", "test"), 100)[0] == 0).double().mean().item()
    assert fooled < background / 11 + 0.03 < honest - 0.1


def test_the_test_images_choose_nothing(denoiser: EDMDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, num_labelled=100, max_epochs=15, num_test=100)
    honest = measure(config, denoiser)
    original = datasets.load

    def with_other_test_labels(name: str, split: str) -> ImageSet:
        data = original(name, split)
        return data._replace(labels=(data.labels + 1) % 10) if split == "test" else data

    monkeypatch.setattr(datasets, "load", with_other_test_labels)
    fooled = measure(config, denoiser)
    assert fooled["validation"] == honest["validation"] and fooled["peak"]["index"] == honest["peak"]["index"]
    assert np.max(fooled["test"]) < 0.1 < np.mean(honest["test"]) - 0.05


def test_interrupted_and_resumed_from_the_cache(
    denoiser: EDMDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[float] = []
    original = features.extract

    def counted(network: EDMDenoiser, images: torch.Tensor, sigma: float, *args: object, **options: object) -> dict:
        levels.append(sigma)
        return original(network, images, sigma, *args, **options)

    monkeypatch.setattr(features, "extract", counted)
    config = replace(CONFIG, examples=1, example_sigmas=(3.0,), noisy_input=True, draws=2)
    whole = measure(config, denoiser, cache=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"counts-{i}.safetensors" for i in range(3)]
    (tmp_path / "counts-1.safetensors").unlink()
    assert measure(config, denoiser, cache=tmp_path) == whole == measure(config, denoiser)
    assert levels == [0.01, 0.3, 3.0, 0.3, 0.01, 0.3, 3.0]
    for changes in ({"noisy_input": False}, {"hidden": 16}, {"seed": 1}, {"num_labelled": 10}, {"precision": "bf16"}):
        with pytest.raises(ValueError, match="counts-0.safetensors .*another"):
            measure(replace(config, **changes), denoiser, cache=tmp_path)
    denoiser.model.enc["8x8_conv"].weight.data += 1e-3
    with pytest.raises(ValueError, match="another measurement"):
        measure(config, denoiser, cache=tmp_path)


def test_untrained_is_another_network(denoiser: EDMDenoiser) -> None:
    config = replace(CONFIG, sigmas=(0.3,))
    twin = measure(replace(config, untrained=True), denoiser)
    assert twin["test"] != measure(config, denoiser)["test"]
    assert twin == measure(replace(config, untrained=True), denoiser)


# ---------------------------------------------------------------------------------------------------- the bootstrap


def counts_of(error_rates: list[float], num: int, seed: int) -> np.ndarray:
    """Counts (1, S, num, 2, 2) of images of 100 pixels, half of each class, each pixel wrong with these odds."""
    wrong = np.random.default_rng(seed).binomial(50, np.array(error_rates)[None, :, None, None], (1, 3, num, 2))
    counts = np.zeros((1, 3, num, 2, 2), dtype=np.int64)
    for k in range(2):
        counts[..., k, k], counts[..., k, 1 - k] = 50 - wrong[..., k], wrong[..., k]
    return counts


def test_height_is_that_of_the_summed_counts() -> None:
    counts = counts_of([0.3, 0.1, 0.2], 30, 0)
    peak = peak_height(counts, 1)
    ious = []
    for level in range(3):
        (a, b), (c, d) = counts[0, level].sum(0)
        ious.append((a / (a + b + c) + d / (b + c + d)) / 2)
    assert (peak.above_left, peak.above_right) == pytest.approx((ious[1] - ious[0], ious[1] - ious[2]))
    assert peak.left_interval[0] < peak.above_left < peak.left_interval[1]
    assert peak == peak_height(counts, 1) != peak_height(counts, 1, seed=1)


def test_intervals_have_the_spread_of_new_test_sets() -> None:
    heights = [peak_height(counts_of([0.3, 0.1, 0.2], 40, seed), 1, num_resamples=2).above_left for seed in range(400)]
    widths = []
    for seed in range(20):
        low, high = peak_height(counts_of([0.3, 0.1, 0.2], 40, seed), 1, num_resamples=500).left_interval
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(heights), rel=0.2)


def test_levels_are_compared_on_the_same_images() -> None:
    counts = np.repeat(counts_of([0.3, 0.3, 0.3], 30, 0)[:, :1], 3, axis=1)  # the same predictions at every level
    peak = peak_height(counts, 1)
    assert peak.left_interval == peak.right_interval == (0.0, 0.0)


def test_splits_are_averaged() -> None:
    first, second = counts_of([0.3, 0.1, 0.2], 30, 0), counts_of([0.4, 0.1, 0.1], 30, 1)
    both = peak_height(np.concatenate([first, second]), 1)
    each = [peak_height(part, 1) for part in (first, second)]
    assert both.above_left == pytest.approx(np.mean([peak.above_left for peak in each]))


def test_resamples_level_and_seed_are_those_of_the_one_bootstrap() -> None:
    """Guards that options arrive there, and what is drawn: images, their counts summed over the set."""
    counts = counts_of([0.3, 0.1, 0.2], 30, 0)
    assert peak_height(counts, 1) == peak_height(counts, 1, num_resamples=2000, level=0.95, seed=0)
    peak = peak_height(counts, 1, num_resamples=25, level=0.8, seed=4)
    rng = np.random.default_rng(4)
    sets = [counts[0][:, rng.integers(0, 30, 30)].sum(1) for _ in range(25)]  # each (3, 2, 2)
    iou = np.mean([[np.diag(c) / (c.sum(0) + c.sum(1) - np.diag(c)) for c in levels] for levels in sets], -1)
    assert peak.left_interval == pytest.approx(tuple(np.quantile(iou[:, 1] - iou[:, 0], [0.1, 0.9])), rel=1e-9)
    assert peak.right_interval == pytest.approx(tuple(np.quantile(iou[:, 1] - iou[:, 2], [0.1, 0.9])), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 2, 5, 3, 3), (3, 5, 3, 3), (1, 3, 5, 3, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="counts .*S >= 3"):
        peak_height(np.ones(shape), 1)
