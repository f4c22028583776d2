"""The notebooks for Colab are those that the chapters generate."""

from __future__ import annotations

import json
from pathlib import Path

import make_notebooks
import nbformat
import pytest
from project import ROOT, chapters

STEMS = [path.stem for path in chapters()]


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GITHUB_REPOSITORY", raising=False)  # what is committed names the repository of pyproject.toml
        return make_notebooks.generate(ROOT)


def test_no_notebook_drifted_from_its_chapter(generated: dict[Path, str]) -> None:
    drifted = [path.name for path, text in generated.items() if not path.exists() or path.read_text() != text]
    assert not drifted, f"run `make notebooks`: {drifted}"
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_a_notebook_is_ready_for_colab(generated: dict[Path, str], stem: str) -> None:
    notebook = nbformat.reads(generated[ROOT / "notebooks" / f"{stem}.ipynb"], as_version=4)
    nbformat.validate(notebook)
    title, install, *_ = notebook.cells
    assert title.source.startswith("# ") and ".github.io/" in title.source
    assert "import repdyn" in install.source and "git+https://github.com/" in install.source
    assert notebook.metadata.accelerator == "GPU" and notebook.metadata.colab.gpuType == "T4"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not [mark for mark in ("{eq}", "{glue", "{py:", "{cite", ":::", ")=\n") if mark in text]


def test_a_fork_opens_its_own_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "Someone/else")
    for text in make_notebooks.generate(ROOT).values():
        sources = "".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        assert "git+https://github.com/Someone/else" in sources and "https://someone.github.io/else/" in sources
