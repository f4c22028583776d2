"""`make lint` reports a violation of each kind, with the place, and says nothing of a tree that has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import jupytext
import lint
import pytest
from project import ROOT, chapters

PAGE = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Title

```{code-cell} ipython3
:tags: [parameters]
SEED = 0
```

Prose may be as wide as it likes, as this line shows, which has more columns than a cell of code may have.

```{code-cell} ipython3
---
mystnb:
  figure: {caption: a caption may be wide too, because it is prose and nobody has to scroll to read it, name: fig-x}
---
%matplotlib inline
CELL
```
"""
SOUND = '''"""A module."""


def double(number: int) -> int:
    return 2 * number
'''


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with nothing to complain about, under the settings of this one."""
    root = tmp_path_factory.mktemp("project")
    files = {name: SOUND for name in ("tests/test_x.py", "tools/tool.py", "benchmarks/run.py", "book/_ext/x.py")}
    files |= {"lib/repdyn/__init__.py": "", "lib/repdyn/cli.py": SOUND, "lib/repdyn/noise.py": SOUND}
    files |= {"_toc.yml": "root: book/page\nchapters: []\n", "book/page.md": PAGE.replace("CELL", "print(SEED)")}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "project")


def test_a_sound_project_passes(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint.main(sound) == 0
    said = capsys.readouterr().out
    assert said.count("Nothing to complain about.") == len(lint.CHECKS) and f"0 of {len(lint.CHECKS)}" in said


STYLE = ("lib/repdyn/noise.py", "import os\n", "style (ruff check)", "noise.py:1:8")
LAYOUT = ("tools/tool.py", "a = { 1:2 }\n", "layout", "tool.py")
TYPES = ("lib/repdyn/noise.py", 'x: int = "one"\n', "types", "noise.py:1: error: Incompatible types")
UNTYPED = ("tools/tool.py", "def f(x):\n    return x\n", "types", "tool.py:1: error: Function is missing")
ABSENT = ("lib/repdyn/noise.py", "import nowhere\n\nnowhere.f()\n", "types", "noise.py:1: error: Cannot find")
IMPORT = ("lib/repdyn/noise.py", "from repdyn import cli\n\nprint(cli)\n", "who imports whom", "noise -> repdyn.cli")
BELOW = ("lib/repdyn/noise.py", f"{SOUND}    import repdyn.cli\n", "who imports whom", "noise -> repdyn.cli")
CELL = ("book/page.md", PAGE.replace("CELL", "print(SED)"), "style of the chapters' cells", "book/page.md:22:7: F821")
WIDE = ("book/page.md", PAGE.replace("CELL", f"x = {'1' * 87}"), "width of the", "book/page.md:22: 91 columns")
PLANTED = [STYLE, LAYOUT, TYPES, UNTYPED, ABSENT, IMPORT, BELOW, CELL, WIDE]


@pytest.mark.parametrize(("file", "text", "check", "message"), PLANTED, ids=[message for *_, message in PLANTED])
def test_a_violation_is_reported(project: Path, file: str, text: str, check: str, message: str) -> None:
    (project / file).write_text(text)
    (complains,) = [run for name, run in lint.CHECKS.items() if name.startswith(check)]
    assert message in complains(project)


def test_complaints_are_grouped_and_counted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, text, *_ in (LAYOUT, IMPORT, WIDE):
        (project / file).write_text(text)
    assert lint.main(project) == 1
    groups = capsys.readouterr().out.split("-- ")
    failing = {group.split(" (")[0] for group in groups if group and "Nothing to complain about." not in group}
    assert failing == {"who imports whom", "layout", "width of the chapters' cells"}
    assert groups[-1].rstrip().splitlines()[-1].startswith(f"3 of {len(lint.CHECKS)} checks complain")


def test_a_check_that_cannot_run_is_no_pass(project: Path) -> None:
    (project / "pyproject.toml").write_text("nonsense")
    for check in (lint.ruff, lint.layout, lint.types, lint.imports):
        assert check(project), check.__name__


def test_no_cell_escapes() -> None:
    """The cells that lint sees are those that Jupytext sees."""
    for page in chapters():
        seen = ["\n".join(line for _, line in cell) for cell in lint.cells(page)]
        assert seen == [cell.source for cell in jupytext.read(page, fmt="md:myst").cells if cell.cell_type == "code"]
