"""The records of Chapter 8: two patches by signal-to-noise ratio, and digits beside noise."""

from __future__ import annotations

from dataclasses import replace

from repdyn.chapters.feature_learning import measure, noisy_digits
from repdyn.chapters.feature_learning.measure import TwoPatchConfig
from repdyn.chapters.feature_learning.noisy_digits import NoisyDigitsConfig
from repdyn.records import Recipe

__all__ = ["RECIPES"]

# Quarters of a decade, over three of them, around the classifier's switch near 2.
_TWO_PATCH = TwoPatchConfig(
    n_snr2=tuple(round(0.1 * 10 ** (k / 4), 4) for k in range(13)), strengths=(0.1, 0.3, 1.0, 5.0), seeds=5
)
_TWO_PATCH_SLICE = replace(_TWO_PATCH, n_snr2=(0.1, 10.0), strengths=(0.1, 5.0), seeds=1)

_NOISY_MNIST = NoisyDigitsConfig(dataset="mnist", pool=2, num_train=2000, num_test=2000, hidden=512)
_NOISY_SLICE = NoisyDigitsConfig(num_train=200, num_test=200, snrs=(1.0,), hidden=64, images=12_800, seeds=1)

RECIPES: tuple[Recipe, ...] = (
    Recipe("two-patch", measure.measure, _TWO_PATCH, _TWO_PATCH_SLICE),
    Recipe("noisy-mnist", noisy_digits.measure, _NOISY_MNIST, _NOISY_SLICE),
)
