"""A chapter on other weights than its own, as a reader with official ones runs it: a tiny network of colour images."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from safetensors.torch import save_file

from repdyn import notebook, records
from repdyn.networks import UNetConfig
from repdyn.training import TrainConfig, make_denoiser

ROOT = Path(__file__).parents[2]
FEW = {"num_train": 120, "num_test": 60, "splits": 1}


@pytest.fixture(scope="module")
def colour_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained U-Net of 32x32 colour images, with the provenance of one of CIFAR-10's lossy copy."""
    network = UNetConfig(
        resolution=32,
        channels=3,
        model_channels=8,
        channel_mult=(1, 2, 2),
        num_blocks=1,
        attn_resolutions=(),
        dropout=0.0,
    )
    config = TrainConfig(dataset="cifar10-jpeg", network=network, images=1280, batch_size=128)
    path = tmp_path_factory.mktemp("weights") / "colour.safetensors"
    tensors = {name: value.half() for name, value in make_denoiser(config).state_dict().items()}
    save_file(tensors, path, {"config": json.dumps(asdict(config)), "images": "1280"})
    return path


def test_the_unimodal_chapter_runs_on_colour_images(
    colour_weights: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared_data.is_dir():
        pytest.skip("NOT TESTED: no colour images, which do not ship: set REPDYN_DATA")
    measured = []

    def few_images(recipe: records.Recipe, *, rerun: bool = False, **changes: Any) -> dict[str, Any]:
        entry = records.read(recipe)
        if changes.get("weights") != str(colour_weights):
            return entry
        measured.append(recipe.name)
        config = replace(recipe.config, **changes)
        config = replace(config, **{f.name: FEW[f.name] for f in fields(config) if f.name in FEW})
        return {**entry, "config": asdict(config), "metrics": recipe.measure(config)}

    monkeypatch.setattr(records, "obtain", few_images)
    monkeypatch.setattr(notebook, "display", lambda *_, **__: None)
    monkeypatch.setattr(plt, "show", lambda: None)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in nbformat.read(ROOT / "notebooks" / "unimodal.ipynb", as_version=4).cells:
        if cell.cell_type != "code" or "%pip" in cell.source:
            continue
        exec(compile(cell.source, "unimodal", "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(WEIGHTS=str(colour_weights), RERUN=True)
            names.update({name: FEW["num_train"] for name in ("NUM_TRAIN", "NUM_TEST") if name in names})
        plt.close("all")
    assert measured == ["fashion-curve-clean", "fashion-curve-noisy"]
