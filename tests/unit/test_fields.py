"""Configurations: each field is documented where it stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import repdyn

PACKAGE = Path(repdyn.__file__).parent


def configurations() -> list[ast.ClassDef]:
    """Every dataclass of the package whose name ends in Config, and Recipe, in the order of the files."""
    found = [
        node
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and (node.name.endswith("Config") or node.name == "Recipe")
    ]
    return [node for node in found if any("dataclass" in ast.unparse(one) for one in node.decorator_list)]


def undocumented(node: ast.ClassDef) -> list[str]:
    """Names of the fields of a class that no docstring follows."""
    pairs = zip(node.body, [*node.body[1:], ast.Pass()], strict=True)
    fields = [(one.target, ast.Module([below], [])) for one, below in pairs if isinstance(one, ast.AnnAssign)]
    return [ast.unparse(target) for target, below in fields if not ast.get_docstring(below)]


def test_configurations_are_found() -> None:
    names = {node.name for node in configurations()}
    assert {"CurveConfig", "TrainConfig", "UNetConfig", "Recipe"} <= names


@pytest.mark.parametrize("node", configurations(), ids=lambda node: node.name)
def test_each_field_is_documented_where_it_stands(node: ast.ClassDef) -> None:
    assert ast.get_docstring(node)
    assert undocumented(node) == []


def test_a_field_without_a_docstring_is_found() -> None:
    (node,) = ast.parse('class A:\n    """A."""\n\n    a: int\n    """First."""\n    b: int = 1\n    c: int = 2\n').body
    assert isinstance(node, ast.ClassDef)
    assert undocumented(node) == ["b", "c"]
