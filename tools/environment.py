"""Create the two environments that make uses: .venv for authors and tests, .venv-reader for what a reader has.

Nothing is installed while the pins are those of the last time, so a second run needs no network.
Runs before anything is installed: standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from project import ROOT, fingerprint

PINS = ROOT / "requirements.txt"


def pip(venv: Path, *args: str | Path) -> None:
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *args], cwd=ROOT, check=True)


def stale(stamp: Path, content: str) -> bool:
    return not stamp.exists() or stamp.read_text() != content


def create(venv: Path, *requirements: str | Path) -> None:
    """A new environment with pinned packages, unless the last one had the same packages, pins, Python and place."""
    stamp, content = venv / "pins", f"{fingerprint(ROOT, [PINS.name])} {requirements} {sys.version} {venv}"
    if not stale(stamp, content):
        return
    print(f"Setting up {venv.name}: once for each change of {PINS.name}, a few minutes.", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
    pip(venv, "install", "-qq", *requirements)
    stamp.write_text(content)  # last: an interrupted installation is repeated


def author() -> None:
    venv = ROOT / ".venv"
    create(venv, "--requirement", PINS)
    stamp, content = venv / "package", fingerprint(ROOT, ["pyproject.toml"])
    if stale(stamp, content):
        pip(venv, "install", "-qq", "--no-deps", "--no-build-isolation", "--editable", ROOT)
        stamp.write_text(content)


def reader() -> None:
    """The package as a wheel with its dependencies and a kernel, as on Colab: no Sphinx, no tools, no sources."""
    author()
    venv = ROOT / ".venv-reader"
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    create(venv, "--constraint", PINS, "ipykernel", *dependencies)
    stamp, content = venv / "package", fingerprint(ROOT, ["lib", "pyproject.toml", "README.md", "LICENSE"])
    if not stale(stamp, content):
        return
    with tempfile.TemporaryDirectory() as folder:  # in the tree, setuptools would pack files deleted since, from build/
        shutil.copytree(ROOT / "lib", Path(folder) / "lib", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        pip(ROOT / ".venv", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder)
        wheel = next(Path(folder).glob("*.whl"))
        pip(venv, "install", "-qq", "--no-deps", "--force-reinstall", wheel)
    stamp.write_text(content)


if __name__ == "__main__":
    {"author": author, "reader": reader}[sys.argv[1]]()
