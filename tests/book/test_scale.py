"""The tables of the page on larger runs say what the code has."""

from __future__ import annotations

import re

import project

from repdyn import datasets, presets, pretrained, training

PAGE = (project.ROOT / "book/appendix/scale.md").read_text()
NAME = re.compile(r"`([\w-]+)`")


def test_the_table_of_presets() -> None:
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.count("|") == 8]
    found = {row[0]: row[1:] for row in rows[2:]}
    expected = {}
    for name, config in presets.PRESETS.items():
        parameters = sum(p.numel() for p in training.make_denoiser(config).parameters())
        shipped = "yes" if name in pretrained.available() else "no"
        numbers = (f"{number:,}" for number in (parameters, config.images, config.batch_size))
        expected[name] = [config.dataset, *numbers, config.preconditioning.kind, shipped]
    assert found == expected


def test_every_data_set_is_listed() -> None:
    table = PAGE[PAGE.index("| compared with") :]
    assert set(datasets.NAMES) <= set(NAME.findall(table))


def test_every_official_checkpoint_is_listed() -> None:
    for name in pretrained.OFFICIAL:
        first, last = name.rsplit("-", 1)
        assert f"`{name}`" in PAGE or f"`{first}-vp`, `-{last}`" in PAGE
