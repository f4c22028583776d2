"""Distances and scores against closed forms, scikit-learn and scipy."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm, subspace_angles
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix, jaccard_score
from sklearn.neighbors import NearestNeighbors

from repdyn.metrics import (
    ClassMoments,
    class_bases,
    class_iou,
    confusion,
    frechet_from_moments,
    iou_of_confusion,
    linear_cka,
    mean_iou,
    memorised,
    projected_csnr,
    sliced_wasserstein,
)
from repdyn.theory.csnr import csnr
from repdyn.theory.molrg import NoisyMoLRG

# -------------------------------------------------------------------------------------------- sliced Wasserstein


def test_distance_of_a_shift() -> None:
    """A shift by m has distance |m| / sqrt(n), every projection |<m, u>|."""
    rng = np.random.default_rng(0)
    x, shift = rng.standard_normal((200, 6)), rng.standard_normal(6)
    length = np.linalg.norm(shift)
    found = sliced_wasserstein(x, x + shift, 4000, seed=0)
    assert abs(found.value - length / math.sqrt(6)) < 4 * found.error
    scaled = sliced_wasserstein(x, x + shift, 4000, normalisation="dimension", seed=0)
    assert scaled == pytest.approx(tuple(math.sqrt(6) * part for part in found), rel=1e-12)
    # <m, u>^2 = |m|^2 b with b ~ Beta(1/2, (n - 1) / 2): the error is known too.
    spread = length**2 * math.sqrt(2 * 5 / (6**2 * 8))
    assert found.error == pytest.approx(spread / math.sqrt(4000) / (2 * length / math.sqrt(6)), rel=0.1)


def test_distance_of_two_scales() -> None:
    """In one dimension, on the quantiles of two centred Gaussians: the difference of their deviations."""
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    found = sliced_wasserstein(quantiles, 3 * quantiles, 10, seed=0)
    assert found.value == pytest.approx(2, rel=1e-3) and found.error < 1e-12


def test_error_is_the_spread_over_seeds() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 8)), rng.standard_normal((50, 8)) * np.linspace(0.2, 3, 8)
    runs = [sliced_wasserstein(x, y, 50, seed=seed) for seed in range(200)]
    values, errors = np.transpose(runs)
    assert values.std() == pytest.approx(errors.mean(), rel=0.2)
    assert runs[0] == sliced_wasserstein(x, y, 50, seed=0) != runs[1]


def test_images_are_flattened_and_equal_sets_have_distance_zero() -> None:
    images = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert sliced_wasserstein(images, images.flip(0), 20, seed=0).value < 1e-12
    assert sliced_wasserstein(torch.zeros(3, 2), torch.zeros(5, 2), 20, seed=0) == (0.0, 0.0)
    apart = sliced_wasserstein(images, images.flip(3) + 1, 20, seed=0)
    rows = sliced_wasserstein(images.flatten(1).numpy(), (images.flip(3) + 1).flatten(1).double(), 20, seed=0)
    assert apart == pytest.approx(rows)


def test_error_is_unbiased_however_few_the_projections() -> None:
    """Guards the spread of two projections, of which one number is left to tell: var(v^2) is that of their mean."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 4)), rng.standard_normal((40, 4)) * np.linspace(0.2, 3, 4)
    values, errors = np.transpose([sliced_wasserstein(x, y, 2, seed=seed) for seed in range(800)])
    assert np.mean((2 * values * errors) ** 2) == pytest.approx(np.var(values**2), rel=0.2)
    assert sliced_wasserstein(x, y, seed=3) == sliced_wasserstein(x, y, 500, normalisation="none", seed=3)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((3, 3)), {}, "x and y .*3 and 2"),
        (np.zeros(3), {}, r"x must be \(num"),
        (np.zeros((0, 2)), {}, "num > 0"),
        (np.full((3, 2), np.nan), {}, "x must be finite"),
        (np.zeros((3, 2)), {"normalisation": "std"}, "normalisation"),
        (np.zeros((3, 2)), {"num_projections": 1}, "num_projections"),
        (np.zeros((3, 2)), {"seed": -1}, "seed"),
    ],
)
def test_what_has_no_sliced_distance_is_refused(x: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(x, np.ones((4, 2)), **{"seed": 0} | options)


# ------------------------------------------------------------------------------------------------------- Frechet


def covariance(n: int, seed: int, rank: int | None = None) -> np.ndarray:
    factor = np.random.default_rng(seed).standard_normal((n, rank or n))
    return factor @ factor.T


def test_gaussians_that_commute_have_the_distance_of_their_deviations() -> None:
    turn = np.linalg.qr(covariance(5, 0))[0]
    a, b = np.array([4.0, 1.0, 0.3, 1e-3, 0.0]), np.array([1.0, 1.0, 0.0, 2.0, 0.0])
    means = np.array([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 2.0]])
    found = frechet_from_moments(means[0], turn * a @ turn.T, means[1], turn * b @ turn.T)
    assert found == pytest.approx(5 + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-10)


def test_general_covariances_against_scipy() -> None:
    a, b = covariance(6, 0), covariance(6, 1)
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_from_moments(np.zeros(6), a, np.zeros(6), b) == pytest.approx(expected, rel=1e-9)
    assert frechet_from_moments(np.zeros(6), b, np.zeros(6), a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_covariances_of_low_rank(rank: int) -> None:
    """Distance of S and c^2 S is (c - 1)^2 tr S at any rank, and that of S to itself is zero."""
    s, zero = covariance(60, 2, rank), np.zeros(60)
    assert frechet_from_moments(zero, s, zero, 9 * s) == pytest.approx(4 * np.trace(s), rel=1e-10)
    assert frechet_from_moments(zero, s, zero, s) < 1e-11 * np.trace(s)
    assert frechet_from_moments(zero, s, zero, np.zeros((60, 60))) == pytest.approx(np.trace(s))


def test_small_eigenvalues_count_until_they_are_rounding() -> None:
    """Guards the tolerance of the square root, from both sides."""
    zero, other = np.zeros(2), np.diag([0.0, 1.0])
    found = frechet_from_moments(zero, np.diag([1.0, 1e-12]), zero, other)
    assert found == pytest.approx(1 + (1 - 1e-6) ** 2, rel=1e-12)
    assert frechet_from_moments(zero, np.diag([1.0, 1e-17]), zero, other) == 2.0
    assert frechet_from_moments(zero, np.diag([1.0, -1e-9]), zero, other) == 2.0, "negative by rounding"
    assert frechet_from_moments([1.0], [[4.0]], [0.0], [[1.0]]) == pytest.approx(2.0), "one feature"


def test_means_count_by_their_difference_and_moments_in_double_precision() -> None:
    """Guards the first term where both means are far from zero, the precision, and that no distance is negative."""
    assert frechet_from_moments([1.0, 2.0], np.eye(2), [4.0, 6.0], np.eye(2)) == pytest.approx(25, rel=1e-12)
    single = [
        value.astype(np.float32) for value in (np.full(6, 0.1), covariance(6, 0), np.full(6, 0.3), covariance(6, 1))
    ]
    assert frechet_from_moments(*single) == frechet_from_moments(*(value.astype(float) for value in single))
    same = [covariance(5, seed) for seed in range(30)]
    assert min(frechet_from_moments(np.ones(5), s, np.ones(5), s) for s in same) >= 0


def test_two_planes_at_an_angle() -> None:
    """Lines at an angle theta: the overlap of the two square roots is |cos theta|."""
    for theta in (0.0, 0.4, math.pi / 2):
        u, v = np.array([1.0, 0.0]), np.array([math.cos(theta), math.sin(theta)])
        found = frechet_from_moments(np.zeros(2), np.outer(u, u), np.zeros(2), np.outer(v, v))
        assert found == pytest.approx(2 - 2 * math.cos(theta), abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "mean_a and mean_b"),
        ((np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), r"covariance_a .*\(2, 2\)"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.inf)), "covariance_b .*finite"),
        ((np.zeros(2), np.eye(2), np.zeros(2), -np.eye(2)), "covariance_b .*negative"),
        ((np.zeros(2), np.array([[1, 1], [0, 1.0]]), np.zeros(2), np.eye(2)), "covariance_a .*symmetric"),
        ((np.zeros(2), np.array([[1, 0.5], [0.5001, 1.0]]), np.zeros(2), np.eye(2)), "covariance_a"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.diag([-1e-4, 1.0])), "covariance_b"),
        ((np.zeros((2, 2)), np.eye(2), np.zeros((2, 2)), np.eye(2)), "mean_a"),
    ],
)
def test_moments_of_no_gaussian_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_from_moments(*arguments)


# -------------------------------------------------------------------------------------------------- segmentation


@pytest.mark.parametrize("ignore", [None, 255, 1])
def test_iou_is_scikit_learns_jaccard_score(ignore: int | None) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, (3, 8, 9))
    pred = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, 5, target.shape))
    if ignore == 255:
        target[:, :2] = 255
    kept = target != ignore
    expected = jaccard_score(target[kept], pred[kept], labels=range(5), average=None, zero_division=0)
    found = class_iou(torch.from_numpy(pred), target, 5, ignore)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert mean_iou(pred, target, 5, ignore) == pytest.approx(expected.mean())


def test_absent_classes_do_not_count() -> None:
    target, pred = np.array([0, 0, 1, 1, 4]), np.array([0, 1, 1, 1, 0])
    np.testing.assert_array_equal(class_iou(pred, target, 6), [1 / 3, 2 / 3, np.nan, np.nan, 0, np.nan])
    assert mean_iou(pred, target, 6) == pytest.approx(1 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mean_iou(pred, target, 6) == pytest.approx(jaccard_score(target, pred, average="macro"))
    assert mean_iou(target, target, 6) == 1 == mean_iou([0, 0], [0, 0], 1)


def test_counts_are_those_of_scikit_learn_and_add_over_images() -> None:
    rng = np.random.default_rng(1)
    target, pred = rng.integers(0, 4, (2, 5, 6, 7))
    expected = [confusion_matrix(t.ravel(), p.ravel(), labels=range(4)) for t, p in zip(target, pred)]
    each = np.stack([confusion(p, t, 4) for p, t in zip(pred, target)])
    np.testing.assert_array_equal(each, expected)
    np.testing.assert_allclose(iou_of_confusion(each.sum(0)), class_iou(pred, target, 4), rtol=1e-14)
    by_image = iou_of_confusion(each)
    assert by_image.shape == (5, 4)
    np.testing.assert_allclose(by_image[2], class_iou(pred[2], target[2], 4), rtol=1e-14)
    assert abs(np.nanmean(by_image) - mean_iou(pred, target, 4)) > 1e-4, "a mean over images is another score"


def test_small_integer_types_do_not_overflow() -> None:
    target = np.arange(150, dtype=np.uint8)
    assert mean_iou(torch.from_numpy(target), torch.from_numpy(target), 150) == 1


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        ([0, 1], [0], "pred and target"),
        ([0, 3], [0, 1], "pred .*0..2, got .*0..3"),
        ([0, 1], [0, -1], "target .*0..2"),
        ([0.0, 1.0], [0, 1], "pred .*float32"),
        ([0, 1], [9, 9], "target .*pixel"),
    ],
)
def test_what_is_no_segmentation_is_refused(pred: list, target: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_iou(pred, target, 3, ignore_index=9)


# ------------------------------------------------------------------------------------------------- class subspaces


def test_bases_of_a_noisy_molrg_are_recovered() -> None:
    model = NoisyMoLRG.random(n=20, d=3, K=4, delta=0.1, seed=0)
    angles = []
    for num in (400, 6400):
        x, labels = model.sample(num, 1)
        bases = class_bases(x, labels, 3)
        assert bases.shape == (4, 20, 3) and bases.dtype == torch.float64
        angles.append(max(subspace_angles(*pair).max() for pair in zip(bases.numpy(), model.bases)))
    assert angles[1] < 0.02 and angles[1] == pytest.approx(angles[0] / 4, rel=0.5)  # falls as 1 / sqrt(num)
    assert csnr(x, labels, bases) == pytest.approx(csnr(x, labels, model.bases), rel=0.01)


def test_centred_bases_are_principal_components() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    x = rng.standard_normal((300, 7)) * np.linspace(3, 0.1, 7) + np.where(labels, 50, -20)[:, None] * np.ones(7)
    for k, basis in enumerate(class_bases(x, labels, 2, centred=True).numpy()):
        components = PCA(2).fit(x[labels == k]).components_.T
        assert subspace_angles(basis, components).max() < 1e-7
    mean = np.ones((7, 1))
    assert all(subspace_angles(basis, mean).max() < 0.1 for basis in class_bases(x, labels, 1).numpy())


@pytest.mark.parametrize(
    ("labels", "rank", "options", "message"),
    [
        ([0, 0, 0, 1, 1], 1, {}, "labels must be 6"),
        ([], 1, {}, "labels"),
        ([0, 0, 0, 2, 2, 2], 1, {}, "rank .*class 1, got 1"),
        ([0, 0, 0, 0, 1, 1], 3, {}, "rank .*class 1, got 3"),
        ([0, 0, 0, 1, 1, 1], 3, {"centred": True}, "rank .*class 0 spans, got 3"),
        ([0, 0, 0, 1, 1, -1], 1, {}, "labels .*0..1, got -1..1"),
        ([0, 0, 0, 1, 1, 1], 0, {}, "rank"),
    ],
)
def test_classes_without_a_subspace_are_refused(labels: list, rank: int, options: dict, message: str) -> None:
    x = np.random.default_rng(0).standard_normal((6, 5))
    with pytest.raises(ValueError, match=message):
        class_bases(x, labels, rank, **options)


@pytest.fixture
def classes() -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes with means far from zero, in numbers that differ."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 40 + [1] * 70 + [2] * 100)
    means = torch.tensor([[3.0, 1, 0, 0, 0, 0], [3, 0, 1, 0, 0, 0], [3, 0, 0, 1, 0, 0]])
    scales = torch.linspace(2, 0.1, 6)
    return means[labels] + scales * torch.randn(210, 6, generator=generator), labels


@pytest.mark.parametrize(("way", "centred"), [("raw", False), ("centred", True)])
def test_bases_from_moments_are_those_of_a_decomposition(classes: tuple, way: str, centred: bool) -> None:
    frames = ClassMoments(*classes).frames(3, way)
    assert frames.bases.shape == (3, 6, 3) and not frames.offset.any()
    for found, expected in zip(frames.bases, class_bases(*classes, 3, centred=centred), strict=True):
        # column by column, in falling order, up to sign
        assert torch.allclose((found.mT @ expected).abs(), torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_the_common_mean_is_taken_off_classes_and_vectors(classes: tuple) -> None:
    x, labels = classes
    frames = ClassMoments(x, labels).frames(2, "mean-off")
    mean = torch.stack([x[labels == k].double().mean(0) for k in range(3)]).mean(0)
    assert torch.allclose(frames.offset, mean)
    expected = class_bases(x.double() - mean, labels, 2)
    assert torch.allclose(frames.bases @ frames.bases.mT, expected @ expected.mT, atol=1e-9)
    by_hand = torch.einsum("nd,kdr->nkr", x.double() - mean, frames.bases)
    assert torch.allclose(frames.coordinates(x), by_hand)


def test_shared_directions_are_projected_out(classes: tuple) -> None:
    x, labels = classes
    frames = ClassMoments(x, labels).frames(2, "shared-off", shared=2)
    # all classes together, each counting the same
    together = torch.cat([x[labels == k].double() / float((labels == k).sum()) ** 0.5 for k in range(3)])
    common = torch.linalg.svd(together).Vh[:2]  # (2, D)
    assert (common @ frames.bases).abs().max() < 1e-9
    rest = torch.eye(6, dtype=torch.float64) - common.mT @ common
    expected = class_bases(x.double() @ rest, labels, 2)
    assert torch.allclose(frames.bases @ frames.bases.mT, expected @ expected.mT, atol=1e-9)


@pytest.mark.parametrize("way", ["raw", "centred", "mean-off", "shared-off"])
def test_energies_from_moments_are_those_of_the_coordinates(classes: tuple, way: str) -> None:
    x, labels = classes
    moments = ClassMoments(x, labels)
    frames = moments.frames(3, way, shared=2)
    for k, energies in enumerate(moments.energies(frames)):  # (K, rank)
        by_hand = frames.coordinates(x[labels == k]).square().mean(0).cumsum(1)
        assert torch.allclose(energies, by_hand, rtol=1e-10)


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (7, {}, "rank .*6, .*got 7"),
        (0, {}, "rank"),
        (1, {"way": "white"}, "way .*got 'white'"),
        (1, {"way": "shared-off", "shared": 6}, "shared .*6, .*got 6"),
        (5, {"way": "shared-off", "shared": 2}, "rank .*class 0 spans, got 5"),
    ],
)
def test_bases_that_moments_do_not_hold_are_refused(classes: tuple, rank: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassMoments(*classes).frames(rank, **options)


def test_moments_of_a_missing_class_are_refused() -> None:
    with pytest.raises(ValueError, match="labels .*class 1"):
        ClassMoments(np.ones((3, 2)), [0, 2, 2])


def test_projection_on_the_own_class_against_projecting(classes: tuple) -> None:
    x, labels = classes
    frames = ClassMoments(x, labels).frames(3)
    values = projected_csnr(frames.coordinates(x), labels, frames.bases, (1, 3))
    for rank, value in zip((1, 3), values, strict=True):
        U = frames.bases[labels][:, :, :rank]
        inside = torch.einsum("ndr,nr->nd", U, torch.einsum("ndr,nd->nr", U, x.double()))
        assert value == pytest.approx(csnr(inside, labels, frames.bases[:, :, :rank]), rel=1e-12)


def test_almost_orthogonal_lines_and_small_dimensions_still_count() -> None:
    """Guards three tolerances: a large ratio is a number, and a dimension of small variance is one."""
    angle = math.acos(1e-6)
    bases = torch.tensor([[[1.0], [0.0]], [[math.cos(angle)], [math.sin(angle)]]], dtype=torch.float64)
    x, labels = bases[:, :, 0].repeat(3, 1), torch.tensor([0, 1]).repeat(3)
    coordinates = torch.einsum("nd,kdr->nkr", x, bases)
    assert projected_csnr(coordinates, labels, bases, (1,)) == [pytest.approx(1e12, rel=1e-3)]
    scales = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    narrow = scales * torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ClassMoments(narrow, [0] * 30).frames(2).bases.shape == (1, 2, 2)
    assert class_bases(narrow * torch.tensor([1.0, 1e-2]), [0] * 30, 2).shape == (1, 2, 2)
    # All three are ratios: the units of the features do not matter.
    assert projected_csnr(1e-3 * coordinates, labels, bases, (1,)) == [pytest.approx(1e12, rel=1e-3)]
    assert ClassMoments(1e-3 * narrow, [0] * 30).frames(2).bases.shape == (1, 2, 2)
    assert class_bases(1e-4 * narrow * torch.tensor([1.0, 1e-2]), [0] * 30, 2).shape == (1, 2, 2)
    for far in (1e-6, 1e6):
        with pytest.raises(ValueError, match="rank"):
            ClassMoments(far * narrow * torch.tensor([1.0, 1e-2]), [0] * 30).frames(2)
        with pytest.raises(ValueError, match="rank"):
            class_bases(far * narrow * torch.tensor([1.0, 1e-5]), [0] * 30, 2)
    assert ClassMoments(narrow[:3], [0, 1, 1]).counts == [1, 2], "a class may have one sample"


def test_a_line_is_a_subspace_of_one_feature_or_more(classes: tuple) -> None:
    """Guards that nothing is read of a second direction or feature."""
    x, labels = classes
    assert torch.equal(class_bases(x[:, :1], labels, 1).abs(), torch.ones(3, 1, 1, dtype=torch.float64))
    line = ClassMoments(x, labels).frames(1).bases
    torch.testing.assert_close((line.mT @ class_bases(x, labels, 1)).abs(), torch.ones(3, 1, 1, dtype=torch.float64))
    plain, told = (ClassMoments(x, labels).frames(1, "shared-off", **o) for o in ({}, {"shared": 5}))
    assert torch.equal(plain.bases, told.bases) and not class_bases(x, labels, 1).equal(
        class_bases(x, labels, 1, centred=True)
    )


def test_projection_between_orthogonal_and_equal_classes() -> None:
    model = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.3, seed=0)
    x, labels = model.sample(300, 1)
    apart = torch.stack(model.bases)
    equal = apart[:1].expand(3, -1, -1)

    def projected(bases: torch.Tensor) -> float:
        return projected_csnr(torch.einsum("nd,kdr->nkr", x, bases), labels, bases, (2,))[0]

    assert projected(apart) == float("inf") and projected(equal) == pytest.approx(1 / 2, rel=1e-12)


# ------------------------------------------------------------------------------------------------------ memorisation


def test_planted_copies_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    training = rng.standard_normal((500, 3, 4, 4)) + 100  # a large mean, which products must survive
    originals = rng.permutation(500)[:40]
    samples = rng.standard_normal((100, 3, 4, 4)) + 100
    samples[:40] = training[originals] + 0.01 * rng.standard_normal((40, 3, 4, 4))
    found = memorised(samples, training)
    assert found.novel == 0.6
    assert (found.ratio[:40] < 0.05).all() and (found.ratio[40:] > 0.7).all()
    assert (found.nearest[:40] == originals).all()
    exact = memorised(training[originals], training, max_numbers=1000)
    assert exact.novel == 0 and (exact.ratio == 0).all() and (exact.nearest == originals).all()


def test_distances_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    samples, training = rng.standard_normal((60, 7)), rng.standard_normal((90, 7))
    distances, indices = NearestNeighbors(n_neighbors=2).fit(training).kneighbors(samples)
    for max_numbers in (1, 2000, 10**7):
        found = memorised(torch.from_numpy(samples), training, max_numbers=max_numbers)
        np.testing.assert_allclose(found.ratio, distances[:, 0] / distances[:, 1], rtol=1e-5)
        assert (found.nearest == indices[:, 0]).all()


def test_the_threshold_is_a_ratio_of_distances() -> None:
    training = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 50.0]])
    samples = np.array([[0.7, 0.0], [0.8, 0.0], [-1.0, 0.0]])  # ratios 0.7/2.3, 0.8/2.2, 1/4
    assert memorised(samples, training).novel == pytest.approx(1 / 3)
    assert memorised(samples, training, threshold=0.26).novel == pytest.approx(2 / 3)
    np.testing.assert_allclose(memorised(samples, training).ratio, [0.7 / 2.3, 0.8 / 2.2, 0.25], rtol=1e-6)


def test_a_ratio_at_the_threshold_is_no_copy() -> None:
    """Guards the edge of the definition, d_1 / d_2 < threshold, and its default."""
    training = np.array([[0.0], [5.0], [-20.0]])
    assert memorised(np.array([[1.0]]), training, threshold=0.25).novel == 1
    assert memorised(np.array([[1.0]]), training, threshold=0.2501).novel == 0
    assert [memorised(np.array([[s]]), np.array([[0.0], [1.0]])).novel for s in (0.249, 0.251)] == [0, 1]


def test_neighbours_are_found_where_products_cannot_tell_them() -> None:
    """Guards the candidates and the centring: seven neighbours a hundredth apart, far from the others, far from 0."""
    near = np.linspace(-0.03, 0.03, 7)[:, None]
    training = np.concatenate([1000 + near[::-1], -1000 + near])
    samples = 1000 + np.array([[-0.0301], [-0.011], [0.0099], [0.0299]])
    found = memorised(samples, training)
    assert found.nearest.tolist() == [6, 4, 2, 0]
    rng = np.random.default_rng(0)
    shifted = (3000 + rng.standard_normal((300, 2))).astype(np.float32)
    samples = (3000 + rng.standard_normal((80, 2))).astype(np.float32)
    _, indices = NearestNeighbors(n_neighbors=2).fit(shifted.astype(float)).kneighbors(samples.astype(float))
    assert (memorised(samples, shifted).nearest == indices[:, 0]).mean() > 0.97  # ties may differ


def test_distances_too_small_for_single_precision_squared() -> None:
    """Guards the precision of the distances: their squares would be zero."""
    found = memorised(np.array([[1e-25]]), np.array([[0.0], [3e-25], [1e-24]]))
    assert found.ratio.tolist() == pytest.approx([0.5]) and found.nearest.tolist() == [0]


def test_an_original_that_is_there_twice() -> None:
    """An exact copy of a duplicate is found; a near copy is not, as the docstring says."""
    training = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert memorised(np.array([[0.0, 0.0], [0.01, 0.0]]), training).ratio.tolist() == [0.0, 1.0]


def test_images_of_bytes_do_not_wrap_around() -> None:
    training = torch.tensor([[0], [250], [130]], dtype=torch.uint8)
    assert memorised(torch.tensor([[255]], dtype=torch.uint8), training).nearest.tolist() == [1]


@pytest.mark.parametrize(
    ("samples", "training", "options", "message"),
    [
        (np.zeros((2, 3)), np.zeros((4, 2)), {}, "one size, got 3 and 2"),
        (np.zeros((2, 3)), np.zeros((1, 3)), {}, "training 2, got 2 and 1"),
        (np.zeros((0, 3)), np.zeros((4, 3)), {}, "at least 1 item"),
        (np.zeros(3), np.zeros((4, 3)), {}, "samples"),
        (np.zeros((2, 3)), np.full((4, 3), np.nan), {}, "training .*finite"),
        (np.zeros((2, 3)), np.zeros((4, 3)), {"threshold": 1.0}, "threshold"),
        (np.zeros((2, 3)), np.zeros((4, 3)), {"threshold": 0.0}, "threshold"),
        (np.zeros((2, 3)), np.zeros((4, 3)), {"max_numbers": 0}, "max_numbers"),
    ],
)
def test_copies_that_cannot_be_looked_for(
    samples: np.ndarray, training: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        memorised(samples, training, **options)


# ------------------------------------------------------------------------------------------------------- alignment


def test_alignment_is_that_of_the_kernels_and_knows_no_axes() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 6))
    centring = np.eye(30) - 1 / 30
    one, two = (centring @ z @ z.T @ centring for z in (x, y))
    expected = (one * two).sum() / np.sqrt((one * one).sum() * (two * two).sum())
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-12)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert linear_cka(x, 3 * x @ turn - 7) == pytest.approx(1, rel=1e-12)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, 0.1 * x @ turn), rel=1e-12)
    assert linear_cka(x, x * [1, 5, 1, 1]) < 0.95  # not blind to the scale of one axis
    assert linear_cka(1e-9 * x, y) == pytest.approx(expected, rel=1e-12)
    assert linear_cka(x[:2], y[:2]) == pytest.approx(1, rel=1e-12), "two items lie on a line"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.ones((4, 2)), "one N"),
        (np.zeros(3), np.ones((3, 2)), "one N"),
        (np.ones((3, 2)), np.ones(3), "one N"),
        (np.ones((1, 2)), np.ones((1, 2)), "one N"),
        (np.ones((3, 2)), np.eye(3), "constant"),
        (np.eye(3), np.ones((3, 2)), "constant"),
        (np.full((3, 2), np.nan), np.eye(3), "finite"),
        (np.eye(3), np.full((3, 2), np.inf), "finite"),
    ],
)
def test_alignment_of_what_has_none_is_refused(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cka(x, y)
