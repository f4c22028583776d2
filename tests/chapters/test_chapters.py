"""Every chapter, run once as a reader runs it, records the numbers that its baseline has."""

from __future__ import annotations

import ast
import time
from dataclasses import dataclass

import baselines
import nbformat
import papermill
import pytest
from project import chapters

STEMS = [path.stem for path in chapters()]


@dataclass
class Run:
    stem: str
    seconds: float
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


@pytest.fixture(scope="module", params=STEMS)
def run(request: pytest.FixtureRequest, kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    stem, start = request.param, time.monotonic()
    try:
        notebook = baselines.execute(stem, tmp_path_factory.mktemp(stem), kernel)
    except papermill.PapermillExecutionError as error:
        return Run(stem, time.monotonic() - start, failure=str(error))
    return Run(stem, time.monotonic() - start, notebook)


def test_runs(run: Run, record_property) -> None:
    record_property("seconds", run.seconds)
    assert not run.failure, run.failure


def test_records_its_baseline(run: Run) -> None:
    found = baselines.problems(baselines.recorded(run.finished()), baselines.read(run.stem))
    assert not found, f"{run.stem}: {len(found)} recorded numbers differ\n  " + "\n  ".join(found)


def test_is_silent_on_stderr(run: Run) -> None:
    outputs = [output for cell in run.finished().cells for output in cell.get("outputs", [])]
    noise = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert not noise, noise


def test_takes_its_parameters(run: Run) -> None:
    cells = [cell for cell in run.finished().cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    assert "%pip install" in cells[0].source, "the first code cell installs the package on Colab"
    assert "parameters" in tags[1] and "injected-parameters" in tags[2], "the second one sets the parameters"
    used = {n.id for cell in cells[3:] for n in ast.walk(ast.parse(plain(cell.source))) if isinstance(n, ast.Name)}
    unused = baselines.parameters(run.finished()).keys() - used
    assert not unused, f"parameters that nothing uses: {unused}"


def plain(source: str) -> str:
    """A cell's code without its magics."""
    return "\n".join(line for line in source.split("\n") if not line.lstrip().startswith(("%", "!")))


def test_no_baseline_is_left_over() -> None:
    assert {path.stem for path in baselines.FOLDER.glob("*.json")} == set(STEMS)
