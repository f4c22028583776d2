"""Bias and growth of the Frechet distance, retained power and scatter: against closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repdyn.metrics import frechet_bias, frechet_from_moments, frechet_of_posterior, retained_power, scatter_shares

RNG = np.random.default_rng(0)

# ------------------------------------------------------------------------------------------------------ Frechet


@pytest.mark.parametrize(("num_a", "num_b"), [(800, 800), (400, 2000)])
def test_bias_is_what_gaussian_samples_show(num_a: int, num_b: int) -> None:
    rng, variances = np.random.default_rng(1), np.geomspace(1, 0.01, 12)
    values = []
    for _ in range(150):
        a, b = (rng.standard_normal((num, 12)) * np.sqrt(variances) for num in (num_a, num_b))
        values.append(frechet_from_moments(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T)))
    error = np.std(values) / np.sqrt(len(values))
    assert error < 0.03 * np.mean(values)
    assert frechet_bias(np.diag(variances), num_a, num_b) == pytest.approx(np.mean(values), abs=4 * error)


def test_bias_grows_with_the_square_of_the_features_and_knows_no_axes() -> None:
    assert frechet_bias(3.0 * np.eye(8), 100, 50) == pytest.approx(0.03 * 3.0 * 8 * 13 / 4, rel=1e-12)
    rotation, _ = np.linalg.qr(RNG.standard_normal((5, 5)))
    variances = np.array([2.0, 1.0, 0.5, 0.0, 0.0])
    turned = frechet_bias(rotation * variances @ rotation.T, 10, 10)
    assert turned == pytest.approx(frechet_bias(np.diag(variances[:3]), 10, 10), rel=1e-9)


@pytest.mark.parametrize(
    ("covariance", "num", "message"),
    [
        (np.ones(3), 5, r"covariance .*got \(3,\)"),
        (-np.eye(2), 5, "covariance .*negative"),
        (np.eye(2), 0, "num_a .*got 0"),
        (np.eye(2), 2.5, "num_a .*integer"),
    ],
)
def test_bias_of_nothing_is_refused(covariance: np.ndarray, num: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_bias(covariance, num, 5)


@pytest.mark.parametrize("noisy", [True, False])
def test_distance_of_a_gaussians_posterior_means(noisy: bool) -> None:
    variances, zero = np.array([2.0, 0.3, 0.01]), np.zeros(3)
    for sigma in (0.05, 0.4, 3.0):
        gain = variances / (variances + sigma**2)
        moved = gain**2 * (variances + sigma**2 * noisy)
        direct = frechet_from_moments(zero, np.diag(moved), zero, np.diag(variances))
        assert frechet_of_posterior(variances, sigma, noisy_input=noisy) == pytest.approx(direct, rel=1e-9)
    single = variances.astype(np.float32)
    exact = frechet_of_posterior(single.astype(float), 0.4, noisy_input=noisy)
    assert frechet_of_posterior(single, 0.4, noisy_input=noisy) == exact, "computed in double precision"
    if noisy:
        assert frechet_of_posterior(variances, 0.4) == frechet_of_posterior(variances, 0.4, noisy_input=True)
    grid = np.geomspace(1e-3, 1e4, 60)
    curve = frechet_of_posterior(variances, grid, noisy_input=noisy)
    assert curve.shape == (60,) and (np.diff(curve) > 0).all()
    assert curve[-1] == pytest.approx(variances.sum(), rel=1e-2)
    assert frechet_of_posterior(np.array([1.0, 0.0]), 0.0, noisy_input=noisy) == 0.0


def test_variances_without_a_meaning_are_refused() -> None:
    for variances in (np.array([1.0, -1.0]), np.array([np.nan]), np.eye(2)):
        with pytest.raises(ValueError, match="variances"):
            frechet_of_posterior(variances, 1.0)
    with pytest.raises(ValueError, match="sigma"):
        frechet_of_posterior(np.ones(2), -1.0)


# ----------------------------------------------------------------------------------------------- linear denoiser


# ----------------------------------------------------------------------------------------------- retained detail


def waves(frequency: tuple[int, int], size: int = 16, num: int = 40) -> torch.Tensor:
    """Images (num, 1, size, size) of one plane wave each, of random phase and height."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phase = torch.linspace(0, 2 * torch.pi, num + 1)[:-1, None, None]
    wave = torch.cos(2 * torch.pi * (frequency[0] * rows + frequency[1] * columns) / size + phase)
    return wave[:, None].double()


@pytest.mark.parametrize(
    ("frequency", "band"),
    # Of 16 pixels, in cycles an image: octaves are below 2, 2 to 4, 4 and above.
    [
        ((1, 0), 0),
        ((0, -1), 0),
        ((1, 1), 0),
        ((2, 0), 1),
        ((0, 3), 1),
        ((2, -2), 1),
        ((4, 0), 2),
        ((3, 3), 2),
        ((8, 8), 2),
    ],
)
def test_power_is_counted_in_its_octave(frequency: tuple[int, int], band: int) -> None:
    background = 0.1 * torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = retained_power(background, background, 3)
    assert torch.equal(without, torch.ones(3, dtype=torch.float64))
    raised = retained_power(background + 10 * waves(frequency), background, 3)
    assert raised.argmax() == band and raised[band] > 20 * raised[[b for b in range(3) if b != band]].max()


def test_power_is_a_ratio_of_squares_and_ignores_the_mean_image() -> None:
    images = torch.randn(30, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        retained_power(0.5 * images + 3.0, images, 3), torch.full((3,), 0.25, dtype=torch.float64)
    )
    blurred = (images + images.roll(1, -1)) / 2
    power = retained_power(blurred, images, 3)
    assert power[0] == pytest.approx(1) and power[0] > power[1] > power[2], (
        "the first band has the mean of an image only"
    )


def test_units_shapes_and_default_of_retained_detail() -> None:
    """Guards that faint images, images of two channels or not square, and plain vectors are measured alike."""
    images = torch.randn(30, 2, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quarter = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(retained_power(0.5e-3 * images, 1e-3 * images), quarter)
    labels = torch.arange(30) % 3
    for x in (images, images.flatten(1), 1e-3 * images):
        assert scatter_shares(0.5 * x, x, labels) == pytest.approx((0.25, 0.25), rel=1e-12)
    with pytest.raises(ValueError, match="estimates"):
        scatter_shares(images[:, 0, 0, 0], images[:, 0, 0, 0], labels)
    with pytest.raises(ValueError, match="finite"):
        retained_power(images, torch.full_like(images, torch.inf))
    with pytest.raises(ValueError, match="estimates"):
        retained_power(images[:0], images[:0])


def test_scatter_is_analysed_as_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64)
    own = torch.randn(60, 1, 4, 4, generator=generator, dtype=torch.float64)
    own = own - torch.stack([own[labels == k].mean(0) for k in range(3)])[labels]  # no scatter between classes
    within, between = scatter_shares(0.5 * own + 2 * centres[labels], own + centres[labels], labels)
    assert within == pytest.approx(0.25, rel=1e-12) and between == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize(
    "function", [lambda a, b: retained_power(a, b), lambda a, b: scatter_shares(a, b, torch.arange(4))]
)
def test_pairs_that_do_not_fit_are_refused(function: object) -> None:
    with pytest.raises(ValueError, match=r"one shape .*\(4, 1, 8, 8\) and \(3"):
        function(torch.zeros(4, 1, 8, 8), torch.zeros(3, 1, 8, 8))
    with pytest.raises(ValueError, match="finite"):
        function(torch.full((4, 1, 8, 8), torch.nan), torch.zeros(4, 1, 8, 8))


def test_what_has_nothing_to_retain_is_refused() -> None:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="9 bands"):
        retained_power(images, images, 9)
    with pytest.raises(ValueError, match="images .*scatter"):
        scatter_shares(images, images, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels .*4"):
        scatter_shares(images, images, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="bands"):
        retained_power(images, images, 0)
