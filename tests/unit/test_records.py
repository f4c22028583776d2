"""Records: found under their own configuration only, verified on a slice, damaged ones refused."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from repdyn import records
from repdyn.chapters import recipes
from repdyn.records import Recipe, sweeps
from repdyn.records.cache import kept


@dataclass(frozen=True)
class Config:
    """A measurement that is a sum."""

    numbers: tuple[float, ...] = (1.0, 2.0)
    weight: float = 1.0


def measure(config: Config, *, cache: object = None, progress: bool = False) -> dict[str, Any]:
    """The sum, and how it was called."""
    return {"sum": config.weight * sum(config.numbers), "list": list(config.numbers), "word": "amber"}


RECIPE = Recipe("sum", measure, Config((1.0, 2.0, 3.0)), Config((1.0,)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the record of RECIPE."""
    records.write(records.make(RECIPE, progress=False), tmp_path)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    path = folder / "sum.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_record_holds_result_configuration_slice_and_provenance(folder: Path) -> None:
    record = records.read(RECIPE, folder)
    assert record["metrics"] == {"sum": 6.0, "list": [1.0, 2.0, 3.0], "word": "amber"}
    assert record["config"] == {"numbers": [1.0, 2.0, 3.0], "weight": 1.0}
    assert record["slice"] == {"config": {"numbers": [1.0], "weight": 1.0}, "metrics": measure(RECIPE.slice_config)}
    provenance = record["provenance"]
    assert provenance["command"] == "repdyn record sum" and provenance["seconds"] >= 0
    assert len(provenance["date"]) == 10 and provenance["commit"] and provenance["device"]
    assert set(provenance["libraries"]) == {"torch", "numpy", "scipy", "scikit-learn", "accelerate"}
    assert os.listdir(folder) == ["sum.json"]


def test_the_full_measurement_gets_the_cache_and_the_slice_does_not(tmp_path: Path) -> None:
    calls = []

    def watched(config: Config, **options: object) -> dict[str, Any]:
        calls.append((config, options))
        return {}

    records.make(replace(RECIPE, measure=watched), cache=tmp_path, progress=False)
    assert calls == [(RECIPE.config, {"cache": tmp_path, "progress": False}), (RECIPE.slice_config, {})]


def test_the_time_of_an_interrupted_start_counts(tmp_path: Path) -> None:
    def interrupted(config: Config, **_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    (tmp_path / "starts.json").write_text('{"version": 1, "seconds": 3600.0}')  # left by a start that was killed
    with pytest.raises(KeyboardInterrupt):
        records.make(replace(RECIPE, measure=interrupted), cache=tmp_path, progress=False)
    record = records.make(RECIPE, cache=tmp_path, progress=False)
    assert 3600 <= record["provenance"]["seconds"] < 3700
    (tmp_path / "starts.json").write_text("an hour")
    with pytest.raises(ValueError, match="starts.json"):
        records.make(RECIPE, cache=tmp_path, progress=False)


@pytest.mark.parametrize("kind", ["part", "sweep"])
def test_a_killed_start_counts_to_its_last_part(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def killed(config: Config, *, cache: Path, **_: object) -> dict[str, Any]:
        def part(*_: object) -> Any:
            clock[0] += 100
            return ({}, {}) if kind == "part" else 1

        if kind == "part":
            kept(cache / "part.safetensors", config, {}, part)
        else:
            sweeps.run(part, [1, 2], cache=cache)
        clock[0] += 5
        left.append(json.loads((cache / "starts.json").read_text())["seconds"])
        raise KeyboardInterrupt

    left: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        records.make(replace(RECIPE, measure=killed), cache=tmp_path, progress=False)
    assert left == [100.0 if kind == "part" else 200.0]


def test_views_and_parameters_are_kept_as_they_look(tmp_path: Path) -> None:
    transposed = torch.arange(6.0).reshape(2, 3).T
    for _ in range(2):  # made, then read
        numbers, tensors = kept(
            tmp_path / "x.safetensors", Config(), {}, lambda: ({"k": 1}, {"a": Parameter(transposed)})
        )
        assert numbers == {"k": 1} and torch.equal(tensors["a"], transposed)


def test_parts_of_another_version_are_refused(tmp_path: Path) -> None:
    records.make(RECIPE, cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match="version 1 .*version 2"):
        records.make(replace(RECIPE, version=2), cache=tmp_path, progress=False)


def test_obtain_reads_the_record_or_measures_anew() -> None:
    shipped = recipes.get("two-patch")
    assert records.obtain(shipped, seeds=shipped.config.seeds + 1) == records.read_any("two-patch")
    anew = records.obtain(RECIPE, rerun=True, weight=2.0)
    assert anew["metrics"]["sum"] == 12.0 and anew["config"]["weight"] == 2.0 and "date" in anew["provenance"]
    with pytest.raises(TypeError, match="colour"):
        records.obtain(RECIPE, rerun=True, colour="red")


def test_commit_is_unknown_outside_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert records.provenance()["commit"] == "unknown (not a checkout)"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Config((1.0, 2.0, 4.0)), r"numbers: \[1.0, 2.0, 3.0\] .*\[1.0, 2.0, 4.0\]"),
        (Config((9.0,), 2.0), "numbers: .*weight: 1.0 .*2.0"),
    ],
)
def test_a_changed_configuration_finds_no_record_and_the_message_says_why(
    folder: Path, config: Config, named: str
) -> None:
    with pytest.raises(ValueError, match=rf"'sum' .*{named}.*'repdyn record sum'"):
        records.read(replace(RECIPE, config=config), folder)


def test_a_field_that_went_makes_a_record_stale_and_one_that_came_with_a_default_does_not(folder: Path) -> None:
    edit(folder, config={"numbers": [1.0, 2.0, 3.0], "weight": 1.0, "colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        records.read(RECIPE, folder)
    edit(folder, config={"numbers": [1.0, 2.0, 3.0]})
    assert records.state(RECIPE, folder) == "recorded"
    with pytest.raises(ValueError, match="weight: 1.0 there, 2.0"):
        records.read(replace(RECIPE, config=Config((1.0, 2.0, 3.0), 2.0)), folder)


def test_another_version_is_stale(folder: Path) -> None:
    assert "version: 1 there, 2 asked for" in records.state(replace(RECIPE, version=2), folder)
    record = records.read(RECIPE, folder)
    del record["version"]  # as those made before there were versions
    records.write(record, folder)
    assert records.state(RECIPE, folder) == "recorded"


def test_a_missing_record_is_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        with pytest.raises(ValueError, match="no record 'sum'.*'repdyn record sum'"):
            records.read(RECIPE, folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"config": {}, "metrics": {}}', "null"])
def test_a_damaged_record_is_refused(folder: Path, content: str) -> None:
    (folder / "sum.json").write_text(content)
    with pytest.raises(ValueError, match="'sum' is damaged"):
        records.read(RECIPE, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_written(folder: Path, value: float) -> None:
    before = (folder / "sum.json").read_text()
    record = json.loads(before)
    record["metrics"]["sum"] = value
    with pytest.raises(ValueError, match="JSON"):
        records.write(record, folder)
    assert (folder / "sum.json").read_text() == before
    assert os.listdir(folder) == ["sum.json"]


def test_verify_recomputes_the_slice(folder: Path) -> None:
    assert records.verify(RECIPE, 0.0, folder) == []

    def drifted(config: Config) -> dict[str, Any]:
        return {**measure(config), "sum": measure(config)["sum"] + 0.01}

    assert records.verify(replace(RECIPE, measure=drifted), 0.02, folder) == []
    assert records.verify(replace(RECIPE, measure=drifted), 0.005, folder) == ["sum.sum: recorded 1.0, recomputed 1.01"]
    other = replace(RECIPE, slice_config=Config((2.0,)))
    (line,) = records.verify(other, 0.0, folder)
    assert "the slice was recorded with another configuration (numbers: [1.0] there, [2.0] asked for)" in line


@pytest.mark.parametrize(
    ("now", "then", "lines"),
    [
        (1.0, 1.05, []),
        (1.0, 1.15, ["r: recorded 1.15, recomputed 1.0"]),
        ([1, (2, 3)], [1, [2, 3]], []),
        ([1.0, 5.0], [1.0, 2.0], ["r[1]: recorded 2.0, recomputed 5.0"]),
        ({"a": {"b": [0.0]}}, {"a": {"b": [1.0]}}, ["r.a.b[0]: recorded 1.0, recomputed 0.0"]),
        ([1.0], [1.0, 2.0], ["r: recorded [1.0, 2.0], recomputed [1.0]"]),
        ({"a": 1}, {"b": 1}, ["r: recorded {'b': 1}, recomputed {'a': 1}"]),
        ("x", "y", ["r: recorded y, recomputed x"]),
        (None, None, []),
        (None, 0.0, ["r: recorded 0.0, recomputed None"]),
        (float("nan"), 0.5, ["r: recorded 0.5, recomputed nan"]),
        (True, 1.05, ["r: recorded 1.05, recomputed True"]),
    ],
)
def test_disagreements(now: object, then: object, lines: list[str]) -> None:
    assert records.disagreements(now, then, 0.1, "r") == lines
