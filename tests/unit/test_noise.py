"""Noise levels: EDM's grid, the paper's ten levels, DDPM's time steps on the sigma axis."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repdyn.noise import PAPER_SIGMAS, VP_TIMES, ddpm_alpha_bar, ddpm_sigma, ddpm_timestep, edm_sigmas, vp_sigma


@pytest.mark.parametrize(
    ("num", "low", "high", "rho"), [(18, 0.002, 80.0, 7.0), (2, 0.1, 1.0, 1.0), (5, 0.5, 2.0, 3.0)]
)
def test_grid_by_formula(num: int, low: float, high: float, rho: float) -> None:
    expected = [(high ** (1 / rho) + i / (num - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(num)]
    grid = edm_sigmas(num, low, high, rho)
    assert grid.tolist() == pytest.approx(expected, rel=1e-12)
    assert grid[0] == pytest.approx(high) and grid[-1] == pytest.approx(low)
    assert (np.diff(grid) < 0).all()


def test_the_papers_levels_are_the_ten_smallest_of_the_grid_of_eighteen() -> None:
    assert PAPER_SIGMAS == tuple(round(float(sigma), 3) for sigma in edm_sigmas(18)[::-1][:10])


@pytest.mark.parametrize("arguments", [(1,), (10, 0.0), (10, -1.0), (10, 2.0, 1.0), (10, math.nan)])
def test_a_grid_that_makes_no_sense_is_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="num must|sigma_min < sigma_max"):
        edm_sigmas(*arguments)


def test_alpha_bar_against_a_loop() -> None:
    product, expected = 1.0, []
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        expected.append(product)
    assert ddpm_alpha_bar().tolist() == pytest.approx(expected, rel=1e-10)
    assert expected[-1] == pytest.approx(4.04e-5, rel=0.01)  # Ho et al. (2020): all but nothing of the image is left


@pytest.mark.parametrize("arguments", [(0,), (10, 0.0), (10, 0.1, 0.01), (10, 0.1, 1.0)])
def test_a_schedule_that_makes_no_sense_is_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="num_steps.*beta_min"):
        ddpm_alpha_bar(*arguments)


def test_sigma_of_a_time_step() -> None:
    alpha_bar = ddpm_alpha_bar()
    assert ddpm_sigma(0, alpha_bar) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    assert ddpm_sigma(999, alpha_bar) == pytest.approx(157.4, rel=1e-3)
    assert isinstance(ddpm_sigma(3, alpha_bar), float)
    levels = ddpm_sigma(np.array([[0, 10], [500, 999]]), alpha_bar)
    assert levels.shape == (2, 2)
    # signal and noise of sqrt(alpha_bar) (x_0 + sigma eps) have the variances alpha_bar and 1 - alpha_bar
    np.testing.assert_allclose(alpha_bar[[0, 10, 500, 999]] * levels.ravel() ** 2, 1 - alpha_bar[[0, 10, 500, 999]])


def test_time_step_and_sigma_round_trip() -> None:
    alpha_bar, steps = ddpm_alpha_bar(), np.arange(1000)
    assert (ddpm_timestep(ddpm_sigma(steps, alpha_bar), alpha_bar) == steps).all()
    assert ddpm_timestep(ddpm_sigma(412, alpha_bar), alpha_bar) == 412


def test_nearest_time_step_is_nearest_in_log_sigma() -> None:
    alpha_bar = ddpm_alpha_bar()
    low, high = ddpm_sigma(np.array([300, 301]), alpha_bar)
    middle = math.sqrt(low * high)
    found = ddpm_timestep(np.array([[middle * 0.9999], [middle * 1.0001]]), alpha_bar)
    assert found.tolist() == [[300], [301]]
    assert ddpm_timestep(1e-9, alpha_bar) == 0
    assert ddpm_timestep(1e9, alpha_bar) == 999


def test_nearest_is_meant_in_log_sigma_on_a_coarse_schedule_too() -> None:
    """Guards the measure of nearness: between 1 and 3 the middle is sqrt(3), not 2. Whole numbers are levels too."""
    alpha_bar = np.array([0.5, 0.1])
    assert ddpm_timestep(np.array([1.7, 1.8]), alpha_bar).tolist() == [0, 1]
    assert ddpm_timestep(3, alpha_bar) == 1 and ddpm_timestep([1, 3], alpha_bar).tolist() == [0, 1]


def test_the_edges_of_what_makes_sense() -> None:
    """Guards the bounds of the arguments: one step, betas that do not rise, a grid whose ends meet."""
    assert ddpm_alpha_bar(1, 0.1, 0.2).tolist() == pytest.approx([0.9])
    assert ddpm_alpha_bar(2, 0.1, 0.1).tolist() == pytest.approx([0.9, 0.81])
    with pytest.raises(ValueError, match="sigma_max"):
        edm_sigmas(3, 1.0, 1.0)
    assert (VP_TIMES[0], VP_TIMES[-1], len(VP_TIMES)) == (1e-5, 1.0, 1000)
    assert vp_sigma(1) == vp_sigma(1.0) and vp_sigma([1]).tolist() == [vp_sigma(1.0)]


@pytest.mark.parametrize("timestep", [-1, 1000, np.array([0, 1000])])
def test_a_time_step_outside_the_schedule_is_refused(timestep: int | np.ndarray) -> None:
    with pytest.raises(ValueError, match="timestep"):
        ddpm_sigma(timestep, ddpm_alpha_bar())


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, np.array([1.0, 0.0])])
def test_a_sigma_without_time_step_is_refused(sigma: float | np.ndarray) -> None:
    with pytest.raises(ValueError, match="sigma"):
        ddpm_timestep(sigma, ddpm_alpha_bar())


def test_the_continuous_schedule_is_the_limit_of_that_of_ddpm() -> None:
    for time in (1e-5, 0.01, 0.37, 1.0):
        expected = math.sqrt(math.exp(19.9 * time**2 / 2 + 0.1 * time) - 1)
        assert vp_sigma(time) == pytest.approx(expected, rel=1e-9 if time > 1e-4 else 1e-4)  # expm1 is the better one
    steps = 100_000  # betas of the linear schedule, its rate per unit of time from 0.1 to 20
    fine = ddpm_sigma(np.arange(steps), ddpm_alpha_bar(steps, 0.1 / steps, 20 / steps))
    np.testing.assert_allclose(fine[999::1000], vp_sigma(np.arange(1, 101) / 100), rtol=2e-3)


@pytest.mark.parametrize("time", [0.0, -0.1, 1.1, float("nan")])
def test_times_outside_the_schedule_are_refused(time: float) -> None:
    with pytest.raises(ValueError, match="^time"):
        vp_sigma(np.array([0.5, time]))
