"""A number on a page is never older than the code behind it; what did not change is not executed again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import baselines
import build_book
import environment
import nbformat
import pytest
from project import ROOT, execution, no_current_book

PAGE = """\
---
jupytext:
  text_representation: {{extension: .md, format_name: myst, format_version: 0.13}}
kernelspec: {{display_name: Python 3, language: python, name: python3}}
---

# {title}

```{{code-cell}} ipython3
{code}
```

{text}
"""
FIRST = """\
import physics
from repdyn.notebook import record

record(first_speed=physics.speed())"""


class Book:
    """A book of two pages over a package of one module, built by the real tool with the real settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        config = (ROOT / "_config.yml").read_text().replace("  local_extensions: {repdyn_book: book/_ext}\n", "")
        self.write("_config.yml", config.replace("      - repdyn_book\n", ""))
        self.write("_toc.yml", "format: jb-book\nroot: book/first\nchapters: [{file: book/second}]\n")
        self.write("requirements.txt", "")
        self.write("pyproject.toml", "")
        self.write("book/references.bib", "")
        self.write("book/_static/repdyn.css", "")
        self.write("vendor/mathjax/tex-svg-full.js", "")
        self.write("lib/physics.py", self.physics(speed=299))
        self.write("book/first.md", PAGE.format(title="First", code=FIRST, text="It is {glue:text}`first_speed`."))
        other = "There it is {glue:text}`first.md::first_speed:d`."
        self.write("book/second.md", PAGE.format(title="Second", code="print(1 + 1)", text=other))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def physics(self, speed: int) -> str:
        """Each execution leaves a mark, so that they can be counted."""
        mark = str(self.root / "executions")
        return f"def speed():\n    with open({mark!r}, 'a') as file:\n        file.write('x')\n    return {speed}\n"

    def executions(self) -> int:
        path = self.root / "executions"
        return len(path.read_text()) if path.exists() else 0

    def build(self) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "tools" / "build_book.py", "--root", self.root]
        variables = os.environ | {"PYTHONPATH": str(self.root / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, env=variables, capture_output=True, text=True)

    def recorded(self, page: str) -> dict[str, baselines.Scalar]:
        return baselines.recorded(nbformat.read(execution(page, self.root), as_version=4))

    def shows(self, page: str, text: str) -> bool:
        html = (self.root / "_build" / "html" / "book" / f"{page}.html").read_text()
        return text in re.sub(r"<[^>]*>", "", html)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    return Book(tmp_path_factory.mktemp("book"))


def test_no_number_is_stale(book: Book) -> None:
    first = book.build()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "open _build/html/index.html" in first.stdout and (book.root / "_build/html/index.html").exists()
    assert book.shows("first", "It is 299.") and book.shows("second", "There it is 299.")
    assert book.executions() == 1
    assert book.recorded("first") == {"first_speed": 299} and no_current_book(book.root) is None

    again = book.build()
    assert again.returncode == 0 and book.executions() == 1, "an unchanged book executes nothing"
    assert "Executing notebook" not in again.stdout and again.stdout.count("Using cached notebook") == 2

    book.write("lib/physics.py", book.physics(speed=300))
    assert "older than its sources" in str(no_current_book(book.root))
    changed = book.build()
    assert changed.returncode == 0 and book.executions() == 2
    assert book.shows("first", "It is 300.") and book.shows("second", "There it is 300.")
    assert book.recorded("first") == {"first_speed": 300} and no_current_book(book.root) is None


def test_an_edited_page_reaches_the_pages_that_quote_it(book: Book) -> None:
    code = FIRST.replace("physics.speed()", "2 * physics.speed()")
    book.write("book/first.md", PAGE.format(title="First", code=code, text="It is {glue:text}`first_speed`."))
    result = book.build()
    assert result.returncode == 0, result.stdout + result.stderr
    assert book.shows("second", "There it is 600.")


def test_a_failing_cell_breaks_the_build(book: Book) -> None:
    book.write("book/second.md", PAGE.format(title="Second", code="1 / 0", text=""))
    result = book.build()
    assert result.returncode != 0 and "NOT built" in result.stdout
    assert "no finished build" in str(no_current_book(book.root))
    assert "ZeroDivisionError" in result.stderr


def test_a_warning_breaks_the_build_every_time(book: Book) -> None:
    code, text = "import sys; print('careful', file=sys.stderr)", "{glue:text}`second_lost` {eq}`eq-lost`"
    book.write("book/second.md", PAGE.format(title="Second", code=code, text=text))
    for _ in range(2):  # an incremental build would forget the first one's warnings
        result = book.build()
        assert result.returncode != 0 and "NOT built" in result.stdout
        assert "stderr" in result.stderr and "second_lost" in result.stderr and "eq-lost" in result.stderr


@pytest.mark.parametrize("name", ["lib/module.py", "lib/assets/weights.bin", *build_book.BEHIND_NUMBERS[1:]])
def test_what_is_behind_the_numbers_empties_the_cache(tmp_path: Path, name: str) -> None:
    path, build = tmp_path / name, tmp_path / "_build"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1")
    build_book.drop_stale_executions(tmp_path, build)
    (build / ".jupyter_cache").mkdir()
    build_book.drop_stale_executions(tmp_path, build)
    assert (build / ".jupyter_cache").exists()
    path.write_text("2")
    build_book.drop_stale_executions(tmp_path, build)
    assert not (build / ".jupyter_cache").exists()


def test_a_second_set_up_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list, **_: object) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)

    monkeypatch.setattr(environment.subprocess, "run", run)
    venv = tmp_path / ".venv"
    environment.create(venv, "--requirement", environment.PINS)
    assert any("install" in command for command in commands)
    commands.clear()
    environment.create(venv, "--requirement", environment.PINS)
    assert not commands
