"""What the tools and the Sphinx extension know about the repository. Standard library only, except in `chapters`."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Chapters by the time that they take, as measured; the others take less.
LONGEST_FIRST = ["unimodal", "generation", "ddpm", "csnr-real", "feature-learning", "segmentation", "memorisation"]
LONGEST_FIRST += ["weight-sharing", "ensembles", "recovery", "peak", "molrg", "dae-ablations", "csnr", "denoising"]
BEHIND_NUMBERS = ["lib", "requirements.txt", "pyproject.toml", "_config.yml"]
BEHIND_PAGES = [*BEHIND_NUMBERS, "book", "vendor", "_toc.yml"]


def repository() -> str:
    """Owner and name: of the repository whose workflow runs, so that a fork opens itself; else pyproject's."""
    if "GITHUB_REPOSITORY" in os.environ:
        return os.environ["GITHUB_REPOSITORY"]
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return urls["Repository"].removeprefix("https://github.com/")


def notebook_branch() -> str:
    """The branch that Colab reads the notebooks from: publishing sets it, because a fork's notebooks name the fork."""
    return os.environ.get("NOTEBOOK_BRANCH", "main")


def pages(root: Path = ROOT) -> list[Path]:
    """The sources of all pages, in the order of the table of contents."""
    import yaml  # not installed yet when tools/environment.py runs

    toc = yaml.safe_load((root / "_toc.yml").read_text())
    stems = [toc["root"]] + [c["file"] for part in toc.get("parts", [toc]) for c in part["chapters"]]
    return [root / f"{stem}.md" for stem in stems]


def is_chapter(page: Path) -> bool:
    """Whether a page has code to execute, that is a kernel in its front matter."""
    return page.exists() and re.match(r"---\n.*?^kernelspec:.*?^---$", page.read_text(), re.S | re.M) is not None


def chapters(root: Path = ROOT) -> list[Path]:
    """The pages that execute, in order; their stems are unique and name the notebooks and the baselines."""
    return [page for page in pages(root) if is_chapter(page)]


def longest_first(chapters: Iterable[Path]) -> list[Path]:
    """The order in which processes side by side end together: what takes longest begins first."""
    rank = {stem: i for i, stem in enumerate(LONGEST_FIRST)}
    return sorted(chapters, key=lambda page: rank.get(page.stem, len(rank)))


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """One hash for the names and the contents of files and folders; absent ones count as such."""
    digest = hashlib.sha256()
    for name in names:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def no_current_book(root: Path = ROOT) -> str | None:
    """Why the built book cannot speak for the present sources, or None."""
    stamp = root / "_build" / "html" / ".built-from"
    if not stamp.exists():
        return "there is no finished build"
    if stamp.read_text() != fingerprint(root, BEHIND_PAGES):
        return "the build is older than its sources"
    return None


def execution(stem: str, root: Path = ROOT) -> Path:
    """Where the book keeps a chapter's execution, a notebook with all outputs, those of `record` too."""
    return root / "_build" / "executed" / f"{stem}.ipynb"
