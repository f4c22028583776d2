"""Variants of a base configuration: which runs they are, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from repdyn.records.variants import Variant, expand, grid


@dataclass(frozen=True)
class Base:
    width: int = 4
    levels: tuple[float, ...] = (1.0,)
    seed: int = 7


def test_runs_come_variant_by_variant_and_seed_by_seed() -> None:
    wide = Variant((("width", 8), ("levels", (0.1, 2.0))), (0, 1), "wide")
    runs = expand(Base(), (Variant(), wide))
    assert [run.config for run in runs] == [Base(), Base(8, (0.1, 2.0), 0), Base(8, (0.1, 2.0), 1)]
    assert [run.seed for run in runs] == [None, 0, 1] and [run.variant.name for run in runs] == ["", "wide", "wide"]


def test_a_grid_is_every_combination_the_last_field_fastest() -> None:
    configs = [run.config for run in expand(Base(), grid(width=(1, 2), levels=((3.0,), (4.0,)), seeds=(5,)))]
    assert configs == [Base(w, (level,), 5) for w in (1, 2) for level in (3.0, 4.0)]
    assert grid() == (Variant(),)


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        expand(Base(), (Variant(), *grid(colour=("red",))))
