"""One set of training labels, one network: the best place to probe it, and ensembles of five probes around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss
from torch import Tensor

from repdyn.metrics.predictions import calibration_error, error_correlation
from repdyn.probes import LinearProbe, fit_many, fit_path, vote

__all__ = ["Labelled", "Layers", "Member", "compare", "ensemble", "scores"]

_TOLERANCE = 1e-6  # of the probes' objective, which is 0.3 and more: a third faster than the default, same accuracies

#: Layer -> features at S noise levels, each (N + M, D): training items first, then test items.
Layers = dict[str, Sequence[Tensor]]


class Labelled(NamedTuple):
    """Labels of N training items, some of them wrong, and right ones of M test items; who is fitted, who held out."""

    train: np.ndarray
    test: np.ndarray
    fitted: np.ndarray
    held: np.ndarray
    classes: int


class Member(NamedTuple):
    """A fitted probe: its penalty, its accuracy on the held-out items, its logits (M, classes) of the test items."""

    l2: float
    validation: float
    logits: np.ndarray


def members(features: Sequence[Tensor], labels: Labelled, l2: Sequence[float]) -> list[Member]:
    """A probe for each of P features (N + M, D), its penalty the one of ``l2`` that does best on the held-out items.

    Their labels are as wrong as the others: no clean label chooses anything. The strongest of equals is taken.
    """
    strengths = sorted(l2, reverse=True)
    block = torch.stack(list(features))  # (P, N + M, D)
    path = fit_path(block[:, labels.fitted], labels.train[labels.fitted], strengths, tol=_TOLERANCE)
    held, test = block[:, labels.held], block[:, len(labels.train) :]
    found = []
    for x, x_test, *probes in zip(held, test, *path, strict=True):
        accuracies = [(_logits(p, x, labels.classes).argmax(1) == labels.train[labels.held]).mean() for p in probes]
        best = int(np.argmax(accuracies))  # the first of equals
        logits = _logits(probes[best], x_test, labels.classes)
        found.append(Member(strengths[best], float(accuracies[best]), logits))
    return found


def _logits(probe: LinearProbe, x: Tensor, classes: int) -> np.ndarray:
    if len(probe.classes_) != classes:
        raise ValueError(f"the fitted labels hold {len(probe.classes_)} of {classes} classes: take more training items")
    return probe.decision_function(x).astype(np.float64)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``accuracy``, ``nll`` (mean log-loss) and ``ece`` (calibration error, 15 bins) of logits (M, classes)."""
    p = np.exp(log_softmax(logits, axis=1))
    return {
        "accuracy": float((p.argmax(1) == labels).mean()),
        "nll": float(log_loss(labels, p, labels=np.arange(p.shape[1]))),
        "ece": calibration_error(p, labels),
    }


def ensemble(voters: Sequence[Member], labels: np.ndarray) -> dict[str, float | None]:
    """:func:`scores` of the members' vote, the members' mean accuracy, ``members``, and ``correlation`` of errors.

    A member that is right, or wrong, on every item has no part in the correlation, which is None without two others.
    """
    correct = np.stack([member.logits.argmax(1) == labels for member in voters])  # (P, M)
    varied = correct[correct.any(1) & ~correct.all(1)]
    return {
        **scores(vote([member.logits for member in voters]), labels),
        "members": float(correct.mean()),
        "correlation": error_correlation(varied) if len(varied) > 1 else None,
    }


def window(best: int, levels: int, neighbours: int) -> list[int]:
    """``neighbours`` levels on either side of the ``best`` of so many; near an end, the nearest that there are."""
    start = min(max(best - neighbours, 0), max(levels - 2 * neighbours - 1, 0))
    return list(range(start, min(start + 2 * neighbours + 1, levels)))


def compare(
    layers: Layers,
    labels: Labelled,
    l2: Sequence[float],
    neighbours: int = 2,
    draws: Callable[[str, int], Sequence[Tensor]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The best single probe and, each of 2 ``neighbours`` + 1 members, what can be made of more than one.

    Rows ``best`` (one layer, one level, chosen by held-out accuracy), ``levels`` (votes of that level and its
    neighbours), ``concatenated`` (one probe of the features of these levels), ``layers`` (votes of the best layers at
    the best level), ``bootstrap`` (votes of probes of the best features, fitted to items drawn with replacement) and,
    with ``draws(layer, level)``, a list of features from noisy input, ``draws`` (votes of these). A row is left out
    where there is nothing to make it of. Beside them ``layer``, ``level``, ``l2`` and ``curve``, the test accuracy of
    that layer at every level.
    """
    table = {name: members(list(features), labels, l2) for name, features in layers.items()}
    places = [(name, j) for name in table for j in range(len(table[name]))]
    layer, level = max(places, key=lambda place: table[place[0]][place[1]].validation)
    best, size = table[layer][level], 2 * neighbours + 1
    found: dict[str, Any] = {"layer": layer, "level": level, "l2": best.l2}
    found["curve"] = [scores(member.logits, labels.test)["accuracy"] for member in table[layer]]
    found["best"] = scores(best.logits, labels.test)
    near = window(level, len(table[layer]), neighbours)
    if len(near) == size:
        found["levels"] = ensemble([table[layer][j] for j in near], labels.test)
        joined = members([torch.cat([layers[layer][j] for j in near], 1)], labels, l2)
        found["concatenated"] = scores(joined[0].logits, labels.test)
    if len(table) >= size:
        chosen = sorted(table, key=lambda name: -table[name][level].validation)[:size]
        found["layers"] = ensemble([table[name][level] for name in chosen], labels.test)
    found["bootstrap"] = ensemble(_bootstrap(layers[layer][level], labels, best.l2, size, seed), labels.test)
    if draws is not None:
        found["draws"] = ensemble(members(draws(layer, level), labels, l2), labels.test)
    return found


def _bootstrap(x: Tensor, labels: Labelled, l2: float, size: int, seed: int) -> list[Member]:
    rng = np.random.default_rng(seed)
    rows = labels.fitted[rng.integers(0, len(labels.fitted), (size, len(labels.fitted)))]  # (size, n)
    probes = fit_many(x[torch.from_numpy(rows)], labels.train[rows], l2=l2, tol=_TOLERANCE)
    return [Member(l2, np.nan, _logits(probe, x[len(labels.train) :], labels.classes)) for probe in probes]
