"""The picture of the house is that of the imports as they are: ``make architecture`` draws it anew."""

from __future__ import annotations

import architecture
import pytest


def test_the_picture_is_current() -> None:
    assert architecture.PICTURE.read_text() == architecture.drawing(), "draw it anew: make architecture"


def test_the_table_is_current() -> None:
    text = architecture.PAGE.read_text()
    assert architecture.page(text) == text, "write it anew: make architecture"


def test_every_arrow_points_down() -> None:
    below = architecture.arrows()
    level = architecture.floors(below)
    assert all(level[other] < level[room] for room in below for other in below[room])


def test_a_circle_has_no_floor() -> None:
    with pytest.raises(ValueError, match="a -> b -> a"):
        architecture.floors({"a": {"b"}, "b": {"a"}})


def test_an_arrow_that_a_longer_path_implies_is_not_drawn() -> None:
    assert architecture.direct({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
