"""Run a chapter as a reader does, and compare the numbers it records with tests/chapters/baselines/<stem>.json.

`python tools/baselines.py <stem>` rewrites the values on purpose, keeps tolerances and reasons, prints what changed.
"""

from __future__ import annotations

import ast
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from project import ROOT

FOLDER = ROOT / "tests" / "chapters" / "baselines"
READER = ROOT / ".venv-reader" / "bin" / "python"
RECORD = "application/papermill.record/text/plain"
Scalar = float | int | str


def reader_kernel(folder: Path) -> str:
    """Register in a folder the kernel that has only what a reader has: the package as a wheel and its dependencies."""
    spec = folder / "kernels" / "repdyn-reader" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(READER), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    alone = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    spec.write_text(json.dumps({"argv": argv, "display_name": "reader", "language": "python", "env": alone}))
    os.environ["JUPYTER_PATH"] = str(folder)
    return "repdyn-reader"


def parameters(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """What the cell tagged `parameters` sets; it holds literals only."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a chapter has one cell tagged parameters, this one has {len(cells)}")
    values: dict[str, object] = {}
    exec(compile(cells[0].source, "parameters", "exec"), {"__builtins__": {}}, values)
    return values


def generated(stem: str) -> nbformat.NotebookNode:
    """The notebook for Colab."""
    return nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)


def execute(notebook: nbformat.NotebookNode, folder: Path, kernel: str, **changes: object) -> nbformat.NotebookNode:
    """Run a notebook in an otherwise empty folder, its own parameters injected, or those that changed."""
    values = parameters(notebook) | changes
    return papermill.execute_notebook(
        notebook, None, values, kernel_name=kernel, cwd=folder, progress_bar=False, execution_timeout=600
    )


def recorded(notebook: nbformat.NotebookNode) -> dict[str, Scalar]:
    """The numbers and strings that the cells recorded, in their order."""
    found: dict[str, Scalar] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if RECORD in output.get("data", {}):
                name = output.metadata.scrapbook.name
                if name in found:
                    raise ValueError(f"{name} is recorded twice")
                found[name] = ast.literal_eval(output.data[RECORD])
    return found


def refusal(entry: dict) -> str | None:
    """Why a baseline is no test at all, or None."""
    value, tolerances = entry.get("value"), {"rtol", "atol"} & entry.keys()
    if not str(entry.get("why", "")).strip():
        return "says not why its tolerance is right"
    if isinstance(value, str):
        return "compares a string, which has no tolerance" if tolerances else None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"has the value {value!r}, which is no finite number"
    if len(tolerances) != 1:
        return "needs either rtol or atol"
    if not 0 <= allowed(entry) < abs(value):
        return f"tolerates {allowed(entry):g} around {value:g}: zero would pass, or nothing"
    return None


def allowed(entry: dict) -> float:
    return entry["atol"] if "atol" in entry else entry["rtol"] * abs(entry["value"])


def problems(values: dict[str, Scalar], baseline: dict[str, dict]) -> list[str]:
    """Everything that differs between what a chapter recorded and its baseline, one line each."""
    found = [f"{name}: recorded {values[name]!r}, but has no baseline" for name in values.keys() - baseline.keys()]
    found += [f"{name}: has a baseline, but is not recorded" for name in baseline.keys() - values.keys()]
    for name in values.keys() & baseline.keys():
        entry, value = baseline[name], values[name]
        if reason := refusal(entry):
            found.append(f"{name}: the baseline {reason}")
        elif isinstance(value, str) or isinstance(entry["value"], str):
            if value != entry["value"]:
                found.append(f"{name}: recorded {value!r}, the baseline is {entry['value']!r}")
        elif not abs(value - entry["value"]) <= allowed(entry):
            off = f"off by {abs(value - entry['value']):g}, allowed {allowed(entry):g}"
            found.append(f"{name}: recorded {value!r}, the baseline is {entry['value']!r}: {off}")
    return sorted(found)


def revised(values: dict[str, Scalar], baseline: dict[str, dict]) -> dict[str, dict]:
    """The baseline with the values of this run. A new entry has no reason, so the tests refuse it until it gets one."""
    new = {}
    for name, value in values.items():
        guess = {} if isinstance(value, str) else {"rtol": 1e-6}
        new[name] = {"value": value, **guess, "why": ""} if name not in baseline else {**baseline[name], "value": value}
    return new


def read(stem: str) -> dict[str, dict]:
    path = FOLDER / f"{stem}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main(stem: str) -> None:
    with tempfile.TemporaryDirectory() as jupyter, tempfile.TemporaryDirectory() as folder:
        values = recorded(execute(generated(stem), Path(folder), reader_kernel(Path(jupyter))))
    old = read(stem)
    new = revised(values, old)
    for name in old.keys() | new.keys():
        before, after = old.get(name, {}).get("value"), new.get(name, {}).get("value")
        if before != after:
            print(f"{name}: {before!r} -> {after!r}")
    path = FOLDER / f"{stem}.json"
    path.write_text(json.dumps(new, indent=2) + "\n")
    unfinished = [f"{name} {refusal(entry)}" for name, entry in new.items() if refusal(entry)]
    print(f"{path.relative_to(ROOT)}: {len(new)} numbers." + "".join(f"\n  to do: {line}" for line in unfinished))


if __name__ == "__main__":
    main(sys.argv[1])
