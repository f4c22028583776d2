"""Everything that a program can say about the code without running it: style, layout, types, who imports whom.

Ruff passes over Markdown without a word, so the chapters' cells are handed to it, and its line numbers are those of
the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from project import ROOT, chapters

FOLDERS = ["lib", "tests", "tools", "benchmarks", "book/_ext"]
# A chapter imports below its parameters, ends a plotting line with a semicolon, and names things as its formulas do.
IN_CHAPTERS = "E402,E703,E731,E741"
WIDEST = 90  # columns
OPTIONS = r"(?:---\n.*?^---\n|(?::[^\n]*\n)*)\n*"
CELL = re.compile(rf"^```\{{code-cell\}}[^\n]*\n{OPTIONS}(?P<code>.*?)\n*^```$", re.S | re.M)


def output(root: Path, program: str, *args: str, code: str | None = None) -> str:
    """What a program of the environment complains about, or nothing."""
    command = [str(Path(sys.executable).with_name(program)), *args]
    variables = os.environ | {"PYTHONPATH": str(root / "lib")}  # import-linter reads what Python would import
    result = subprocess.run(command, cwd=root, env=variables, input=code, capture_output=True, text=True)
    said = result.stdout + result.stderr
    return (said.strip() or f"{program} ended with status {result.returncode}") + "\n" if result.returncode else ""


def ruff(root: Path = ROOT) -> str:
    return output(root, "ruff", "check", "--quiet", *FOLDERS)


def layout(root: Path = ROOT) -> str:
    return output(root, "ruff", "format", "--check", "--quiet", *FOLDERS)


def types(root: Path = ROOT) -> str:
    return output(root, "mypy")


def imports(root: Path = ROOT) -> str:
    """The contracts of pyproject.toml. The report names the chain of imports that breaks one, with line numbers."""
    return output(root, "lint-imports", "--no-cache", "--no-logo")


def cells(page: Path) -> list[list[tuple[int, str]]]:
    """The lines of each code cell, with their numbers on the page."""
    text, found = page.read_text(), []
    for cell in CELL.finditer(text):
        first = text.count("\n", 0, cell.start("code")) + 1
        found.append([*enumerate(cell["code"].split("\n"), start=first)])
    return found


def chapter(page: Path, root: Path = ROOT) -> str:
    """Ruff's complaints about the cells of a page. Magics are no Python: they go as comments."""
    numbers, code = [0], []  # lines count from 1
    for lines in cells(page):
        numbers += [lines[0][0], *(number for number, _ in lines), lines[-1][0]]
        code += ["# %%", *(re.sub(r"^(\s*)([%!])", r"\1# \2", line) for _, line in lines), ""]
    options = ["--ignore", IN_CHAPTERS, "--output-format", "concise", "--stdin-filename", f"{page.stem}.py", "-"]
    said = output(root, "ruff", "check", "--quiet", *options, code="\n".join(code))
    name = page.relative_to(root)
    return re.sub(rf"^{page.stem}\.py:(\d+)", lambda found: f"{name}:{numbers[int(found[1])]}", said, flags=re.M)


def wide_lines(page: Path, root: Path = ROOT) -> str:
    lines = [line for cell in cells(page) for line in cell if len(line[1]) > WIDEST]
    name = page.relative_to(root)
    return "".join(f"{name}:{number}: {len(line)} columns, at most {WIDEST}\n" for number, line in lines)


def all_chapters(root: Path = ROOT) -> str:
    return "".join(chapter(page, root) for page in chapters(root))


def all_wide_lines(root: Path = ROOT) -> str:
    return "".join(wide_lines(page, root) for page in chapters(root))


CHECKS: dict[str, Callable[[Path], str]] = {
    "types (mypy, lib and tools)": types,  # first: it takes longest
    "who imports whom (import-linter)": imports,
    "style (ruff check)": ruff,
    "layout (ruff format; `.venv/bin/ruff format` puts it right)": layout,
    "style of the chapters' cells (ruff check)": all_chapters,
    f"width of the chapters' cells (at most {WIDEST} columns)": all_wide_lines,
}


def main(root: Path = ROOT) -> int:
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        found = dict(zip(CHECKS, pool.map(lambda check: check(root), CHECKS.values())))
    for name, complaints in found.items():
        print(f"-- {name}\n{complaints.strip() or 'Nothing to complain about.'}\n")
    failed = sum(map(bool, found.values()))
    print(f"{failed} of {len(CHECKS)} checks complain, {time.monotonic() - start:.0f} s.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
