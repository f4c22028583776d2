"""Linear probes against scikit-learn's logistic regression, and the height of a peak on simulated curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from repdyn.datasets import load
from repdyn.metrics.resampling import peak_height
from repdyn.probes import LinearProbe, fit_many, fit_path


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, np.ndarray, Tensor, np.ndarray]:
    """Pixels of the digits, train and test; three border pixels are always black."""
    train, test = load("digits", "train"), load("digits", "test")
    return train.images.flatten(1).float(), train.labels.numpy(), test.images.flatten(1).float(), test.labels.numpy()


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one with every evaluation of the cross-entropy of a few items: each takes one softmax in logarithms."""
    original, seen = Tensor.log_softmax, []

    def counted(self: Tensor, *args: object, **options: object) -> Tensor:
        seen.append(None)
        return original(self, *args, **options)

    monkeypatch.setattr(Tensor, "log_softmax", counted)
    return seen


def centred(logits: np.ndarray) -> np.ndarray:
    """Logits without the constant that all classes share."""
    return logits - logits.mean(1, keepdims=True)


def oracle(x: Tensor, y: np.ndarray, l2: float) -> LogisticRegression:
    """The same objective, scaled as scikit-learn scales it, to convergence in double precision."""
    regression = LogisticRegression(C=1 / (len(x) * l2), solver="newton-cg", tol=1e-8, max_iter=10_000)
    return make_pipeline(StandardScaler(), regression).fit(x.double().numpy(), y)


@pytest.mark.parametrize(("l2", "rtol"), [(1e-1, 0.002), (1e-2, 0.002), (1e-3, 0.005), (1e-4, 0.01)])
def test_probe_is_logistic_regression_on_standardised_features(digits: tuple, l2: float, rtol: float) -> None:
    x, y, x_test, y_test = digits
    probe, reference = LinearProbe(l2=l2).fit(x, y), oracle(x, y, l2)
    expected = centred(reference.decision_function(x_test.double().numpy()))
    found = centred(probe.decision_function(x_test))
    assert np.abs(found - expected).max() < rtol * np.abs(expected).max()
    assert probe.score(x_test, y_test) == pytest.approx(reference.score(x_test.double().numpy(), y_test), abs=1 / 360)
    certain = np.diff(np.sort(expected, 1)[:, -2:], axis=1)[:, 0] > 2 * rtol * np.abs(expected).max()
    assert certain.mean() > 0.9
    assert (probe.predict(x_test) == reference.predict(x_test.double().numpy()))[certain].all()


def test_the_gradient_of_the_objective_vanishes(digits: tuple) -> None:
    x, y, _, _ = digits
    l2 = 1e-3
    probe = fit_many(x[None], y, l2=l2, tol=1e-9)[0]
    varies = x.std(0) > 0
    mean, scale = x.mean(0)[varies].double(), x.std(0, correction=0)[varies].double()
    coef = torch.from_numpy(probe.coef_)[:, varies].double()
    weight = (coef * scale).T.requires_grad_()
    bias = (torch.from_numpy(probe.intercept_).double() + coef @ mean).requires_grad_()
    logits = ((x[:, varies].double() - mean) / scale) @ weight + bias
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)) + l2 / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-4
    assert weight.abs().max() > 0.3


@pytest.mark.parametrize("separation", [0.0, 3.0, 100.0])
def test_two_classes_separable_or_not(separation: float) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([3, 8], 200)
    x = torch.from_numpy((rng.standard_normal((400, 5)) + separation * (y == 8)[:, None]).astype(np.float32))
    # For two classes scikit-learn penalises their difference w, we the two halves w/2 and -w/2: half as much.
    probe, reference = LinearProbe(l2=1e-3).fit(x, y), oracle(x, y, 1e-3 / 2)
    margin = np.diff(probe.decision_function(x), axis=1)[:, 0]
    expected = reference.decision_function(x.double().numpy())
    np.testing.assert_allclose(margin, expected, atol=0.01 * np.abs(expected).max())
    assert set(probe.predict(x)) <= {3, 8}


def objective(probe: LinearProbe | LogisticRegression, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    """Mean cross-entropy plus l2 |W|^2 / 2 on standardised features, in double precision."""
    log_p = torch.from_numpy(x @ probe.coef_.T.astype(float) + probe.intercept_).log_softmax(1)
    return float(-log_p[np.arange(len(y)), y].mean() + l2 / 2 * (probe.coef_.astype(float) ** 2).sum())


@pytest.mark.parametrize("num_features", [250, 400])
@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_many_correlated_features_with_outliers(num_features: int, l2: float) -> None:
    """On both sides of the size where the preconditioner changes: the objective is scikit-learn's, to 1e-4 of it."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((1500, 30)) * np.geomspace(3, 0.03, 30)
    y = (latent[:, :4] + rng.standard_normal((1500, 4))).argmax(1)
    x = latent @ rng.standard_normal((30, num_features)) + 0.05 * rng.standard_t(3, (1500, num_features))
    x = StandardScaler().fit_transform(x)
    probe = LinearProbe(l2=l2).fit(x, y)
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-8, max_iter=20_000).fit(x, y)
    assert objective(probe, x, y, l2) == pytest.approx(objective(reference, x, y, l2), rel=1e-4)


def test_a_path_of_penalties_is_the_single_fits_for_less(digits: tuple, evaluations: list[None]) -> None:
    x, y, _, _ = digits
    penalties = (1e-3, 1.0, 1e-4, 1e-1, 1e-2)
    path = fit_path(x[None], y, penalties)
    together = len(evaluations)
    evaluations.clear()
    standard = StandardScaler().fit_transform(x.double().numpy())
    varies, scale = x.std(0).numpy() > 0, x.double().numpy().std(0)
    for l2, (probe,) in zip(penalties, path, strict=True):
        assert probe.l2 == l2
        single = fit_many(x[None], y, l2=l2)[0]
        for found in (probe, single):  # back to standardised features, whose penalty it is
            found.intercept_ = found.intercept_ + found.coef_ @ x.double().numpy().mean(0)
            found.coef_ = np.where(varies, found.coef_ * scale, 0)
        assert objective(probe, standard, y, l2) == pytest.approx(objective(single, standard, y, l2), rel=2e-4)
    assert 0 < together < 0.9 * len(evaluations)


def test_problems_that_are_large_together_are_solved_in_portions(digits: tuple, evaluations: list[None]) -> None:
    x, y, x_test, _ = digits
    labels = np.stack([(y + shift) % 10 for shift in range(23)])
    many = fit_many(torch.stack([x.roll(shift, 1) for shift in range(23)]), labels, l2=1.0)  # two million numbers
    in_portions = len(evaluations)
    evaluations.clear()
    for shift in (0, 20, 21, 22):
        one = LinearProbe(l2=1.0).fit(x.roll(shift, 1), labels[shift])
        found, expected = (probe.decision_function(x_test.roll(shift, 1)) for probe in (many[shift], one))
        np.testing.assert_allclose(found, expected, atol=0.05)
    assert in_portions > 1.5 * len(evaluations) / 4, "more than one portion, or none would have started again"


def test_many_at_once_equal_one_by_one(digits: tuple) -> None:
    x, y, x_test, _ = digits
    rng = np.random.default_rng(0)
    # Problems of very different difficulty: pixels, a few of them, noisy ones, noise alone.
    noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    problems = torch.stack([x, x * (torch.arange(64) % 5 == 0), x + 200 * noise, noise])
    together = fit_many(problems, y, l2=1e-3)
    assert len(together) == 4
    for features, probe in zip(problems, together):
        alone = LinearProbe(l2=1e-3).fit(features, y)
        expected = centred(alone.decision_function(features))
        np.testing.assert_allclose(centred(probe.decision_function(features)), expected, atol=0.01 * expected.max())
        assert alone.get_params() == probe.get_params()


def test_labels_may_differ_between_problems(digits: tuple) -> None:
    x, y, _, _ = digits
    x, y = x[:300], y[:300]
    other = (y * 7 + 3) % 10
    first, second = fit_many(torch.stack([x, x]), np.stack([y, other]), l2=1e-2)
    assert first.score(x, y) > 0.95 and second.score(x, other) > 0.95
    renamed = (first.predict(x) * 7 + 3) % 10
    assert (renamed == second.predict(x)).mean() > 0.99


def test_scale_and_shift_of_a_feature_do_not_matter(digits: tuple) -> None:
    x, y, x_test, _ = digits
    factors = torch.logspace(-3, 3, 64)
    plain, scaled = LinearProbe(l2=1e-2).fit(x, y), LinearProbe(l2=1e-2).fit(x * factors + 5 * factors, y)
    expected = centred(plain.decision_function(x_test))
    found = centred(scaled.decision_function(x_test * factors + 5 * factors))
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_feature_gets_no_weight(digits: tuple, constant: float) -> None:
    x, y, x_test, _ = digits
    dead = torch.full((len(x), 1), constant)
    probe, plain = LinearProbe(l2=1e-2).fit(torch.cat([x, dead], 1), y), LinearProbe(l2=1e-2).fit(x, y)
    assert (probe.coef_[:, -1] == 0).all()
    # A feature that first moves on the test images cannot blow up the logits.
    moved = torch.cat([x_test, torch.full((len(x_test), 1), constant + 1)], 1)
    np.testing.assert_allclose(probe.decision_function(moved), plain.decision_function(x_test), atol=0.02)


@pytest.mark.parametrize(("spread", "counts"), [(0.8e-5, False), (1.25e-5, True), (1e-3, True)])
def test_a_feature_is_constant_when_its_spread_is_rounding(spread: float, counts: bool) -> None:
    """Guards the relative spread below which a feature gets no weight, from both sides."""
    y = np.repeat([0, 1], 50)
    x = (1 + spread * (2.0 * y[:, None] - 1)).astype(np.float32)
    assert (LinearProbe(l2=1e-2).fit(x, y).coef_ != 0).all() == counts


def test_the_way_to_the_minimum_is_short(digits: tuple, evaluations: list[None]) -> None:
    """Guards the preconditioner and the length of steps, which change no minimum, with a third to spare."""
    x, y, _, _ = digits
    rng = np.random.default_rng(0)
    heavy = torch.from_numpy(rng.standard_t(1.2, (400, 20))).float()  # outliers, for which steps are shortened
    sides = (heavy[:, 0].numpy() + rng.standard_normal(400) > 0).astype(int)
    for features, labels, l2, most in ((x, y, 1e-3, 59), (x, y, 1e-4, 67), (heavy, sides, 1e-5, 53)):
        evaluations.clear()
        fit_many(features[None], labels, l2=l2)
        assert 0 < len(evaluations) <= most


def test_the_solver_stops_where_single_precision_is_exhausted(evaluations: list[None]) -> None:
    """Guards that a step which no longer lowers the objective is the last, whatever the tolerance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 200, 6)).astype(np.float32)
    fit_many(torch.from_numpy(x), (x[0, :, 0] + rng.standard_normal(200) > 0).astype(int), l2=1e-2, tol=0.0)
    assert 5 < len(evaluations) < 150


def test_defaults_are_those_of_the_records(digits: tuple) -> None:
    """Guards the penalty, the number of steps and the tolerance that the recorded accuracies were measured with."""
    x, y = digits[0][:200], digits[1][:200]
    assert LinearProbe().get_params() == {"l2": 1e-4, "max_iter": 500}
    for plain, told in (
        (fit_many(x[None], y), fit_many(x[None], y, l2=1e-4, max_iter=500, tol=3e-8)),
        (fit_path(x[None], y, (1e-3,))[0], fit_path(x[None], y, (1e-3,), max_iter=500, tol=3e-8)[0]),
    ):
        np.testing.assert_array_equal(plain[0].coef_, told[0].coef_)
        assert plain[0].get_params() == told[0].get_params()


def test_scikit_learn_interface(digits: tuple) -> None:
    x, y, x_test, y_test = digits
    probe = LinearProbe(l2=3e-3, max_iter=70)
    assert probe.get_params() == {"l2": 3e-3, "max_iter": 70}
    assert clone(probe).get_params() == probe.get_params()
    assert probe.set_params(l2=1e-2).l2 == 1e-2
    fitted = probe.fit(x.numpy(), y)
    assert fitted is probe and (probe.l2, probe.max_iter) == (1e-2, 70)
    assert probe.coef_.shape == (10, 64) and probe.intercept_.shape == (10,) and probe.n_features_in_ == 64
    assert probe.classes_.tolist() == list(range(10))
    assert probe.score(x_test.numpy(), y_test) == (probe.predict(x_test) == y_test).mean() > 0.9
    scores = cross_val_score(LinearProbe(l2=1e-2), x.numpy()[:600], y[:600], cv=3)
    assert len(scores) == 3 and (scores > 0.85).all()


def test_too_few_iterations_are_told(digits: tuple) -> None:
    x, y, _, _ = digits
    with pytest.warns(ConvergenceWarning, match="1 of 1 .*max_iter"):
        rough = LinearProbe(l2=1e-6, max_iter=1).fit(x, y)
    good = LinearProbe(l2=1e-6).fit(x, y)
    assert np.abs(rough.coef_).max() < 0.5 * np.abs(good.coef_).max()


def test_features_too_collinear_for_single_precision_are_told() -> None:
    rng = np.random.default_rng(0)
    direction = rng.standard_normal((600, 1)).astype(np.float32)
    x = direction + 1e-4 * rng.standard_normal((600, 1024)).astype(np.float32)
    y = direction[:, 0] > 0
    with pytest.warns(ConvergenceWarning, match="minimum"):
        LinearProbe(l2=1e-9, max_iter=40).fit(x, y.astype(int))
    assert LinearProbe(l2=1e-2).fit(x, y.astype(int)).score(x, y.astype(int)) > 0.98


def test_predictions_before_fit_or_of_other_features_are_refused(digits: tuple) -> None:
    x, y, _, _ = digits
    with pytest.raises(NotFittedError):
        LinearProbe().predict(x)
    with pytest.raises(ValueError, match=r"X .*64.*\(2, 5\)"):
        LinearProbe(l2=1e-2).fit(x[:200], y[:200]).predict(np.zeros((2, 5)))


def test_features_of_any_precision_are_read_in_single(digits: tuple) -> None:
    """Guards what a fitted probe is asked about: doubles, bfloat16 and whole numbers alike."""
    x, y, x_test, _ = digits
    probe = LinearProbe(l2=1e-1).fit(x[:300], y[:300])
    expected = probe.decision_function(x_test)
    for same in (x_test.double(), x_test.bfloat16(), x_test.long(), x_test.numpy().astype(np.uint8)):
        found = probe.decision_function(same)
        assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_labels_need_not_be_consecutive() -> None:
    x = torch.tensor([[-1.0], [-1.1], [0.0], [0.1], [1.0], [1.1]]).repeat(5, 1)
    y = np.tile([-4, -4, 100, 100, 7, 7], 5)
    assert LinearProbe(l2=1e-4).fit(x, y).score(x, y) == 1


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (torch.zeros(4, 2), [0, 1, 0, 1], {}, "features must be"),
        (torch.zeros(1, 4, 2), [0, 1, 0], {}, r"labels .*\(1, 4, 2\), \(3,\)"),
        (torch.zeros(2, 4, 2), [[0, 1, 0, 1]] * 3, {}, r"\(2, 4, 2\), \(3, 4\)"),
        (torch.full((1, 4, 2), torch.nan), [0, 1, 0, 1], {}, "features hold NaN"),
        (torch.zeros(1, 4, 2), [5, 5, 5, 5], {}, "labels .*two classes"),
        (torch.zeros(1, 4, 2), [0, 1, 0, 1], {"l2": 0.0}, "l2"),
        (torch.zeros(1, 4, 2), [0, 1, 0, 1], {"l2": torch.nan}, "l2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, labels: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_many(features, np.array(labels), **options)


# ----------------------------------------------------------------------------------------------------- peak height


def simulate(accuracies: list[float], num: int, rng: np.random.Generator) -> np.ndarray:
    """Which of ``num`` items are right at each level, items being easy or hard at all levels alike."""
    difficulty = rng.random(num)
    flips = rng.random((len(accuracies), num)) < 0.2
    return np.where(flips, rng.random((len(accuracies), num)), difficulty) < np.array(accuracies)[:, None]


def test_height_of_a_known_peak() -> None:
    correct = np.zeros((4, 10))
    for level, right in enumerate((3, 8, 9, 5)):
        correct[level, :right] = 1
    peak = peak_height(correct)
    assert (peak.index, peak.above_left, peak.above_right) == (2, pytest.approx(0.6), pytest.approx(0.4))
    assert peak.left_interval[0] < 0.6 < peak.left_interval[1] and peak.right_interval[0] < 0.4
    assert peak_height(correct, 1).above_left == pytest.approx(0.5)


def test_interval_is_the_paired_one() -> None:
    # Of 100 items, 10 are right at the peak only: the difference has their binomial spread, whatever the others do.
    correct = np.zeros((3, 100))
    correct[:, :50], correct[1, 50:60] = 1, 1
    peak = peak_height(correct, num_resamples=20_000)
    spread = np.sqrt(0.1 * 0.9 / 100)
    assert peak.above_left == pytest.approx(0.1)
    assert peak.left_interval == pytest.approx((0.1 - 1.96 * spread, 0.1 + 1.96 * spread), abs=0.012)
    wider = peak_height(correct, num_resamples=20_000, level=0.999)
    assert wider.left_interval[0] < peak.left_interval[0] and wider.left_interval[1] > peak.left_interval[1]


@pytest.mark.parametrize("rising", [True, False])
def test_a_monotone_curve_has_no_height_on_one_side(rising: bool) -> None:
    rng = np.random.default_rng(0)
    accuracies = [0.5, 0.6, 0.7, 0.8]
    peak = peak_height(simulate(accuracies if rising else accuracies[::-1], 500, rng))
    flat, steep = (peak.above_right, peak.above_left) if rising else (peak.above_left, peak.above_right)
    interval = peak.right_interval if rising else peak.left_interval
    assert flat == 0 and interval == (0, 0)
    assert steep > 0.2


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    accuracies, trials, covered = [0.6, 0.75, 0.9, 0.7], 300, 0
    for seed in range(trials):
        peak = peak_height(simulate(accuracies, 200, rng), num_resamples=200, level=0.9, seed=seed)
        assert peak.index == 2
        covered += peak.left_interval[0] <= 0.3 <= peak.left_interval[1]
    assert covered / trials == pytest.approx(0.9, abs=0.06)  # three standard deviations of 300 trials, and some bias


def test_a_flat_curve_has_no_height_when_the_peak_is_chosen_elsewhere() -> None:
    rng = np.random.default_rng(0)
    heights: dict[str, list[float]] = {"elsewhere": [], "here": []}
    unimodal = 0
    for _ in range(200):
        correct, other = (simulate([0.7] * 10, 200, rng) for _ in range(2))
        honest = peak_height(correct, int(other.mean(1).argmax()), num_resamples=200)
        heights["elsewhere"].append(honest.above_left)
        heights["here"].append(peak_height(correct, num_resamples=2).above_left)
        unimodal += honest.left_interval[0] > 0 and honest.right_interval[0] > 0
    spread = np.std(heights["elsewhere"]) / 200**0.5
    assert abs(np.mean(heights["elsewhere"])) < 3 * spread
    assert np.mean(heights["here"]) > 10 * spread  # the luck that the docstring warns of
    assert unimodal <= 8


def test_bootstrap_depends_on_the_seed_alone() -> None:
    correct = simulate([0.5, 0.8, 0.6], 100, np.random.default_rng(0))
    assert peak_height(correct, seed=1) == peak_height(correct, seed=1)
    assert peak_height(correct, seed=1) != peak_height(correct, seed=2)


@pytest.mark.parametrize("shape", [(2, 10), (10,), (3, 4, 5)])
def test_a_curve_needs_three_levels(shape: tuple) -> None:
    with pytest.raises(ValueError, match="correct .*S >= 3"):
        peak_height(np.zeros(shape))
