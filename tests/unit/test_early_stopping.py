"""Rules for when to stop, and signs of memory: each by its definition, on checkpoints made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from repdyn.chapters.memorisation.early_stopping import (
    RULES,
    SIGNS,
    agreement,
    height,
    is_unimodal,
    last_while,
    stops,
)


def part(rng: np.random.Generator, index: int = 1) -> dict[str, Any]:
    values = rng.random(7)
    return {
        "accuracy": values[:3].tolist(),
        "dimension": (10 * values[4:]).tolist(),
        "peak": {
            "index": index,
            "above_left": values[0],
            "above_right": values[1],
            "left_interval": (0.1, 0.5),
            "right_interval": (0.1, 0.5),
        },
    }


def checkpoint(seed: int) -> dict[str, Any]:
    """All numbers differ, and no two signs have the same order of checkpoints."""
    rng = np.random.default_rng(seed)
    return {
        "novel": [[2.0, rng.random(), 3.0], [4.0, 5.0, 6.0]],
        "estimate_novel": rng.random(3).tolist(),
        "train_loss": rng.random(3).tolist(),
        "held_loss": rng.random(3).tolist(),
        "layer": part(rng, int(rng.integers(3))),
        "posterior": part(rng, int(rng.integers(3))),
    }


RUN = [checkpoint(seed) for seed in range(12)]


def with_intervals(left: tuple[float, float], right: tuple[float, float]) -> dict[str, Any]:
    one = checkpoint(0)
    for name in ("layer", "posterior"):
        one[name]["peak"] |= {"left_interval": left, "right_interval": right}
    return one


def test_a_curve_is_unimodal_only_if_both_lower_bounds_are_above_zero() -> None:
    """Guards which end of which interval decides."""
    assert is_unimodal(with_intervals((0.01, 0.5), (0.01, 0.5)))
    assert not is_unimodal(with_intervals((-0.01, 0.5), (0.01, 0.5)))
    assert not is_unimodal(with_intervals((0.01, 0.5), (-0.01, 0.5)))
    assert not is_unimodal(with_intervals((0.0, 0.5), (0.01, 0.5)))
    other = with_intervals((0.01, 0.5), (0.01, 0.5))
    other["posterior"]["peak"]["right_interval"] = (-0.01, 0.5)
    assert is_unimodal(other) and is_unimodal(other, "layer") and not is_unimodal(other, "posterior")


def test_height_is_that_above_the_higher_end() -> None:
    for one in RUN:
        for name in ("layer", "posterior"):
            assert height(one, name) == min(one[name]["accuracy"][:2])  # where the heights were put
        assert height(one) == height(one, "layer")


def by_definition(one: dict[str, Any]) -> dict[str, float]:
    """Every sign, larger when the model generalises: losses and their excess count negative."""
    layer, posterior = one["layer"], one["posterior"]
    held, seen = np.mean(one["held_loss"]), np.mean(one["train_loss"])
    return {
        "height of the hidden peak": min(layer["peak"]["above_left"], layer["peak"]["above_right"]),
        "height of the posterior's peak": min(posterior["peak"]["above_left"], posterior["peak"]["above_right"]),
        "best hidden accuracy": layer["accuracy"][layer["peak"]["index"]],
        "best posterior accuracy": posterior["accuracy"][posterior["peak"]["index"]],
        "posterior accuracy, highest level": posterior["accuracy"][2],
        "excess of the held-out loss": seen - held,
        "held-out loss": -held,
        "one-step copies": min(one["estimate_novel"]),
        "effective dimension, hidden": np.mean(layer["dimension"]),
        "effective dimension, posterior": np.mean(posterior["dimension"]),
    }


def test_signs_and_their_agreement_by_definition() -> None:
    """Guards the sign of every sign: a loss counts negative, an excess too."""
    assert set(SIGNS) == set(by_definition(RUN[0]))
    found, novel = agreement(RUN), [one["novel"][0][1] for one in RUN]
    for name, sign in SIGNS.items():
        values = [by_definition(one)[name] for one in RUN]
        assert [sign(one) for one in RUN] == pytest.approx(values, rel=1e-12), name
        assert found[name] == pytest.approx(spearmanr(values, novel).statistic, abs=1e-12), name


def test_the_first_stretch_ends_before_the_next_failure_or_at_the_end() -> None:
    """Guards which checkpoint a rule that must hold stops at."""
    assert [last_while(h) for h in ([True], [False, True, True], [True, True, False, True])] == [0, 2, 1]
    assert last_while([]) is last_while([False]) is None


def test_rules_stop_by_definition() -> None:
    """Guards thresholds, and which is the best checkpoint of a rule that takes one."""
    assert set(stops(RUN)) == set(RULES)
    losses = [np.mean(one["held_loss"]) for one in RUN]
    best = [one["layer"]["accuracy"][one["layer"]["peak"]["index"]] for one in RUN]
    assert stops(RUN)["validation loss"] == int(np.argmin(losses))
    assert stops(RUN)["hidden accuracy"] == int(np.argmax(best))
    run = [checkpoint(seed) for seed in range(4)]
    for one, novel, estimates in zip(run, (1.0, 0.95, 0.9499, 1.0), ([1, 0.96], [0.95, 1], [1, 0.9499], [1, 1])):
        one["novel"][0][1], one["estimate_novel"] = novel, estimates
    assert stops(run)["score"] == stops(run)["one-step copies"] == 1, "95 per cent is enough, at the worst level"
    good, bad = with_intervals((0.1, 0.2), (0.1, 0.2)), with_intervals((-0.1, 0.2), (0.1, 0.2))
    mixed = [bad | {"posterior": good["posterior"]}, good, good | {"posterior": bad["posterior"]}, bad]
    assert (stops(mixed)["hidden curve unimodal"], stops(mixed)["posterior curve unimodal"]) == (2, 1)
