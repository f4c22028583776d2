"""Clusters of images without labels: preparation, judging, and what a mixture made to measure gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repdyn import datasets
from repdyn.chapters.recovery import clusters
from repdyn.chapters.recovery.clusters import ClusterConfig, measure, nearest_subspace, principal_components, rescaled
from repdyn.images import ImageSet, to_unit_range
from repdyn.theory.molrg import NoisyMoLRG


def test_principal_components_keep_the_variance_and_the_distances() -> None:
    images = datasets.load("digits", "train").images[:300]
    flat = to_unit_range(images).flatten(1).double()
    whole, kept = principal_components(images, 64)
    assert kept == pytest.approx(1.0)
    torch.testing.assert_close(torch.cdist(whole, whole), torch.cdist(flat, flat), rtol=1e-6, atol=1e-6)
    some, kept = principal_components(images, 10)
    assert kept == pytest.approx((some.square().sum() / (flat - flat.mean(0)).square().sum()).item())
    with pytest.raises(ValueError, match="^components .*64"):
        principal_components(images, 65)


def test_rescaled_has_the_energy_of_the_model() -> None:
    model = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0)
    x, _ = model.sample(40_000, 1)
    assert rescaled(7 * x, 2, 0.2).square().sum(1).mean().item() == pytest.approx(2 + 0.04 * 10)
    torch.testing.assert_close(rescaled(7 * x, 2, 0.2), x, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="^d .*n = 12"):
        rescaled(x, 13, 0.2)


def test_the_nearest_subspace_is_the_most_probable_class() -> None:
    model = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0, orthogonal=False)
    x, _ = model.sample(500, 1)
    expected = model.class_posterior(x, 0.0).argmax(1)
    assert torch.equal(nearest_subspace(x, torch.stack(model.bases)), expected)


def test_finished_fits_are_kept(tmp_path: Path) -> None:
    config = ClusterConfig("digits", num=200, components=8, dims=(1, 2), schedules=("0.3",), starts=2, steps=10)
    whole = measure(config, cache=tmp_path)
    kept = list(tmp_path.glob("*.json"))
    assert len(kept) == 1 + 2 + 2, "k-means, k-subspaces and the denoiser"
    kept[0].unlink()
    assert measure(config, cache=tmp_path) == whole == measure(config)


def test_what_is_returned_and_labels_only_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusterConfig("digits", num=400, components=20, dims=(2,), schedules=("0.3",), starts=2, steps=30)
    result = measure(config)
    assert result == json.loads(json.dumps(result)), "plain numbers and lists"
    (entry,) = result["denoiser"]
    assert (entry["d"], entry["schedule"]) == (2, "0.3") and np.shape(entry["inside"]) == (10, 2)
    assert len(result["k_means"]) == len(result["k_subspaces"][0]) == len(entry["accuracy"]) == 2
    assert 0.2 < min(result["k_means"]) and max(entry["accuracy"]) < 1
    original = datasets.load

    def relabelled(name: str, split: str) -> ImageSet:
        data = original(name, split)
        return data._replace(labels=(data.labels + 3) % 10)

    monkeypatch.setattr(clusters.datasets, "load", relabelled)
    assert measure(config) == result, "accuracy does not depend on what the classes are called"
    monkeypatch.setattr(clusters.datasets, "load", lambda *a: original(*a)._replace(labels=original(*a).labels.flip(0)))
    shuffled = measure(config)
    assert max(shuffled["k_means"]) < min(result["k_means"])
    assert shuffled["denoiser"][0]["losses"] == entry["losses"]


def test_a_mixture_is_clustered_and_its_variances_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NoisyMoLRG.random(n=16, d=1, K=3, delta=0.2, seed=0)
    x, labels = model.sample(3000, 1)
    images = ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8).reshape(-1, 1, 4, 4)
    data = ImageSet(images, labels, ("a", "b", "c"), "")
    monkeypatch.setattr(clusters.datasets, "load", lambda *a: data)
    config = ClusterConfig(components=16, dims=(1,), schedules=("0.3",), delta=0.2, starts=3, steps=200)
    (entry,) = measure(config)["denoiser"]
    told = (model.class_posterior(x, 0.0).argmax(1) == labels).double().mean().item()
    assert entry["accuracy"][int(np.argmin(entry["losses"]))] == pytest.approx(told, abs=0.03)
    assert entry["outside"] == pytest.approx(0.04, rel=0.15)
    assert np.ravel(entry["inside"]) == pytest.approx([1.0] * 3, rel=0.3)
