"""Many starts as one module, the schedules, and the measurement of recovery."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from repdyn.chapters.recovery import measure as recovery
from repdyn.chapters.recovery.measure import (
    EVEN_LEVELS,
    RecoveryConfig,
    SubspaceWorld,
    dataset,
    measure,
    paired_difference,
    phases,
    start_losses,
    success,
    train_starts,
)
from repdyn.denoisers import dae_loss
from repdyn.metrics import class_bases, match_subspaces
from repdyn.networks import MoLRGDenoiser, MoLRGStarts
from repdyn.records.variants import grid
from repdyn.theory.molrg import NoisyMoLRG
from repdyn.theory.subspaces import alternate, random_bases
from repdyn.training import EpsilonWeight, Listed, NoWeight, TrainConfig, batches, train

MODEL = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0)
DATA = MODEL.sample(600, seed=1)[0].float()
METHODS = ("0.3", "k-subspaces")
TINY = RecoveryConfig(SubspaceWorld(n=12, d=2, K=2, num=200), grid(method=METHODS), starts=2, worlds=2, steps=20)


def last(starts: MoLRGStarts, *args: object, **options: object) -> MoLRGStarts:
    *_, step = train_starts(starts, *args, **options)
    return step.ema


# ------------------------------------------------------------------------------------------- many starts, one module


@pytest.mark.parametrize("delta", [0.3, (0.0, 0.2, 0.9)])
def test_every_row_is_a_denoiser_by_itself(delta: float | tuple[float, ...]) -> None:
    starts = MoLRGStarts(3, 12, 2, 4, delta)
    x = 2 * torch.randn(40, 3, 12, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-1, 1, 40)
    together = starts(x, sigma)
    for index in range(3):
        single = starts.start(index)
        assert isinstance(single, MoLRGDenoiser)
        torch.testing.assert_close(single(x[:, index], sigma), together[:, index], rtol=1e-4, atol=1e-4)
        exact = NoisyMoLRG(starts.bases[index], starts.delta[index].item())
        torch.testing.assert_close(exact(x[:, index], sigma), together[:, index], rtol=1e-4, atol=1e-4)


def test_starts_are_trained_as_if_alone() -> None:
    """The gradient of the common loss is that of each, and so are Adam's steps, however different the neighbours."""
    config = TrainConfig(
        "molrg", None, 640, 64, levels=Listed((0.3,)), warmup_images=0, grad_clip=math.inf, precision="float32",
        weighting=NoWeight(),
    )  # fmt: skip
    rows = torch.stack([DATA, 3 * DATA.flip(1)], dim=1)  # (N, 2, n)
    pair = MoLRGStarts(2, 12, 2, 3)
    *_, together = train(config, denoiser=pair, data=rows, cpu=True)
    frames = pair.frames.detach()[0].clone().requires_grad_()
    optimizer = torch.optim.Adam([frames], config.learning_rate)
    for step in range(config.steps):
        batch = batches.draw(step, config, batches.unlabelled(rows))
        bases = torch.linalg.qr(frames).Q
        x0, sigma = batch.x0[:, 0], batch.sigma[:, None]
        x = x0 + sigma * batch.noise[:, 0]
        zeta, xi = 1 / (1 + sigma**2), 0.04 / (0.04 + sigma**2)
        parts = torch.einsum("bn,knd->bkd", x, bases)
        w = torch.softmax((zeta - xi) / (2 * sigma**2) * parts.square().sum(2), 1)
        found = xi * x + (zeta - xi) * torch.einsum("bk,bkd,knd->bn", w, parts, bases)
        optimizer.zero_grad()
        (found - x0).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(together.denoiser.frames[0], frames, rtol=1e-3, atol=1e-4)
    assert (pair.frames[0] - frames).abs().max() > 0.005, "nothing was trained"


def test_bases_are_orthonormal_random_and_may_be_assigned() -> None:
    starts = MoLRGStarts(2, 12, 2, 3, seed=1)
    assert torch.equal(starts.bases, MoLRGStarts(2, 12, 2, 3, seed=1).bases)
    assert not torch.allclose(starts.bases[0], starts.bases[1])
    trained = last(starts, DATA, "0.3", steps=10)
    error = trained.bases.mT @ trained.bases - torch.eye(2)
    assert error.abs().max() < 1e-5
    starts.bases = torch.stack(MODEL.bases).repeat(2, 1, 1, 1)
    assert match_subspaces(starts.bases[1].detach(), MODEL.bases).angles.max() < 1e-3
    with pytest.raises(ValueError, match=r"bases .*\(2, 3, 12, 2\)"):
        starts.bases = torch.stack(MODEL.bases)


def test_delta_is_learned_by_each() -> None:
    starts = MoLRGStarts(2, 12, 2, 3, delta=(0.4, 0.1), learn_delta=True)
    starts.bases = torch.stack(MODEL.bases).repeat(2, 1, 1, 1)
    assert starts.delta.tolist() == pytest.approx([0.4, 0.1])
    trained = last(starts, DATA, "even", steps=150, learning_rate=3e-2)
    assert trained.delta.tolist() == pytest.approx([0.2, 0.2], abs=0.02)


def test_subspaces_that_start_alike_are_close_to_each_other_and_differ_between_starts() -> None:
    starts = MoLRGStarts(2, 40, 2, 3, alike=0.1)
    within = match_subspaces(starts.bases[0, :1].detach(), starts.bases[0, 1:2].detach()).angles.max()
    between = match_subspaces(starts.bases[0, :1].detach(), starts.bases[1, :1].detach()).angles.max()
    assert 0.05 < within < 0.3 < 1 < between
    with pytest.raises(ValueError, match="alike"):
        MoLRGStarts(2, 40, 2, 3, alike=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 1, 2), "starts"),
        ((2, 3, 4, 2), "d must .*n = 3"),
        ((2, 3, 1, 2, (0.1, 0.2, 0.3)), "delta .*or 2"),
        ((2, 3, 1, 2, 1.0), r"delta .*\[0, 1\)"),
    ],
)
def test_what_is_no_set_of_starts_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoLRGStarts(*arguments)


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x must .*\(batch, 2, 3\)"):
        MoLRGStarts(2, 3, 1, 2)(torch.zeros(5, 3), 1.0)


# ---------------------------------------------------------------------------------------------- schedules and training


def test_schedules() -> None:
    assert phases("0.3") == [{"levels": Listed((0.3,)), "weighting": NoWeight()}]
    annealed = [part["levels"].sigmas[0] for part in phases("anneal")]
    assert annealed == sorted(annealed, reverse=True) and len(annealed) == 6
    ratios = np.divide(EVEN_LEVELS[1:], EVEN_LEVELS[:-1])
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=2e-3)
    assert phases("even") == [{"levels": Listed(EVEN_LEVELS), "weighting": EpsilonWeight()}]
    with pytest.raises(ValueError, match="schedule .*'often'"):
        phases("often")


def test_phases_follow_each_other() -> None:
    steps = list(train_starts(MoLRGStarts(2, 12, 2, 3), DATA, "anneal", steps=12, batch_size=8))
    assert [step.step for step in steps] == list(range(1, 13))
    before, after = (step.denoiser.frames.detach() for step in (steps[1], steps[2]))
    assert 0 < (before - after).abs().max() < 0.2, "the second phase goes on from the first"


def test_losses_are_lowest_at_the_true_bases() -> None:
    starts = MoLRGStarts(3, 12, 2, 3)
    other = random_bases(3, 12, 2, seed=9).float()
    true = torch.stack(MODEL.bases).float()
    starts.bases = torch.stack([true, true.flip(0), other])
    values = start_losses(starts, DATA)
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-5)
    assert values[2] > 1.1 * values[0]
    assert torch.equal(values, start_losses(starts, DATA[:, None].expand(-1, 3, -1)))
    generator, total = torch.Generator().manual_seed(1), 0.0
    for sigma in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
        noise = torch.randn(DATA.shape, generator=generator)
        total += dae_loss(MODEL, DATA, sigma, noise).mean().item() / 12 / sigma**2 / 6
    assert values[0].item() == pytest.approx(total, rel=0.03)


def test_lines_are_recovered_from_every_start_to_a_hundredth() -> None:
    """n = 20, d = 1, K = 3, delta = 0.1: no start is lost, and 50,000 samples allow a hundredth of a radian.

    Labelled principal components reach 0.005 with them; with d = 2 five starts of ten are lost (measured).
    """
    world = SubspaceWorld(n=20, d=1, K=3, delta=0.1, num=50_000)
    x, labels = world.model().sample(world.num, 1)
    true = world.model().bases
    oracle = match_subspaces(class_bases(x, labels, 1), true).angles.max()
    *_, step = train_starts(MoLRGStarts(10, 20, 1, 3, 0.1), x.float(), "0.3", steps=400)
    trained = last(step.denoiser, x.float(), "0.1", steps=250, batch_size=512, learning_rate=5e-4, seed=5)
    angles = np.array([match_subspaces(bases, true).angles.max() for bases in trained.bases.detach()])
    assert (angles < 1e-2).sum() >= 9
    assert 0.003 < oracle < angles.min(), "no better than with labels"


# ------------------------------------------------------------------------------------------------------- measurement


def test_what_is_returned(tmp_path: Path) -> None:
    methods = (*METHODS, "em", "wide", "alike")
    config = replace(TINY, variants=(*grid(method=methods), *grid(num=(100, 400), method=("0.3",))))
    result = measure(config, cache=tmp_path)
    assert result == json.loads(json.dumps(result)), "plain numbers and lists"
    found = [(cell["changed"], cell["method"]) for cell in result["cells"]]
    assert found[:5] == [({}, method) for method in methods]
    assert found[5:] == [({"num": value}, "0.3") for value in (100, 400)]
    for cell in result["cells"]:
        assert len(cell["angles"]) == 4 and len(cell["oracle"]) == 2
        assert max(cell["angles"]) <= math.pi / 2 + 1e-6
        assert (cell["losses"] is None) == (cell["method"] in ("k-subspaces", "em"))
    data = dataset(result, config)
    assert data.angles.dims == ("approach", "setting", "world", "start")
    assert data.setting.values.tolist() == ["base", "num=100", "num=400"] and data.num.values.tolist() == [
        200,
        100,
        400,
    ]
    for cell, setting in zip(result["cells"][4:], data.setting.values, strict=False):
        at = data.sel(approach=cell["method"], setting=setting)
        np.testing.assert_array_equal(at.angles.values.ravel(), cell["angles"])
        np.testing.assert_array_equal(at.oracle, cell["oracle"])
    oracle = data.oracle.sel(approach="0.3")
    assert oracle.sel(setting="num=400")[0] < oracle.sel(setting="num=100")[0]
    assert np.isnan(success(data.angles.sel(approach="em", setting="num=400"))), "not measured"
    assert data.losses.sel(approach="em").isnull().all()
    with pytest.raises(KeyError, match="approach"):
        data.sel(approach="even")


def test_angles_are_those_of_the_method() -> None:
    """The starts of one world follow those of the other, each compared with its own subspaces."""
    config = replace(TINY, variants=grid(method=("k-subspaces",)), starts=3)
    expected = []
    for seed in (0, 1000):
        model = replace(config.world, seed=seed).model()
        x, _ = model.sample(200, seed + 1)
        fits = [alternate(x, random_bases(2, 12, 2, 1000 + start)).bases for start in range(3)]
        expected += [match_subspaces(bases, model.bases).angles.max() for bases in fits]
    np.testing.assert_allclose(measure(config)["cells"][0]["angles"], expected)


def test_starting_from_the_truth_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def truth(config: RecoveryConfig, world: SubspaceWorld, data: torch.Tensor, method: str) -> torch.Tensor:
        return torch.stack([torch.stack(world.model().bases)] * config.starts)

    config = replace(TINY, variants=grid(method=("k-subspaces first",)), worlds=1)
    assert success(measure(config)["cells"][0]["angles"]) < 1
    monkeypatch.setattr(recovery, "_alternated", truth)
    cell = measure(config)["cells"][0]
    assert success(cell["angles"]) == 1
    assert cell["losses"] == pytest.approx([1.0] * 2, abs=0.02)


def test_an_interrupted_measurement_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(TINY)
    original, calls = recovery._cell, []

    def interrupted(*args: object) -> dict:
        calls.append(args[0].trial.method)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(recovery, "_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(TINY, cache=tmp_path)
    assert measure(TINY, cache=tmp_path) == whole
    assert calls == [*METHODS, METHODS[1]], "the first cell was not measured again"
    assert measure(replace(TINY, variants=TINY.variants[1:]), cache=tmp_path)["cells"] == whole["cells"][1:]
    assert len(calls) == 3, "a cell depends on no other"
    measure(replace(TINY, steps=21, variants=TINY.variants[:1]), cache=tmp_path)
    assert len(calls) == 4, "but on the length of the training"


def test_paired_differences_are_over_worlds() -> None:
    config = RecoveryConfig(worlds=2, starts=2)

    def cell(method: str, angles: list[float], **changed: float) -> dict:
        return {"method": method, "changed": changed, "angles": angles, "losses": None, "oracle": [0.1, 0.1]}

    def compared(second: str) -> tuple[float, float]:
        return paired_difference(dataset({"cells": cells}, config), "a", second)

    cells = [cell("a", [0.1, 0.1, 0.1, 1.0]), cell("b", [0.1, 1.0, 1.0, 1.0]), cell("b", [1.0] * 4, n=3)]
    assert compared("b") == (0.5, 0.0)
    cells += [cell("a", [1.0] * 4, n=3)]
    mean, error = compared("b")
    assert mean == 0.25 and error == pytest.approx(np.std([0.5, 0.5, 0, 0], ddof=1) / 2)
    cells += [cell("c", [0.1] * 4, K=2)]
    with pytest.raises(ValueError, match="side by side in fewer than two worlds"):
        compared("c")


def test_success_is_the_share_below_half_a_radian() -> None:
    assert success([0.1, 0.49, 0.51, 1.5]) == 0.5
