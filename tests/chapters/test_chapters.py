"""Every chapter records the numbers that its baseline has, and every notebook runs for a reader.

The numbers come from one of two ways, which the summary at the end names:

- When the book was built from the present sources, from the book's own executions, which `make book` keeps whole in
  `_build/executed/`. Their code is that of the notebooks, which is checked, so that no chapter is executed twice. What
  differs for a reader is checked in the reader's environment, which has the package as a wheel and no Sphinx: the first
  cells of every notebook run there with another seed, the chapters of IN_FULL run to their end.
- Else from the notebooks, each of which runs in full in the reader's environment, its parameters injected.

In both ways the wheel has all files of the package, and every import of the package and the notebooks works there.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import time
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import baselines
import jupytext
import nbformat
import papermill
import pytest
from project import ROOT, chapters, execution, no_current_book

PAGES = {path.stem: path for path in chapters()}
BUILT = no_current_book() is None
# Those that take least time, one of the theory and one that trains networks and reads records.
IN_FULL = ["proposition1", "dae-ablations"]
FOR_A_READER = IN_FULL if BUILT else [*PAGES]
RUNS = [("reader", stem) for stem in FOR_A_READER] + [("book", stem) for stem in PAGES if BUILT]
LIB = ROOT / "lib" / "repdyn"
per_run = pytest.mark.parametrize("run", RUNS, indirect=True, ids=[f"{way}:{stem}" for way, stem in RUNS])
WAYS = {"book": "numbers from the book's own execution", "reader": "in full in the reader's environment"}


@dataclass
class Run:
    stem: str
    way: str
    seconds: float = 0.0
    notebook: nbformat.NotebookNode | None = None
    failure: str = ""

    def finished(self) -> nbformat.NotebookNode:
        if self.notebook is None:
            pytest.skip(f"{self.stem} did not run")
        return self.notebook


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not baselines.READER.exists():
        pytest.fail("the reader's environment is missing: run `make test`, or `make reader` before pytest")
    return baselines.reader_kernel(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    way, stem = request.param
    if way == "book":
        if not execution(stem).exists():
            return Run(stem, way, failure=f"the build kept no execution of {stem}: run `make book` again")
        notebook = nbformat.read(execution(stem), as_version=4)
        return Run(stem, way, notebook.metadata.execution_seconds, notebook)
    kernel, start = request.getfixturevalue("kernel"), time.monotonic()
    try:
        notebook = baselines.execute(baselines.generated(stem), tmp_path_factory.mktemp(stem), kernel)
    except papermill.PapermillExecutionError as error:
        return Run(stem, way, time.monotonic() - start, failure=str(error))
    return Run(stem, way, time.monotonic() - start, notebook)


# Each run, the book's own or a reader's


@per_run
def test_runs(run: Run, record_property) -> None:
    record_property("chapter", (run.seconds, run.stem, WAYS[run.way]))
    assert not run.failure, run.failure


@per_run
def test_ran_the_code_of_its_page(run: Run) -> None:
    cells = code(run.finished())
    assert all(cell.execution_count for cell in cells), "a cell was not executed"
    if run.way == "reader":
        assert "%pip install" in cells[0].source, "the first code cell installs the package on Colab"
        tags = [cell.metadata.get("tags", []) for cell in cells]
        assert "parameters" in tags[1] and "injected-parameters" in tags[2], "the second one sets the parameters"
        cells = cells[1:2] + cells[3:]
    assert sources(cells) == sources(code(page(run.stem)))


@per_run
def test_records_its_baseline(run: Run) -> None:
    found = baselines.problems(baselines.recorded(run.finished()), baselines.read(run.stem))
    assert not found, f"{run.stem}: {len(found)} recorded numbers differ\n  " + "\n  ".join(found)


@per_run
def test_is_silent_on_stderr(run: Run) -> None:
    assert not noise(run.finished()), noise(run.finished())


# Each notebook


@pytest.mark.parametrize("stem", PAGES)
def test_the_notebook_has_the_code_of_its_page(stem: str) -> None:
    install, *others = code(baselines.generated(stem))
    assert "%pip install" in install.source, "the first code cell installs the package on Colab"
    assert sources(others) == sources(code(page(stem)))
    assert "parameters" in others[0].metadata.get("tags", []), "the second one sets the parameters"


@pytest.mark.parametrize("stem", PAGES)
def test_takes_its_parameters(stem: str) -> None:
    notebook = baselines.generated(stem)
    after = code(notebook)[2:]
    used = {n.id for cell in after for n in ast.walk(ast.parse(plain(cell.source))) if isinstance(n, ast.Name)}
    unused = baselines.parameters(notebook).keys() - used
    assert not unused, f"parameters that nothing uses: {unused}"


if BUILT:  # otherwise each notebook runs to its end

    @pytest.mark.parametrize("stem", PAGES, ids=[f"start:{stem}" for stem in PAGES])
    def test_starts_for_a_reader(stem: str, kernel: str, tmp_path: Path, record_property) -> None:
        """The install cell, the parameters and the imports run; an injected parameter holds in the cells after them."""
        notebook, start = baselines.generated(stem), time.monotonic()
        last = notebook.cells.index(code(notebook)[2])
        values = baselines.parameters(notebook)
        values["SEED"] += 1
        seen = ", ".join(f"{name}={name}" for name in values)
        check = nbformat.v4.new_code_cell(f"assert dict({seen}) == {values!r}, dict({seen})")
        notebook.cells = [*notebook.cells[: last + 1], check]
        run = baselines.execute(notebook, tmp_path, kernel, SEED=values["SEED"])
        assert not noise(run), noise(run)
        record_property("chapter", (time.monotonic() - start, stem, "first cells in the reader's environment"))


# What all notebooks need


def test_the_wheel_has_every_file_of_the_package() -> None:
    (installed,) = baselines.READER.parents[1].glob("lib/python*/site-packages/repdyn")
    assert files(installed) == files(LIB)


def test_a_reader_can_import_every_module() -> None:
    each = "for m in pkgutil.walk_packages(repdyn.__path__, 'repdyn.'): importlib.import_module(m.name)"
    done = reader_python(f"import importlib, pkgutil, repdyn\n{each}")
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_reader_has_every_package_that_something_imports() -> None:
    """Imports inside functions too, which run late or never in the first cells."""
    code_of = {str(path.relative_to(ROOT)): path.read_text() for path in LIB.rglob("*.py")}
    for stem in PAGES:
        code_of[stem] = "\n".join(plain(cell.source) for cell in code(baselines.generated(stem)))
    places = {name: place for place, text in code_of.items() for name in imported(text)}
    find = f"import importlib.util\nprint(*[n for n in {sorted(places)} if importlib.util.find_spec(n) is None])"
    missing = set(reader_python(find).stdout.split())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    missing -= {re.match(r"[\w-]+", extra)[0] for names in extras.values() for extra in names}
    assert not missing, {name: places[name] for name in missing}


def test_no_baseline_is_left_over() -> None:
    assert {path.stem for path in baselines.FOLDER.glob("*.json")} == set(PAGES)


def page(stem: str) -> nbformat.NotebookNode:
    return jupytext.read(PAGES[stem], fmt="md:myst")


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def sources(cells: list[nbformat.NotebookNode]) -> list[str]:
    return [cell.source for cell in cells]


def noise(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


def plain(source: str) -> str:
    """A cell's code without its magics, which leave their indentation a body."""
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.split("\n"))


def imported(text: str) -> set[str]:
    """The packages that a program imports anywhere."""
    nodes = [*ast.walk(ast.parse(text))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def files(folder: Path) -> dict[str, str]:
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in found}


def reader_python(program: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([baselines.READER, "-c", program], env=variables, cwd="/", capture_output=True, text=True)
