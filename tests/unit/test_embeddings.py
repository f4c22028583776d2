"""The judge of images: its units, its errors, its bias, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repdyn import datasets
from repdyn.chapters.generation import embeddings
from repdyn.chapters.generation.embeddings import Embedding, Judge
from repdyn.chapters.generation.image_classifier import ImageClassifier
from repdyn.images import to_unit_range
from repdyn.metrics import frechet_from_moments


def gaussian(num: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """Images (num, 1, 2, 3) of independent pixels of unequal variance."""
    noise = torch.randn(num, 1, 2, 3, generator=torch.Generator().manual_seed(seed))
    return shift + scale * noise * torch.linspace(0.2, 1, 6).view(2, 3)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(embeddings.load("pixels"), gaussian(20_000, 0))


def test_distances_are_in_units_of_the_real_variance(judge: Judge) -> None:
    collapsed = torch.tensor(judge.mean, dtype=torch.float32).view(1, 1, 2, 3).repeat(100, 1, 1, 1)
    assert judge.distance(collapsed)[0] == pytest.approx(1, abs=1e-6)
    assert judge.distance(gaussian(20_000, 1, scale=0.5))[0] == pytest.approx(0.25, abs=0.01)
    shift = 0.3**2 * 6 / judge.scale
    assert judge.distance(gaussian(20_000, 1, shift=0.3))[0] == pytest.approx(shift, rel=0.05)


def test_distances_are_those_of_the_metric(judge: Judge) -> None:
    images = gaussian(500, 5, scale=0.8)
    real, other = (x.flatten(1).double().numpy() for x in (gaussian(20_000, 0), images))
    direct = frechet_from_moments(other.mean(0), np.cov(other.T), real.mean(0), np.cov(real.T))
    assert judge.distance(images)[0] == pytest.approx(direct / judge.scale, rel=1e-6)


def test_error_and_bias_are_those_of_repeated_samples(judge: Judge) -> None:
    values, errors = np.transpose([judge.distance(gaussian(400, seed, scale=0.6)) for seed in range(100, 160)])
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)
    real = [judge.distance(gaussian(400, seed))[0] for seed in range(200, 260)]
    assert judge.bias(400) == pytest.approx(np.mean(real), rel=0.15)


def test_by_number_splits_into_disjoint_sets(judge: Judge) -> None:
    images = gaussian(1000, 7)
    rows = judge.by_number(images, [100, 400, 1000])
    parts = [judge.distance(images[start : start + 400])[0] for start in (0, 400)]
    assert rows[1] == pytest.approx((np.mean(parts), np.std(parts, ddof=1)))
    assert rows[2] == pytest.approx((judge.distance(images)[0], 0.0))
    assert rows[0][0] > rows[1][0] > rows[2][0], "fewer images seem further away"


def test_a_classifier_embeds_what_an_image_can_store() -> None:
    test = datasets.load("fashion-mnist-mini", "test").images[:100]
    embedding = embeddings.load("fashion-cnn")
    images = to_unit_range(test)
    features = embedding(images)
    assert embedding.name == "fashion-cnn"
    assert torch.equal(features, ImageClassifier.load("fashion-cnn").transform(test))
    assert torch.equal(
        embedding(torch.where(images > 0.9, 7.0, images)), embedding(torch.where(images > 0.9, 1.0, images))
    )
    assert torch.equal(embeddings.load("pixels")(7 * images), 7 * images.flatten(1))


def test_any_function_is_an_embedding() -> None:
    judge = Judge(Embedding("row means", lambda images: images.mean(-1).flatten(1)), gaussian(100, 0))
    assert judge.mean.shape == (2,) and judge.embedding.name == "row means"


def test_too_few_images_are_refused(judge: Judge) -> None:
    with pytest.raises(ValueError, match="6 images .*pixels"):
        judge.distance(gaussian(6, 0))
    with pytest.raises(ValueError, match="^groups"):
        judge.distance(gaussian(20, 0), groups=21)
    with pytest.raises(ValueError, match="^numbers"):
        judge.by_number(gaussian(20, 0), [10, 30])
    with pytest.raises(ValueError, match="'inception'"):
        embeddings.load("inception")
