"""`record` and `digits_of_agreement`."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch

from repdyn import notebook
from repdyn.notebook import digits_of_agreement, record


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What `record` displays, by name."""
    outputs: dict = {}

    def display(data: dict, *, raw: bool, metadata: dict) -> None:
        assert raw and metadata["scrapbook"]["mime_prefix"] == "application/papermill.record/"
        outputs[metadata["scrapbook"]["name"]] = data["application/papermill.record/text/plain"]

    monkeypatch.setattr(notebook, "display", display)
    return outputs


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (0.1, 0.1),
        (3, 3),
        ("amber", "amber"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (torch.tensor(0.5), 0.5),
        (np.array([2.0]), 2.0),
    ],
)
def test_scalars_are_recorded_as_plain_python(shown: dict, value: object, plain: object) -> None:
    record(x=value)
    assert ast.literal_eval(shown["x"]) == plain
    assert type(ast.literal_eval(shown["x"])) is type(plain)


def test_several_values_at_once(shown: dict) -> None:
    record(a=1, b=2.0)
    assert shown == {"a": "1", "b": "2.0"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, [1.0, 2.0], 1j])
def test_what_is_not_one_number_is_refused(shown: dict, value: object) -> None:
    with pytest.raises(ValueError, match="^x: "):
        record(x=value)
    assert not shown


def test_digits_count_decimal_places() -> None:
    reference = np.array([1.0, -2.0])
    assert digits_of_agreement(reference + np.array([0.0, 2e-5]), reference) == pytest.approx(5.0)
    assert digits_of_agreement(reference * (1 + 2**-52), reference) > 15
    assert digits_of_agreement(reference, reference) == 16.0


def test_digits_do_not_depend_on_the_scale() -> None:
    a, b = np.array([1.0, 3.0]), np.array([1.1, 3.0])
    assert digits_of_agreement(1e-8 * a, 1e-8 * b) == pytest.approx(digits_of_agreement(a, b))


def test_disagreement_has_no_digits() -> None:
    assert digits_of_agreement([0.0], [1.0]) == 0.0
    assert digits_of_agreement([-9.0], [1.0]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("value", "reference", "named"),
    [
        ([1.0], [1.0, 2.0], "shape"),
        ([float("nan")], [1.0], "finite"),
        ([1.0], [float("inf")], "finite"),
        ([0.0], [0.0], "zero"),
        ([], [], "zero"),
    ],
)
def test_what_cannot_agree_is_refused(value: list, reference: list, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        digits_of_agreement(value, reference)
