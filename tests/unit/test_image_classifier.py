"""The classifier that embeds images: it learns, repeats itself, survives its file, and refuses what it cannot take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.base import clone
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from repdyn import datasets
from repdyn.chapters.generation.image_classifier import ImageClassifier
from repdyn.images import ImageSet, to_unit_range


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    return datasets.load("digits", "train"), datasets.load("digits", "test")


@pytest.fixture(scope="module")
def fitted(digits: tuple) -> ImageClassifier:
    train, _ = digits
    return ImageClassifier(width=8, epochs=6, batch_size=64).fit(train.images, train.labels)


def test_it_learns_digits_and_its_features_do_too(fitted: ImageClassifier, digits: tuple) -> None:
    train, test = digits
    assert fitted.score(test.images, test.labels.numpy()) > 0.95
    features = fitted.transform(test.images)
    assert features.shape == (360, 32) and features.dtype == torch.float32 and (features >= 0).all()
    last = fitted.module_[-1]
    logits = features @ last.weight.T + last.bias
    np.testing.assert_allclose(fitted.decision_function(test.images), logits, atol=1e-5)


def test_shuffled_labels_are_not_learned(digits: tuple) -> None:
    train, test = digits
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
    classifier = ImageClassifier(width=4, epochs=1, batch_size=64).fit(train.images, train.labels[order])
    assert classifier.score(test.images, test.labels.numpy()) < 0.3


@pytest.mark.parametrize("options", [{}, {"flip": True, "shift": 2}])
def test_one_seed_one_result(digits: tuple, options: dict) -> None:
    train, _ = digits
    images, labels = train.images[:256], train.labels[:256]
    make = ImageClassifier(width=4, epochs=2, batch_size=64, **options)
    state = torch.random.get_rng_state()
    first, again = (clone(make).fit(images, labels).transform(images) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left alone"
    assert not torch.equal(first, clone(make).set_params(seed=1).fit(images, labels).transform(images))


def seen_in_one_epoch(images: torch.Tensor, **options: object) -> torch.Tensor:
    """What the network is given of ``images`` while it learns, (N, C, H, W)."""
    seen = []

    def note(module: nn.Module, inputs: tuple) -> None:
        if isinstance(module, nn.Sequential):
            seen.append(inputs[0])

    classifier = ImageClassifier(width=2, epochs=1, batch_size=len(images) // 2, **options)
    with register_module_forward_pre_hook(note):
        classifier.fit(images, torch.arange(len(images)) % 2)
    return torch.cat(seen)


def test_shifts_move_the_image_and_repeat_its_edge() -> None:
    image = torch.arange(20.0).view(1, 1, 4, 5).repeat(64, 1, 1, 1)
    moved = seen_in_one_epoch(image, shift=1)
    padded = torch.nn.functional.pad(image[:1], (1, 1, 1, 1), mode="replicate")
    allowed = [padded[0, :, i : i + 4, j : j + 5] for i in range(3) for j in range(3)]
    found = {next(k for k, a in enumerate(allowed) if torch.equal(a, m)) for m in moved}
    assert found == set(range(9))


def test_flips_mirror_about_half_of_the_images() -> None:
    image = torch.arange(20.0).view(1, 1, 4, 5).repeat(200, 1, 1, 1)
    found = seen_in_one_epoch(image, flip=True)
    mirrored = (found == image.flip(-1)).flatten(1).all(1)
    assert ((found == image).flatten(1).all(1) ^ mirrored).all() and 60 < mirrored.sum() < 140


def test_bytes_and_floats_are_the_same_image(fitted: ImageClassifier, digits: tuple) -> None:
    _, test = digits
    floats = to_unit_range(test.images)
    assert torch.equal(fitted.transform(test.images), fitted.transform(floats))
    assert np.array_equal(fitted.predict(test.images), fitted.predict(floats.double().numpy()))


def test_a_saved_classifier_comes_back(fitted: ImageClassifier, digits: tuple, tmp_path: Path) -> None:
    _, test = digits
    fitted.save(tmp_path / "c.safetensors")
    loaded = ImageClassifier.load(tmp_path / "c.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
    assert loaded.get_params() == fitted.get_params()
    difference = (loaded.transform(test.images) - fitted.transform(test.images)).abs().max()
    assert 0 < difference < 5e-3, "half precision"
    assert np.mean(loaded.predict(test.images) == fitted.predict(test.images)) > 0.99


def test_what_holds_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'x' .*fashion-cnn"):
        ImageClassifier.load("x")
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", {"config": "{}"})
    with pytest.raises(ValueError, match="w.safetensors .*classifier"):
        ImageClassifier.load(tmp_path / "w.safetensors")


def test_the_shipped_judge_of_fashion_is_as_good_as_said() -> None:
    test = datasets.load("fashion-mnist-mini", "test")
    judge = ImageClassifier.load("fashion-cnn")
    assert judge.score(test.images, test.labels.numpy()) == pytest.approx(0.9265, abs=0.003)
    assert judge.transform(test.images[:2]).shape == (2, 64)


def test_the_shipped_judge_of_cifar_is_as_good_as_said(shared_data: Path) -> None:
    try:
        test = datasets.load("cifar10-jpeg", "test")
    except ConnectionError:
        pytest.skip("NOT TESTED: no cifar10-jpeg here; put it into a folder named by REPDYN_DATA")
    judge = ImageClassifier.load("cifar10-cnn")
    chosen, _ = datasets.stratified_split(test.labels, 2000, 0)
    assert judge.score(test.images[chosen], test.labels[chosen].numpy()) == pytest.approx(0.82, abs=0.03)


@pytest.mark.parametrize(
    ("options", "images", "labels", "named"),
    [
        ({}, torch.zeros(8, 64), torch.zeros(8), "^X .*8, 64"),
        ({}, torch.zeros(8, 1, 8, 8, dtype=torch.int64), torch.zeros(8), "^X .*int64"),
        ({}, torch.full((8, 1, 8, 8), torch.nan), torch.zeros(8), "^X .*NaN"),
        ({}, torch.zeros(8, 1, 8, 8), torch.zeros(7), "^y .*shape"),
        ({}, torch.zeros(8, 1, 8, 8), torch.zeros(8), "^y .*two classes"),
        ({}, torch.zeros(8, 1, 8, 8), torch.arange(8) % 2, "^batch_size"),
        ({"epochs": 0}, torch.zeros(8, 1, 8, 8), torch.arange(8), "^epochs"),
        ({"shift": -1}, torch.zeros(8, 1, 8, 8), torch.arange(8), "^shift"),
    ],
)
def test_what_it_cannot_learn_from_is_refused(
    options: dict, images: torch.Tensor, labels: torch.Tensor, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        ImageClassifier(**options).fit(images, labels)


def test_images_of_another_size_are_refused(fitted: ImageClassifier) -> None:
    with pytest.raises(ValueError, match="^X .*1, 28, 28"):
        fitted.transform(torch.zeros(2, 1, 28, 28))
