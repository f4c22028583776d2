"""When to stop a training before it copies: rules by what can be measured on the way, and what each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repdyn.metrics.resampling import spearman

__all__ = ["RULES", "SIGNS", "agreement", "height", "is_unimodal", "last_while", "stops"]

Checkpoint = dict[str, Any]


def height(checkpoint: Checkpoint, part: str = "layer") -> float:
    """Height of a curve's peak above the higher of its two ends, in accuracy; 0 or less where an end is the peak.

    ``checkpoint`` is one of :func:`repdyn.chapters.memorisation.sweep.measure`, ``part`` 'layer' or 'posterior'. The
    peak's place is the best level on validation images.
    """
    return min(checkpoint[part]["peak"]["above_left"], checkpoint[part]["peak"]["above_right"])


def is_unimodal(checkpoint: Checkpoint, part: str = "layer") -> bool:
    """Whether the intervals of the peak's height above both ends lie above zero: what the book calls unimodal."""
    peak = checkpoint[part]["peak"]
    return min(peak["left_interval"][0], peak["right_interval"][0]) > 0


def last_while(holds: Sequence[bool]) -> int | None:
    """Index of the last entry of the first stretch in which ``holds`` is true; None if it never is."""
    if True not in holds:
        return None
    first = holds.index(True)
    return next((i - 1 for i in range(first, len(holds)) if not holds[i]), len(holds) - 1)


def _novel(checkpoint: Checkpoint) -> float:
    return checkpoint["novel"][0][1]


def _novel_estimates(checkpoint: Checkpoint) -> float:
    return min(checkpoint["estimate_novel"])


def _held(checkpoint: Checkpoint) -> float:
    return float(np.mean(checkpoint["held_loss"]))


def _excess(checkpoint: Checkpoint) -> float:
    return _held(checkpoint) - float(np.mean(checkpoint["train_loss"]))


def _best(checkpoint: Checkpoint, part: str = "layer") -> float:
    return checkpoint[part]["accuracy"][checkpoint[part]["peak"]["index"]]


_ENOUGH = 0.95  # share of novel images that a rule by copies is content with

#: Rules: name -> function from the checkpoints of a training, in order, to the index at which to stop, or None.
RULES: dict[str, Callable[[list[Checkpoint]], int | None]] = {
    "score": lambda run: last_while([_novel(c) >= _ENOUGH for c in run]),
    "validation loss": lambda run: int(np.argmin([_held(c) for c in run])),
    "hidden curve unimodal": lambda run: last_while([is_unimodal(c) for c in run]),
    "posterior curve unimodal": lambda run: last_while([is_unimodal(c, "posterior") for c in run]),
    "hidden accuracy": lambda run: int(np.argmax([_best(c) for c in run])),
    "one-step copies": lambda run: last_while([_novel_estimates(c) >= _ENOUGH for c in run]),
}

#: Signs of memory that need no generated image: name -> function of a checkpoint, larger when it generalises.
SIGNS: dict[str, Callable[[Checkpoint], float]] = {
    "height of the hidden peak": height,
    "height of the posterior's peak": lambda c: height(c, "posterior"),
    "best hidden accuracy": _best,
    "best posterior accuracy": lambda c: _best(c, "posterior"),
    "posterior accuracy, highest level": lambda c: c["posterior"]["accuracy"][-1],
    "excess of the held-out loss": lambda c: -_excess(c),
    "held-out loss": lambda c: -_held(c),
    "one-step copies": _novel_estimates,
    "effective dimension, hidden": lambda c: float(np.mean(c["layer"]["dimension"])),
    "effective dimension, posterior": lambda c: float(np.mean(c["posterior"]["dimension"])),
}


def stops(checkpoints: list[Checkpoint]) -> dict[str, int | None]:
    """At which of the ``checkpoints`` of one training each of :data:`RULES` stops; None where a rule never applies.

    'score' generates images: the last checkpoint before less than 95 % of them are new. 'validation loss' is the least
    one on images held out. The unimodal rules, which need labels, stop at the last checkpoint of the first stretch in
    which :func:`is_unimodal`; 'hidden accuracy' at the highest one. 'one-step copies' needs neither labels nor
    generation: the last checkpoint before more than 5 % of the posterior estimates of noisy held-out images, at the
    worst level, are copies.
    """
    return {name: rule(checkpoints) for name, rule in RULES.items()}


def agreement(checkpoints: list[Checkpoint]) -> dict[str, float]:
    """Spearman's rank correlation, over ``checkpoints`` of any trainings, of each of :data:`SIGNS` with the share of
    generated images that are new. Raises ``ValueError`` for fewer than two checkpoints."""
    novel = np.array([_novel(c) for c in checkpoints])
    return {name: float(spearman(np.array([sign(c) for c in checkpoints]), novel)) for name, sign in SIGNS.items()}
