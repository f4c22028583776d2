"""The one rule of freshness: what a configuration lacks, has too much, or has otherwise; and all records by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from typing import Any

import pytest

from repdyn import records
from repdyn.chapters import recipes
from repdyn.records.fresh import describe, differences, key, plain
from repdyn.training import TrainConfig


@dataclass(frozen=True)
class Inner:
    sigmas: tuple[float, ...] = (0.1, 1.0)
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    size: int
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    share: float = 0.5
    loud: bool = False


ASKED = Outer(3, Inner(name="x"), (Inner(), Inner((2.0,))))


def changed(**changes: Any) -> dict[str, Any]:
    return describe(ASKED) | {"config": plain(ASKED) | changes}


def test_what_was_described_is_what_is_asked_for() -> None:
    described = json.loads(json.dumps(describe(ASKED, {"images": "abc"}, 2)))
    assert differences(described, ASKED, {"images": "abc"}, 2) == []
    assert differences(changed(share=0.5, size=3.0), ASKED) == [], "a number is a number"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"size": 4}, "size: 4 there, 3 asked for"),
        ({"size": "3"}, 'size: "3" there, 3 asked for'),
        ({"loud": 0}, "loud: 0 there, false asked for"),
        ({"inner": {"name": "y"}}, 'inner.name: "y" there, "x" asked for'),
        ({"inner": None}, "inner: null there"),
        ({"inner": {"name": "x", "colour": 1}}, "inner.colour: is a field no more"),
        ({"several": [{}, {"sigmas": [3.0]}]}, "several[1].sigmas: [3.0] there, [2.0] asked for"),
        ({"several": []}, "several: [] there"),
    ],
)
def test_a_change_is_named(changes: dict[str, Any], line: str) -> None:
    (found,) = differences(changed(**changes), ASKED)
    assert found.startswith(line)


def test_versions_and_inputs_are_named() -> None:
    described = describe(ASKED, {"images": "abc", "network": "n"})
    assert differences(described, ASKED, {"images": "abd", "network": "n"}, 2) == [
        "version: 1 there, 2 asked for",
        'images: "abc" there, "abd" asked for',
    ]
    assert differences({"config": plain(ASKED)}, ASKED) == [], "no version is the first"
    assert len(differences({}, ASKED)) == 1


def test_a_missing_field_has_its_default_and_one_without_is_named() -> None:
    assert differences({"config": {"size": 3}}, Outer(3)) == []
    assert differences({"config": {}}, Outer(3)) == ["size: null there, 3 asked for"]


def test_a_training_is_read_as_trainings_are(tiny: TrainConfig) -> None:
    there = plain(tiny)
    del there["weight_decay"]
    assert differences({"config": there}, tiny) == []
    assert differences({"config": there | {"seed": 9}}, tiny) == ["seed: 9 there, 3 asked for"]
    for broken in ({"colour": "red"}, {"images": "many"}):
        (line,) = differences({"config": there | broken}, tiny)
        assert line.startswith("config: ")


def test_the_key_of_a_file_knows_values_and_no_defaults() -> None:
    later = make_dataclass("Outer", [("colour", str, field(default="grey"))], bases=(Outer,), frozen=True)
    assert key(Outer(3)) == key(Outer(3, share=0.5)) == key(later(3))
    assert len({key(c) for c in (Outer(3), Outer(4), Outer(3, Inner(name="x")), later(3, colour="red"), ASKED)}) == 5


def with_a_new_field(config: Any) -> Any:
    """The configuration as it would be if each of its kinds had one more field, with a default."""
    if isinstance(config, tuple):
        return tuple(map(with_a_new_field, config))
    if not is_dataclass(config):
        return config
    values = {one.name: with_a_new_field(getattr(config, one.name)) for one in fields(config) if one.init}
    later = make_dataclass(
        type(config).__name__, [("flavour", str, field(default="plain"))], bases=(type(config),), frozen=True
    )
    return later(**values)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_new_field_leaves_the_shipped_records_current(name: str) -> None:
    recipe = recipes.get(name)
    later = replace(recipe, config=with_a_new_field(recipe.config), slice_config=with_a_new_field(recipe.slice_config))
    assert "flavour" in asdict(later.config)
    assert records.state(recipe) == records.state(later) == "recorded"


def test_a_new_version_makes_that_record_stale_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "two-patch", replace(recipes.get("two-patch"), version=2))
    states = {name: records.state(recipe) for name, recipe in recipes.RECIPES.items()}
    assert [name for name, state in states.items() if state != "recorded"] == ["two-patch"]
    assert "version: 1 there, 2 asked for" in states["two-patch"]
