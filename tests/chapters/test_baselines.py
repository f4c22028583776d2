"""The comparison itself: it must be able to fail."""

from __future__ import annotations

import baselines
import nbformat
import pytest

PI = {"value": 3.14159, "rtol": 1e-3, "why": "a closed form"}


def test_equal_within_tolerance_passes() -> None:
    assert baselines.problems({"pi": 3.1416}, {"pi": PI}) == []
    assert baselines.problems({"n": 7}, {"n": {"value": 7, "atol": 0, "why": "a count"}}) == []
    assert baselines.problems({"s": "amber"}, {"s": {"value": "amber", "why": "a name"}}) == []


@pytest.mark.parametrize(
    ("values", "baseline", "message"),
    [
        ({"pi": 3.2}, {"pi": PI}, "off by"),
        ({"pi": float("nan")}, {"pi": PI}, "off by"),
        ({"pi": -3.14159}, {"pi": PI}, "off by"),
        ({"pi": "3.14159"}, {"pi": PI}, "the baseline is 3.14159"),
        ({"s": "Amber"}, {"s": {"value": "amber", "why": "a name"}}, "the baseline is 'amber'"),
        ({"pi": 3.14159, "e": 2.7}, {"pi": PI}, "e: recorded 2.7, but has no baseline"),
        ({}, {"pi": PI}, "is not recorded"),
    ],
)
def test_each_difference_is_reported(values: dict, baseline: dict, message: str) -> None:
    (problem,) = baselines.problems(values, baseline)
    assert message in problem


@pytest.mark.parametrize(
    "entry",
    [
        {"value": 1e-9, "atol": 1e-6, "why": "zero would pass"},
        {"value": 5.0, "rtol": 1.0, "why": "zero would pass"},
        {"value": 0.0, "atol": 1e-6, "why": "zero would pass"},
        {"value": 0.0, "rtol": 0.1, "why": "nothing would pass"},
        {"value": 5.0, "rtol": -0.1, "why": "nothing would pass"},
        {"value": 5.0, "rtol": float("nan"), "why": "nothing would pass"},
        {"value": 5.0, "why": "no tolerance"},
        {"value": 5.0, "rtol": 1e-3, "atol": 1e-3, "why": "two tolerances"},
        {"value": 5.0, "rtol": 1e-3, "why": " "},
        {"value": 5.0, "rtol": 1e-3},
        {"value": "amber", "rtol": 1e-3, "why": "a string"},
        {"value": float("inf"), "rtol": 1e-3, "why": "not finite"},
        {"value": None, "rtol": 1e-3, "why": "nothing"},
    ],
)
def test_a_baseline_that_tests_nothing_is_refused(entry: dict) -> None:
    assert baselines.refusal(entry)
    assert baselines.problems({"x": entry["value"]}, {"x": entry})


def test_revision_keeps_reasons_and_demands_new_ones() -> None:
    new = baselines.revised({"pi": 3.2, "e": 2.7}, {"pi": PI, "gone": PI})
    assert new["pi"] == {**PI, "value": 3.2}
    assert new.keys() == {"pi", "e"} and baselines.refusal(new["e"])


def test_recorded_numbers_are_read_from_the_outputs() -> None:
    def cell(name: str, value: str) -> nbformat.NotebookNode:
        metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
        output = nbformat.v4.new_output("display_data", {baselines.RECORD: value}, metadata=metadata)
        return nbformat.v4.new_code_cell("", outputs=[output])

    notebook = nbformat.v4.new_notebook(cells=[cell("x", "0.25"), cell("word", "'amber'")])
    assert baselines.recorded(notebook) == {"x": 0.25, "word": "amber"}
    notebook.cells.append(cell("x", "0.5"))
    with pytest.raises(ValueError, match="recorded twice"):
        baselines.recorded(notebook)
