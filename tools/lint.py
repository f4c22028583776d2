"""Ruff on all Python there is, the chapters' cells included: ruff itself passes over Markdown without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from project import ROOT, chapters

FOLDERS = ["lib", "tests", "tools", "benchmarks", "book/_ext"]
# A chapter imports below its parameters, ends a plotting line with a semicolon, and names things as its formulas do.
IN_CHAPTERS = "E402,E703,E731,E741"


def ruff(*args: str, **run: object) -> str:
    """Ruff's complaints, or nothing."""
    program = Path(sys.executable).with_name("ruff")
    result = subprocess.run([program, "check", "--quiet", *args], cwd=ROOT, capture_output=True, text=True, **run)
    return result.stdout + result.stderr if result.returncode else ""


def package() -> str:
    return ruff(*FOLDERS)


def chapter(path: Path) -> str:
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.cells = [nbformat.v4.new_code_cell(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    code = jupytext.writes(notebook, fmt="py:percent")
    return ruff("--ignore", IN_CHAPTERS, "--stdin-filename", f"{path.stem}.py", "-", input=code)


if __name__ == "__main__":
    complaints = package() + "".join(chapter(path) for path in chapters())
    print(complaints or "Nothing to complain about.")
    sys.exit(bool(complaints))
