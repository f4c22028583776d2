"""Which layers vote, and which items the members are fitted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from repdyn.chapters.ensembles.ensembling import Labelled, compare
from repdyn.probes import LinearProbe


def test_the_layers_that_vote_are_the_best_at_the_best_level() -> None:
    """Guards the choice of layers: held-out accuracy at that level, not at the first, the highest."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 700)
    centres = rng.standard_normal((3, 5))
    noise = {"a": (9.0, 0.6), "b": (9.0, 0.9), "c": (9.0, 1.2), "d": (1.4, 9.0), "e": (1.5, 9.0)}
    layers: dict[str, list[Tensor]] = {
        name: [torch.from_numpy(centres[y] + s * rng.standard_normal((700, 5))).float() for s in levels]
        for name, levels in noise.items()
    }
    labels = Labelled(y[:500], y[500:], np.arange(300), np.arange(300, 500), 3)
    found = compare(layers, labels, (1e-2,), neighbours=1)
    assert (found["layer"], found["level"]) == ("a", 1)
    probes = {name: LinearProbe(1e-2).fit(layers[name][1][:300], y[:300]) for name in "abc"}
    logits = np.stack([probe.decision_function(layers[name][1][500:]) for name, probe in probes.items()])
    assert found["layers"]["members"] == pytest.approx((logits.argmax(2) == y[500:]).mean(), abs=0.01)
    p = softmax((logits - logits.mean(2, keepdims=True)).mean(0), axis=1)
    assert found["layers"]["nll"] == pytest.approx(-np.log(p[np.arange(200), y[500:]]).mean(), rel=0.01)


def test_resamples_are_of_the_fitted_items_with_the_chosen_penalty() -> None:
    """Guards what the probes of drawn items are fitted to, draw by draw, and with which penalty."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 400)
    x = torch.from_numpy(rng.standard_normal((3, 5))[y] + 1.5 * rng.standard_normal((400, 5))).float()
    labels = Labelled(y[:200], y[200:], np.arange(50, 200), np.arange(50), 3)
    found = compare({"only": [x]}, labels, (1.0,), neighbours=1, seed=3)["bootstrap"]
    drawn = labels.fitted[np.random.default_rng(3).integers(0, 150, (3, 150))]
    probes = [LinearProbe(1.0).fit(x[rows], y[rows]) for rows in drawn]
    logits = np.stack([probe.decision_function(x[200:]) for probe in probes])
    assert found["members"] == pytest.approx((logits.argmax(2) == y[200:]).mean(), abs=0.004)
    p = softmax(logits.mean(0), axis=1)
    assert found["nll"] == pytest.approx(-np.log(p[np.arange(200), y[200:]]).mean(), rel=2e-3)
