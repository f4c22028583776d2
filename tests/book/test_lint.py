"""`make lint` reports a violation of each kind, with the place, and says nothing of a tree that has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import architecture
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
# What the contracts of imports allow: `cli` reaches into recipes, and a chapter is made of modules.
REACHING = {
    "__init__": "",
    "cli": 'import repdyn.chapters.recipes as recipes\n\n__all__ = ["recipes"]\n',
    "chapters/__init__": "",
    "chapters/recipes": SOUND,
    "chapters/segmentation/__init__": "",
    "chapters/segmentation/task": 'import repdyn.chapters.segmentation.measure as m\n\n__all__ = ["m"]\n',
    "chapters/segmentation/measure": 'import repdyn.chapters.segmentation.pixels as p\n\n__all__ = ["p"]\n',
    "chapters/segmentation/pixels": SOUND,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with nothing to complain about, under the settings of this one."""
    root = tmp_path_factory.mktemp("project")
    files = {name: SOUND for name in ("tests/test_x.py", "tools/tool.py", "benchmarks/run.py", "book/_ext/x.py")}
    files |= {f"lib/repdyn/{name}.py": SOUND for name in architecture.rooms() if name != "chapters"}
    files |= {f"lib/repdyn/{name}.py": text for name, text in REACHING.items()}
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


CHAPTERS = "Only chapters reach into chapters, and cli into their recipes"
FLOORS = "Every room imports from floors below its own"
CONTRACTS = [  # module, what it imports besides, the contract that is broken
    ("noise", "cli", "Nothing imports the command line"),
    ("curves", "chapters.recipes", CHAPTERS),
    ("cli", "chapters.segmentation.measure", CHAPTERS),
    ("theory", "training", "Theory, noise and data sets know nothing of training"),
    ("chapters/segmentation/pixels", "chapters.segmentation.measure", "No circle, neither of rooms nor inside one"),
    ("denoisers", "theory", FLOORS),
    ("features", "metrics", FLOORS),
    ("annex", "noise", FLOORS),
]


@pytest.mark.parametrize(("module", "other", "contract"), CONTRACTS)
def test_each_contract_of_imports_is_held(project: Path, module: str, other: str, contract: str) -> None:
    file = project / "lib" / "repdyn" / f"{module}.py"
    before = file.read_text() if file.exists() else ""
    file.write_text(f"{before}\nimport repdyn.{other}\n")
    broken = lint.imports(project).split("Broken contracts")[1]
    assert contract in broken and module.rpartition("/")[2] in broken.split(contract)[1]


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
