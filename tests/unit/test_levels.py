"""Probes of many levels, splits and penalties, against the definition: one probe at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from repdyn import probes
from repdyn.probes import LinearProbe, probe_curves

PENALTIES = (1e-2, 30.0, 1.0)


@pytest.fixture(scope="module")
def items() -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Three levels of features, one class rare: the strongest penalty never predicts it. Labels start at 3."""
    generator = torch.Generator().manual_seed(0)
    labels = 3 + (torch.rand(180, generator=generator) < 0.25).long()
    spread = torch.tensor([0.3, 1.0, 3.0])[:, None, None]
    activations = labels[None, :, None] + spread * torch.randn(3, 180, 4, generator=generator)
    order = torch.randperm(120, generator=generator)
    splits = [(order[:30], order[30:]), (order[60:90], torch.cat([order[:60], order[90:]]))]
    return activations, labels[:120], labels[120:], splits


def test_each_probe_is_the_one_that_validation_chose(items: tuple) -> None:
    """Guards that the penalty which validation chose is the one whose accuracy on the test items is reported."""
    activations, labels, test_labels, splits = items
    found = probe_curves(activations, labels, test_labels, splits, PENALTIES)
    assert found.validation.shape == found.l2.shape == (2, 3) and found.correct.shape == (2, 3, 60)
    assert found.correct.dtype == bool
    differ = 0
    for i, (held, fitted) in enumerate(splits):
        for j, x in enumerate(activations):
            each = {l2: LinearProbe(l2).fit(x[fitted], labels[fitted]) for l2 in sorted(PENALTIES, reverse=True)}
            scores = {l2: probe.score(x[held], labels[held].numpy()) for l2, probe in each.items()}
            chosen = max(scores, key=scores.__getitem__)  # the first, and so the strongest, of equals
            assert found.l2[i, j] == chosen and found.validation[i, j] == pytest.approx(scores[chosen])
            right = {l2: probe.predict(x[120:]) == test_labels.numpy() for l2, probe in each.items()}
            np.testing.assert_array_equal(found.correct[i, j], right[chosen])
            differ += (right[chosen] != right[30.0]).any()
    assert differ >= 2, "with the first penalty the answers are others"


def test_portions_of_levels_and_a_sequence_of_files_give_the_same(
    items: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the places of levels that are read a few at a time, one too large for company included."""
    whole = probe_curves(*items, PENALTIES)
    activations, *rest = items
    for together in (2 * activations[0].numel(), activations[0].numel(), 1):
        monkeypatch.setattr(probes.levels, "_TOGETHER", together)
        found = probe_curves(list(activations), *rest, PENALTIES)
        for ours, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_one_penalty_needs_no_list_and_none_is_refused(items: tuple) -> None:
    assert (probe_curves(*items, 1.0).l2 == 1.0).all()
    assert probe_curves(items[0][:1], *items[1:], 1.0).correct.shape == (2, 1, 60), "one level is a curve too"
    with pytest.raises(ValueError, match="l2"):
        probe_curves(*items, ())
