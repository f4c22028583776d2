"""A base configuration and its variants: what changes in which run, said in one way for all sweeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

__all__ = ["Run", "Variant", "expand", "grid"]

Config = TypeVar("Config")


@dataclass(frozen=True)
class Variant:
    """A departure from a base configuration, a frozen dataclass with a field ``seed``.

    ``changes`` are pairs of a field's name and its value. Each of ``seeds`` replaces the base's, one run each; without
    any there is one run with the base's own. ``name`` is what a table calls the variant.
    """

    changes: tuple[tuple[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Run(Generic[Config]):
    """One configuration of a sweep, the variant it comes from, and its seed, None for the base's own."""

    variant: Variant
    seed: int | None
    config: Config


def expand(base: Config, variants: Iterable[Variant]) -> list[Run[Config]]:
    """The runs of ``variants`` of ``base``, in their order, those of one variant by its seeds.

    Raises ``TypeError`` for a change of a field that the base does not have.
    """
    runs: list[Run[Config]] = []
    for variant in variants:
        own: Any = replace(base, **dict(variant.changes))  # type: ignore[type-var]
        for seed in variant.seeds or (None,):
            runs.append(Run(variant, seed, own if seed is None else replace(own, seed=seed)))
    return runs


def grid(*, seeds: tuple[int, ...] = (), **values: Iterable[Any]) -> tuple[Variant, ...]:
    """A variant, with ``seeds``, for every combination of the ``values`` of fields; the last field runs fastest.

    ``grid(width=(8, 16), images=(1000,))`` are two variants. Without values it is the base itself.
    """
    combinations = itertools.product(*values.values())
    return tuple(Variant(tuple(zip(values, one, strict=True)), seeds) for one in combinations)
