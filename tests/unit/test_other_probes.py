"""The two-layer and ensemble probes beside scikit-learn's own, and label noise."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from repdyn.chapters.ensembles.labels import label_noise
from repdyn.datasets import load
from repdyn.probes import LinearProbe, MLPProbe, SoftVoting, vote


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
    """Pixels of the digits, train and test; three border pixels are always black."""
    train, test = load("digits", "train"), load("digits", "test")
    return train.images.flatten(1).float(), train.labels.numpy(), test.images.flatten(1).float(), test.labels.numpy()


@pytest.fixture(scope="module")
def fitted(digits: tuple) -> MLPProbe:
    return MLPProbe(hidden=64, batch_size=64, max_epochs=60).fit(*digits[:2])


# ------------------------------------------------------------------------------------------------------- MLP probe


def test_accuracy_is_that_of_scikit_learn(digits: tuple, fitted: MLPProbe) -> None:
    x, y, x_test, y_test = digits
    peer = MLPClassifier((64,), batch_size=64, early_stopping=True, n_iter_no_change=5, random_state=0)
    reference = make_pipeline(StandardScaler(), peer).fit(x.numpy(), y).score(x_test.numpy(), y_test)
    assert fitted.score(x_test, y_test) > max(0.95, reference - 0.01)


def test_it_separates_what_no_plane_can() -> None:
    """Two lines through the origin, as in a MoLRG: the classes have the same mean."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 800)
    x = rng.standard_normal((800, 1)) * np.where(y, 1, -1)[:, None] ** np.arange(2) + rng.normal(0, 0.05, (800, 2))
    assert MLPProbe(hidden=32, batch_size=32).fit(x[:500], y[:500]).score(x[500:], y[500:]) > 0.93


def test_same_seed_same_probe(digits: tuple) -> None:
    x, y, x_test, _ = digits
    x, y = x[:300], y[:300]
    options = {"hidden": 16, "max_epochs": 3}
    state = torch.get_rng_state()
    first, again, other = (MLPProbe(**options, seed=s).fit(x, y).decision_function(x_test) for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert torch.equal(state, torch.get_rng_state()), "the global generator moved"


def test_training_stops_and_keeps_the_best_weights(digits: tuple) -> None:
    x, y, _, _ = digits
    wrong = label_noise(y[:200], 0.7, 10, 0)  # hardly anything to learn: the held-out loss soon rises
    probe = MLPProbe(hidden=64, batch_size=20, learning_rate=5e-3, max_epochs=50, patience=3, validation_share=0.2)
    losses = probe.fit(x[:200], wrong).validation_losses_
    assert len(losses) == np.argmin(losses) + 4 < 50
    stopped_at_best = clone(probe).set_params(max_epochs=int(np.argmin(losses)) + 1).fit(x[:200], wrong)
    assert np.array_equal(probe.decision_function(x), stopped_at_best.decision_function(x))


def test_units_of_the_features_do_not_matter(digits: tuple) -> None:
    x, y, x_test, _ = digits
    plain, small = (MLPProbe(hidden=16, max_epochs=3).fit(x[:300] * c, y[:300]) for c in (1.0, 1e-4))
    np.testing.assert_allclose(small.decision_function(x_test * 1e-4), plain.decision_function(x_test), atol=1e-3)


def test_scikit_learn_interface(digits: tuple, fitted: MLPProbe) -> None:
    x, y, x_test, _ = digits
    assert clone(fitted).get_params() == fitted.get_params() == MLPProbe(64, batch_size=64, max_epochs=60).get_params()
    assert not hasattr(clone(fitted), "module_")
    with pytest.raises(NotFittedError):
        MLPProbe().predict(x)
    probabilities = fitted.predict_proba(x_test)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(x_test.numpy())).all()
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(x_test), fitted.predict(x_test))
    assert (cross_val_score(MLPProbe(32, batch_size=16, max_epochs=30), x.numpy()[:600], y[:600], cv=2) > 0.8).all()


def test_defaults_are_those_that_the_records_were_measured_with() -> None:
    """Guards every default of the probes of two layers and of votes."""
    assert MLPProbe().get_params() == {
        "hidden": 512, "learning_rate": 1e-3, "weight_decay": 1e-4, "batch_size": 128, "max_epochs": 100, "patience": 5,
        "validation_share": 0.1, "seed": 0, "device": "cpu",
    }  # fmt: skip
    assert SoftVoting().get_params() == {"l2": 1e-4, "max_iter": 500}


def test_what_training_normalises_is_what_evaluation_does(digits: tuple) -> None:
    """Guards that statistics are those of the items not held out, and a spread added relative to the features' own."""
    x, y = digits[0][:200], digits[1][:200]
    probe = MLPProbe(hidden=8, max_epochs=1).fit(x, y)
    norm = probe.module_[0]
    assert (norm.running_var == 0).any() and norm.eps == pytest.approx(1e-5 * norm.running_var.mean().item(), rel=1e-5)
    train, _ = train_test_split(np.arange(200), test_size=0.1, stratify=y, random_state=0)
    torch.testing.assert_close(norm.running_mean, x[train].mean(0))
    torch.testing.assert_close(norm.running_var, x[train].var(0, correction=0))
    expected = probe.module_(x.repeat(50, 1)).detach().numpy()  # 10 000 items, in one portion
    np.testing.assert_allclose(probe.decision_function(x.repeat(50, 1)), expected, rtol=1e-5, atol=1e-5)
    constant = MLPProbe(hidden=8, max_epochs=1, learning_rate=1e-3).fit(torch.ones(40, 3), np.arange(40) % 2)
    assert np.isfinite(constant.decision_function(torch.ones(2, 3))).all()


def test_fewer_items_than_a_batch_are_one_batch_and_divergence_is_told(digits: tuple) -> None:
    """Guards the number of batches at its least, and what happens when the loss is no number."""
    x, y = digits[0][:60], digits[1][:60] % 2
    assert len(MLPProbe(8, batch_size=1000, max_epochs=2).fit(x, y).validation_losses_) == 2
    with pytest.raises(FloatingPointError, match="learning_rate"):
        MLPProbe(8, learning_rate=1e30, max_epochs=5).fit(x, y)


def test_patience_counts_the_epochs_since_the_best(digits: tuple) -> None:
    """Guards when training stops, for the shortest patience."""
    x, y = digits[0][:100], np.arange(100) % 2  # nothing to learn
    losses = MLPProbe(64, learning_rate=1e-2, batch_size=10, patience=1, max_epochs=30).fit(x, y).validation_losses_
    assert len(losses) < 30 and np.argmin(losses) == len(losses) - 2 and (np.diff(losses[:-1]) < 0).all()


def test_labels_need_not_be_numbers(digits: tuple) -> None:
    x, y, _, _ = digits
    names = np.where(torch.from_numpy(y[:200]) % 2 == 0, -4, 17)
    probe = MLPProbe(16, max_epochs=30, batch_size=20).fit(x[:200], torch.from_numpy(names))
    assert set(probe.predict(x)) == {-4, 17} and probe.score(x[:200], names) > 0.9


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(4), [0, 1, 0, 1], {}, r"X .*\(4,\) and \(4,\)"),
        (torch.zeros(4, 2), [0, 1, 0], {}, r"\(4, 2\) and \(3,\)"),
        (torch.full((4, 2), torch.nan), [0, 1, 0, 1], {}, "X holds NaN"),
        (torch.zeros(4, 2), [5, 5, 5, 5], {}, "y holds"),
        (torch.zeros(4, 2), [0, 0, 0, 1], {}, "least populated"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"hidden": 0}, "hidden"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"weight_decay": -1.0}, "weight_decay"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"validation_share": 1.0}, "validation_share"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"validation_share": 0.0}, "validation_share"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"learning_rate": 0.0}, "learning_rate"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"batch_size": 0}, "batch_size"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"max_epochs": 0}, "max_epochs"),
        (torch.zeros(4, 2), [0, 1, 0, 1], {"patience": 0}, "patience"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: Tensor, y: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPProbe(**options).fit(x, np.array(y))


def test_features_of_another_size_are_refused(fitted: MLPProbe) -> None:
    with pytest.raises(ValueError, match=r"X .*64.*\(3, 5\)"):
        fitted.predict(torch.zeros(3, 5))


# --------------------------------------------------------------------------------------------------------- ensemble


@pytest.fixture(scope="module")
def views(digits: tuple) -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
    """The digits under three draws of strong noise, (3, N, 64): three poor descriptions of the same items."""
    x, y, x_test, y_test = digits
    generator = torch.Generator().manual_seed(0)
    x, x_test = (part + 150 * torch.randn(3, *part.shape, generator=generator) for part in (x, x_test))
    return x, y, x_test, y_test


def test_votes_are_means_of_logits(views: tuple) -> None:
    x, y, x_test, y_test = views
    ensemble = SoftVoting(l2=1e-2).fit(x, y)
    singles = [LinearProbe(l2=1e-2).fit(part, y) for part in x]
    logits = np.mean([single.decision_function(part) for single, part in zip(singles, x_test)], axis=0)
    logits -= logits.mean(1, keepdims=True)
    np.testing.assert_allclose(ensemble.decision_function(x_test), logits, atol=0.02)
    assert ensemble.score(x_test, y_test) > max(s.score(p, y_test) for s, p in zip(singles, x_test)) + 0.05


def test_a_vote_of_one_is_its_logits_without_what_the_classes_share(views: tuple) -> None:
    """Guards that nothing is read of a second member, and that logits are centred."""
    x, y, x_test, _ = views
    alone, probe = SoftVoting(l2=1e-1).fit(x[:1], y + 5), LinearProbe(l2=1e-1).fit(x[0], y + 5)
    logits = probe.decision_function(x_test[0])
    expected = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(alone.decision_function(x_test[:1]), expected, atol=1e-4)
    np.testing.assert_allclose(vote([logits + 3, logits - 1]), expected, atol=1e-4)
    assert np.array_equal(alone.classes_, np.arange(10) + 5)


def test_a_list_of_features_of_several_sizes(views: tuple) -> None:
    x, y, x_test, _ = views
    whole = SoftVoting(l2=1e-2).fit(x.numpy(), y)
    padded = SoftVoting(l2=1e-2).fit([x[0], x[1], torch.nn.functional.pad(x[2], (0, 3))], y)
    assert padded.n_features_in_ == (64, 64, 67) and len(padded.probes_) == 3
    test = [x_test[0], x_test[1].numpy(), torch.nn.functional.pad(x_test[2], (0, 3))]
    np.testing.assert_allclose(padded.decision_function(test), whole.decision_function(x_test), atol=0.02)
    assert (padded.predict(test) == whole.predict(x_test)).mean() > 0.99
    with pytest.raises(ValueError, match=r"X .*\(64, 64, 67\)"):
        padded.predict(x_test)


def test_the_ensemble_is_an_estimator(views: tuple) -> None:
    x, y, x_test, _ = views
    ensemble = SoftVoting(l2=3e-3, max_iter=90)
    assert clone(ensemble).get_params() == ensemble.get_params() == {"l2": 3e-3, "max_iter": 90}
    with pytest.raises(NotFittedError):
        ensemble.predict(x_test)
    names = np.where(y % 2 == 0, -4, 17)
    assert ensemble.fit(x, names) is ensemble and set(ensemble.predict(x_test)) == {-4, 17}
    assert all(probe.max_iter == 90 for probe in ensemble.probes_)
    probabilities = ensemble.predict_proba(x_test)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (ensemble.classes_[probabilities.argmax(1)] == ensemble.predict(x_test)).all()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([], [0, 1], r"X .*got \[\]"),
        ([torch.zeros(4, 2), torch.zeros(3, 2)], [0, 1, 0, 1], "of one N"),
        (torch.zeros(4, 2), [0, 1, 0, 1], "X must be"),
        (torch.zeros(2, 4, 2), [[0, 1, 0, 1]] * 2, r"y .*\(2, 4\)"),
    ],
)
def test_what_cannot_vote_is_refused(X: object, y: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftVoting().fit(X, np.array(y))


# ------------------------------------------------------------------------------------------------------ label noise


@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 0.8, 1.0])
def test_the_share_of_wrong_labels_is_exact(share: float) -> None:
    labels = np.arange(1000) % 7
    noisy = label_noise(labels, share, 7, seed=0)
    assert (noisy != labels).sum() == round(1000 * share)
    assert noisy.min() >= 0 and noisy.max() <= 6 and (labels == np.arange(1000) % 7).all()


def test_wrong_labels_are_uniform_over_the_other_classes() -> None:
    noisy = label_noise(torch.full((40_000,), 2), 0.5, 5, seed=1)
    counts = np.bincount(noisy, minlength=5)[[0, 1, 3, 4]]
    assert counts.sum() == 20_000
    assert ((counts - 5000) ** 2 / 5000).sum() < 16.3  # chi-squared of 3 degrees of freedom, 99.9 %


def test_noise_depends_on_the_seed_and_grows_with_the_share() -> None:
    labels = np.arange(500) % 3
    some, more = label_noise(labels, 0.2, 3, seed=0), label_noise(labels, 0.6, 3, seed=0)
    assert (some == label_noise(labels, 0.2, 3, seed=0)).all() and (some != label_noise(labels, 0.2, 3, seed=1)).any()
    flipped = some != labels
    assert (more[flipped] == some[flipped]).all()


@pytest.mark.parametrize(
    ("labels", "share", "num_classes", "message"),
    [
        ([0, 1], 1.5, 2, "share .*got 1.5"),
        ([0, 1], float("nan"), 2, "share"),
        ([0, 2], 0.5, 2, "labels .*0..2"),
        ([0.0, 1.0], 0.5, 2, "labels .*2 integers"),
        ([0, 0], 0.5, 1, "num_classes"),
    ],
)
def test_noise_that_cannot_be_made_is_refused(labels: list, share: float, num_classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_noise(labels, share, num_classes, 0)
