"""Probes under label noise: what chooses, what votes, and scores of probabilities against definitions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from repdyn import features
from repdyn.chapters.ensembles import references
from repdyn.chapters.ensembles.ensembling import Labelled, compare, window
from repdyn.chapters.ensembles.labels import label_noise
from repdyn.chapters.ensembles.measure import EnsembleConfig, labelled, measure, measure_network, task
from repdyn.chapters.ensembles.results import dataset
from repdyn.denoisers import EDMDenoiser
from repdyn.metrics import calibration_error, error_correlation
from repdyn.probes import LinearProbe, SoftVoting, vote
from repdyn.training import TrainConfig

CONFIG = EnsembleConfig(
    sources=("weights",),
    targets=("digits",),
    num_train=300,
    num_test=150,
    sigmas=(0.01, 0.1, 0.4, 1.0, 3.0),
    layers=None,
    l2=(1e-1, 1e-2),
    shares=(0.0, 0.6),
    label_seeds=(0,),
    draws_of=(),
    components=(4, 8, 16, 32, 64),
)


# ------------------------------------------------------------------------------------------------------------- scores


def test_calibration_error_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    p, y = softmax(2 * rng.standard_normal((400, 4)), axis=1), rng.integers(0, 4, 400)
    expected, confidence = 0.0, p.max(1)
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            expected += inside.mean() * abs((p.argmax(1) == y)[inside].mean() - confidence[inside].mean())
    assert calibration_error(p, y, bins=10) == pytest.approx(expected, rel=1e-9)
    assert calibration_error(p, y, bins=1) == pytest.approx(abs((p.argmax(1) == y).mean() - confidence.mean()))


def test_an_honest_predictor_is_calibrated_and_a_boastful_one_is_not() -> None:
    rng = np.random.default_rng(1)
    p = softmax(rng.standard_normal((40_000, 3)), axis=1)
    y = (rng.random(len(p))[:, None] > p.cumsum(1)).sum(1)
    assert calibration_error(p, y) < 0.015
    sharper = softmax(3 * np.log(p), axis=1)
    gap = sharper.max(1).mean() - (p.argmax(1) == y).mean()
    assert calibration_error(sharper, y) == pytest.approx(gap, rel=0.1) and gap > 0.1


@pytest.mark.parametrize(
    ("p", "y", "bins", "named"),
    [
        (np.eye(3), [0, 1, 3], 15, "labels .*0..2"),
        (2 * np.eye(3), [0, 1, 2], 15, "sum to 1"),
        (np.eye(3)[0], [0, 1, 2], 15, r"\(N, classes\)"),
        (np.eye(3), [0, 1, 2], 0, "bins"),
    ],
)
def test_what_calibration_refuses(p: np.ndarray, y: list[int], bins: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        calibration_error(p, y, bins)


def test_correlation_of_errors() -> None:
    rng = np.random.default_rng(2)
    shared, own = rng.random(50_000) < 0.5, rng.random((3, 50_000)) < 0.8
    correct = np.where(shared, own[0], own)  # half of the items: all three alike; the other half: each its own luck
    assert error_correlation(correct) == pytest.approx(0.5, abs=0.02)
    assert error_correlation(own) == pytest.approx(0, abs=0.02) and error_correlation(own[[0, 0]]) == pytest.approx(1)
    with pytest.raises(ValueError, match="always right"):
        error_correlation([[1, 1, 1], [0, 1, 0]])
    with pytest.raises(ValueError, match="P >= 2"):
        error_correlation(own[:1])


def test_a_vote_is_the_mean_of_the_logits_up_to_constants() -> None:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((5, 30, 4))
    found = vote(logits)
    np.testing.assert_allclose(softmax(found, 1), softmax(logits.mean(0), 1))
    np.testing.assert_allclose(found, vote(logits + rng.standard_normal((5, 30, 1))))
    # Log-loss is convex in the logits: a vote is never worse than its members are on average, on any item.
    y = rng.integers(0, 4, 30)
    losses = -log_softmax(logits, 2)[:, np.arange(30), y]
    assert (-log_softmax(found, 1)[np.arange(30), y] <= losses.mean(0) + 1e-12).all()


# ------------------------------------------------------------------------------------------------------ one label set


def blobs(levels: int = 5, dims: int = 6, num: int = 900) -> tuple[dict[str, list[Tensor]], np.ndarray]:
    """Two layers of features at several levels, the middle level of the second one the best by far."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, num)
    centres = rng.standard_normal((3, dims))
    layers = {}
    for layer, spread in (("a", 3.0), ("b", 1.5)):
        scale = spread * (1 + np.abs(np.arange(levels) - levels // 2))
        layers[layer] = [torch.from_numpy(centres[y] + s * rng.standard_normal((num, dims))).float() for s in scale]
    return layers, y


def close(accuracy: float) -> object:
    """Up to two of 300 items: these probes are solved to a coarser tolerance than those by hand."""
    return pytest.approx(accuracy, abs=2.01 / 300)


def labels_of(y: np.ndarray, share: float = 0.0, train: int = 600) -> Labelled:
    noisy = label_noise(y[:train], share, 3, 0)
    return Labelled(noisy, y[train:], np.arange(400), np.arange(400, train), 3)


def test_the_rows_are_what_their_names_say() -> None:
    layers, y = blobs()
    labels = labels_of(y, 0.2)
    found = compare(layers, labels, (1e-2,), neighbours=2)
    assert (found["layer"], found["level"], found["l2"]) == ("b", 2, 1e-2) and set(found) >= {"levels", "concatenated"}
    probe = LinearProbe(1e-2).fit(layers["b"][2][:400], labels.train[:400])
    assert found["best"]["accuracy"] == found["curve"][2] == close(probe.score(layers["b"][2][600:], y[600:]))
    voting = SoftVoting(1e-2).fit([x[:400] for x in layers["b"]], labels.train[:400])
    test = [x[600:] for x in layers["b"]]
    assert found["levels"]["accuracy"] == close(voting.score(test, y[600:]))
    p = voting.predict_proba(test)
    assert found["levels"]["nll"] == pytest.approx(-np.log(p[np.arange(300), y[600:]]).mean(), abs=1e-3)
    assert found["levels"]["ece"] == pytest.approx(calibration_error(p, y[600:]), abs=5e-3)
    joined = LinearProbe(1e-2).fit(torch.cat(layers["b"], 1)[:400], labels.train[:400])
    assert found["concatenated"]["accuracy"] == close(joined.score(torch.cat(layers["b"], 1)[600:], y[600:]))
    assert found["levels"]["members"] == pytest.approx(np.mean(found["curve"]))
    assert 0 < found["levels"]["correlation"] < found["bootstrap"]["correlation"] < 1
    assert "layers" not in found and "draws" not in found, "two layers make no ensemble of five"


def test_layers_and_draws_vote_too() -> None:
    layers, y = blobs(levels=3)
    asked = []

    def draws(layer: str, level: int) -> list[Tensor]:
        asked.append((layer, level))
        return layers["a"]

    more = layers | {"c": layers["b"][::-1]}
    found = compare(more, labels_of(y), (1e-2,), neighbours=1, draws=draws)
    assert asked == [("b", 1)]
    assert found["draws"]["members"] == pytest.approx(
        np.mean(compare({"a": layers["a"]}, labels_of(y), (1e-2,), 1)["curve"])
    )
    # Layers "b" and "c" are the same at the middle level, "a" is the third.
    probes = [LinearProbe(1e-2).fit(more[n][1][:400], y[:400]).score(more[n][1][600:], y[600:]) for n in more]
    assert found["layers"]["members"] == close(np.mean(probes))


def test_the_penalty_is_the_one_that_does_best_on_held_out_wrong_labels() -> None:
    layers, y = blobs(levels=1, dims=60)
    labels = labels_of(y, 0.5)
    x, strengths = layers["b"][0], (1.0, 1e-1, 1e-3)
    scores = [
        LinearProbe(l2).fit(x[:400], labels.train[:400]).score(x[400:600], labels.train[400:]) for l2 in strengths
    ]
    assert compare({"b": [x]}, labels, strengths)["l2"] == strengths[int(np.argmax(scores))]
    assert len(set(scores)) == 3


def test_neither_the_test_labels_nor_the_right_ones_choose() -> None:
    layers, y = blobs()
    labels = labels_of(y, 0.6)
    for other in (np.roll(y[600:], 7), 2 - y[600:]):
        a, b = compare(layers, labels, (1e-1, 1e-2)), compare(layers, labels._replace(test=other), (1e-1, 1e-2))
        assert [a[k] for k in ("layer", "level", "l2")] == [b[k] for k in ("layer", "level", "l2")]


@pytest.mark.parametrize(
    ("best", "levels", "expected"),
    [
        (4, 10, [2, 3, 4, 5, 6]),
        (0, 10, [0, 1, 2, 3, 4]),
        (1, 10, [0, 1, 2, 3, 4]),
        (9, 10, [5, 6, 7, 8, 9]),
        (1, 3, [0, 1, 2]),
    ],
)
def test_the_window_stays_inside(best: int, levels: int, expected: list[int]) -> None:
    assert window(best, levels, 2) == expected


def test_probes_that_never_fail_have_no_correlated_errors() -> None:
    layers, y = blobs()
    easy = {"easy": [x + 1000 * torch.from_numpy(np.eye(3, 6)[y]).float() for x in layers["b"]]}
    found = compare(easy, labels_of(y), (1e-2,))
    assert found["levels"]["accuracy"] == found["bootstrap"]["members"] == 1
    assert found["bootstrap"]["correlation"] is found["levels"]["correlation"] is None
    mixed = compare({"mixed": [easy["easy"][0], *layers["b"][1:]]}, labels_of(y), (1e-2,))
    assert 0 < mixed["levels"]["correlation"] < 1


def test_a_class_that_is_missing_is_named() -> None:
    layers, y = blobs(levels=1)
    labels = labels_of(y)
    gone = labels._replace(fitted=labels.fitted[labels.train[labels.fitted] > 0])
    with pytest.raises(ValueError, match="2 of 3 classes"):
        compare(layers, gone, (1e-2,))


# -------------------------------------------------------------------------------------------------------- measurement


def test_what_a_network_gives(denoiser: EDMDenoiser) -> None:
    one = task(CONFIG, "digits")
    found = measure_network(CONFIG, one, denoiser)
    assert found == json.loads(json.dumps(found)), "plain lists only"
    assert found["target"] == "digits" and found["sigmas"] == list(CONFIG.sigmas)
    assert [(run["share"], run["seed"]) for run in found["runs"]] == [(0.0, 0), (0.6, 0)]
    for run in found["runs"]:
        assert run["sigma"] in CONFIG.sigmas and run["layer"] in features.layers(denoiser)
        assert {"best", "levels", "concatenated", "layers", "bootstrap"} < set(run) and len(run["curve"]) == 5
        assert run["levels"]["nll"] <= 1.1 * run["best"]["nll"]
    clean, noisy = (run["best"]["accuracy"] for run in found["runs"])
    assert clean > 0.7 > noisy > 0.2
    # The same by hand, at the place that was chosen.
    run, labels = found["runs"][1], labelled(CONFIG, one, 0.6, 0)
    x = features.extract(denoiser, one.images, run["sigma"], [run["layer"]])[run["layer"]]
    probe = LinearProbe(run["l2"]).fit(x[labels.fitted], labels.train[labels.fitted])
    assert probe.score(x[300:], one.test) == pytest.approx(run["best"]["accuracy"], abs=0.02)


def test_noise_draws_are_read_when_they_are_asked_for(denoiser: EDMDenoiser, tmp_path: object) -> None:
    config = replace(CONFIG, neighbours=1, shares=(0.0,), draws_of=("diffusion",), layers=("dec/8x8_block0",))
    one = task(config, "digits")
    found = measure_network(config, one, denoiser, "diffusion", cache=tmp_path)
    run, labels = found["runs"][0], labelled(config, one, 0.0, 0)
    options = {"noisy_input": True}
    scores = []
    for seed in (1, 2, 3):
        x = features.extract(denoiser, one.images, run["sigma"], [run["layer"]], seed=seed, **options)[run["layer"]]
        probes = [LinearProbe(l2).fit(x[labels.fitted], labels.train[labels.fitted]) for l2 in config.l2]
        best = max(probes, key=lambda probe: probe.score(x[labels.held], labels.train[labels.held]))
        scores.append(best.score(x[300:], one.test))
    assert run["draws"]["members"] == pytest.approx(np.mean(scores), abs=0.01) and len(set(scores)) > 1
    assert len(list(tmp_path.glob("features-*"))) == 5 + 3
    assert measure_network(config, one, denoiser, "diffusion", cache=tmp_path) == found


def test_draws_of_another_seed_network_or_precision_are_refused(denoiser: EDMDenoiser, tmp_path: object) -> None:
    config = replace(
        CONFIG, neighbours=1, shares=(0.0,), sigmas=(0.1, 0.4, 1.0), draws_of=("weights",), layers=("dec/8x8_block0",)
    )
    one = task(config, "digits")
    measure_network(config, one, denoiser, cache=tmp_path)
    with pytest.raises(ValueError, match="seed: 1 there, 8"):
        measure_network(replace(config, seed=7), one, denoiser, cache=tmp_path)
    with pytest.raises(ValueError, match="precision: .float32. there, .bf16."):
        measure_network(replace(config, precision="bf16"), one, denoiser, cache=tmp_path)
    for path in tmp_path.glob("features-[0-2].*"):  # of the clean input: the draws stay
        path.unlink()
    denoiser.model.dec["8x8_block0"].conv0.weight.data *= 1.1
    with pytest.raises(ValueError, match=r"features-\d+.safetensors .*network: "):
        measure_network(config, one, denoiser, cache=tmp_path)


def test_pixels_are_reduced_by_what_the_training_images_say() -> None:
    one = task(CONFIG, "digits")
    found = measure_network(CONFIG, one, None, "pixels")
    assert found["sigmas"] is None and found["runs"][0]["layer"].startswith("pca-")
    reference = LogisticRegression(C=0.1, max_iter=2000).fit(one.images[:300].flatten(1), one.train)
    assert found["runs"][0]["best"]["accuracy"] > reference.score(one.images[300:].flatten(1), one.test) - 0.05


def test_wrong_labels_are_nested_and_the_split_stays() -> None:
    one = task(CONFIG, "digits")
    few, many = (labelled(CONFIG, one, share, 3) for share in (0.2, 0.6))
    np.testing.assert_array_equal(few.held, many.held)
    assert len(few.held) == 75 and sorted([*few.held, *few.fitted]) == list(range(300))
    wrong = few.train != one.train
    assert wrong.sum() == 60 and (many.train[wrong] == few.train[wrong]).all()
    assert not np.array_equal(labelled(CONFIG, one, 0.2, 4).held, few.held)


def test_images_are_resized_to_what_the_network_knows() -> None:
    one = task(replace(CONFIG, size=4), "digits")
    assert one.images.shape == (450, 1, 4, 4) and one.images.abs().max() <= 1
    mean = task(CONFIG, "digits").images.mean((2, 3))
    assert (one.images.mean((2, 3)) - mean).abs().max() < 0.1


def test_all_sources_with_equal_budget(tiny: TrainConfig, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source once; a second call finds them all; only those that are trained here are trained."""
    trainings = []
    original = references.trained

    def counted(plan: TrainConfig, kind: str, state: object = None) -> nn.Module:
        trainings.append((kind, plan.images, plan.learning_rate))
        return original(plan, kind, state)

    monkeypatch.setattr(references, "trained", counted)
    sources = ("diffusion", "masked", "supervised", "untrained", "pixels", "end to end")
    plan = replace(tiny, images=320)
    config = replace(
        CONFIG,
        sources=sources,
        training=plan,
        neighbours=1,
        draws_of=("diffusion",),
        learning_rates=(("supervised", 0.02),),
    )
    found = measure(config, cache=tmp_path)
    assert [result["source"] for result in found["results"]] == list(sources)
    rates = (tiny.learning_rate, tiny.learning_rate, 0.02, tiny.learning_rate)
    assert trainings == [(kind, 320, rate) for kind, rate in zip(sources, rates, strict=False)]
    assert found == measure(config, cache=tmp_path) and len(trainings) == 4
    rows = {result["source"]: result["runs"][0] for result in found["results"]}
    assert "draws" in rows["diffusion"] and "levels" in rows["diffusion"] and "levels" not in rows["masked"]
    assert rows["supervised"]["layer"].startswith("enc/") and set(rows["end to end"]) == {
        "share",
        "seed",
        "sigma",
        "best",
    }
    assert 0 < rows["end to end"]["best"]["images"] <= 320
    assert [run["share"] for run in found["results"][-1]["runs"]] == [0.0], "every other share"


def test_the_end_to_end_classifier_learns_from_wrong_labels(tiny: TrainConfig) -> None:
    one = task(CONFIG, "digits")
    plan, labels = replace(tiny, images=9600, learning_rate=1e-2), labelled(CONFIG, one, 0.6, 0)
    assert references.end_to_end(plan, one.images, labels)["accuracy"] > 0.25, "ten classes: chance is 0.1"


def test_the_end_to_end_classifier_is_taken_when_held_out_images_say(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(CONFIG, "digits")
    labels, looks = labelled(CONFIG, one, 0.2, 0), iter([0.1, 0.4, 0.4, 0.3, *[0.2] * 8])
    original = references.scores

    def told(logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
        found = original(logits, y)
        return found | {"accuracy": next(looks)} if np.array_equal(y, labels.train[labels.held]) else found

    monkeypatch.setattr(references, "scores", told)
    assert references.end_to_end(replace(tiny, images=384), one.images, labels)["images"] == 64  # the second of twelve
    assert next(looks, None) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sources": ("weights", "oracle")}, "sources .*oracle"),
        ({"sources": ("masked",)}, "training"),
        ({"validation": 0.0}, "validation"),
        ({"neighbours": 0}, "neighbours"),
    ],
)
def test_configurations_that_cannot_be(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(CONFIG, **changes)


def test_what_cannot_be_probed(denoiser: EDMDenoiser, shared_data: object) -> None:
    with pytest.raises(ValueError, match="more items"):
        task(replace(CONFIG, num_train=5000), "digits")
    with pytest.raises(ValueError, match="layers"):
        measure_network(replace(CONFIG, layers=("nowhere",)), task(CONFIG, "digits"), denoiser)
    with pytest.raises(ValueError, match="labels pixels"):
        try:
            task(CONFIG, "ccp4")
        except ConnectionError:
            pytest.skip("NOT TESTED: ccp4 is not here")


def test_scores_have_named_axes() -> None:
    def run(share: float, seed: int) -> dict:
        best = {"accuracy": share + seed, "nll": 1.0, "ece": 0.5}
        levels = best | {"members": 0.1, "correlation": None if seed else 0.3}
        return {"share": share, "seed": seed, "sigma": 0.2, "curve": [seed, share], "best": best, "levels": levels}

    runs = [run(share, seed) for seed in (1, 0) for share in (0.4, 0.2, 0.0)]
    untold = [{"share": 0.2, "seed": 0, "sigma": None, "curve": [0.7], "best": {"accuracy": 0.7}}]
    data = dataset(
        {
            "results": [
                {"source": "weights", "target": "digits", "sigmas": [0.1, 0.2], "runs": runs},
                {"source": "pixels", "target": "digits", "sigmas": None, "runs": untold},
            ]
        }
    )
    assert data.accuracy.dims == ("source", "target", "share", "seed", "training", "row")
    found = data.sel(source="weights", target="digits", training=0)
    np.testing.assert_allclose(found.accuracy.sel(row="best"), [[0.0, 1.0], [0.2, 1.2], [0.4, 1.4]])
    np.testing.assert_array_equal(found.curve.sel(share=0.4, seed=1), [1, 0.4])
    assert found.sigma_chosen.sel(share=0.0, seed=0) == 0.2
    np.testing.assert_array_equal(found.correlation.sel(share=0.0, row="levels"), [0.3, np.nan])
    assert found.accuracy.sel(row="draws").isnull().all() and found.members.sel(row="best").isnull().all()
    pixels = data.sel(source="pixels")
    assert pixels.accuracy.count() == 1 and pixels.curve.isnull().all(), "it was told no level"
    with pytest.raises(KeyError, match="source"):
        data.sel(source="masked")


def test_trainings_are_an_axis() -> None:
    def result(sources: tuple[str, ...], shift: float, seeds: tuple[int, ...] = (0, 1)) -> dict:
        runs = [
            {"share": s, "seed": k, "best": {"accuracy": s + k + shift}} for k in reversed(seeds) for s in (0.4, 0.0)
        ]
        return {"results": [{"source": source, "target": "digits", "sigmas": None, "runs": runs} for source in sources]}

    first = result(("pixels", "masked"), 0.0)
    both = dataset(first, result(("masked",), 0.01), result(("masked",), 0.02))
    accuracy = both.accuracy.sel(target="digits", row="best")
    assert both.source.values.tolist() == ["pixels", "masked"] and both.sizes["training"] == 3
    expected = [[[0.0, 0.01, 0.02], [1.0, 1.01, 1.02]], [[0.4, 0.41, 0.42], [1.4, 1.41, 1.42]]]
    np.testing.assert_allclose(accuracy.sel(source="masked"), expected)
    pixels = accuracy.sel(source="pixels")
    np.testing.assert_allclose(pixels.sel(training=0), [[0.0, 1.0], [0.4, 1.4]])
    assert pixels.sel(training=[1, 2]).isnull().all(), "it was not trained again"
    with pytest.raises(ValueError, match="no diffusion on digits: choose from pixels on digits, masked on digits"):
        dataset(first, result(("diffusion",), 0.0))
    with pytest.raises(ValueError, match="masked on digits was measured with other shares or label seeds"):
        dataset(first, result(("masked",), 0.0, (0, 2)))
