"""What a chapter needs to talk to the book and to the regression tests."""

from __future__ import annotations

import base64
import io
import math
from numbers import Integral, Real

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

__all__ = ["digits_of_agreement", "record", "record_figure"]

_PREFIX = "application/papermill.record/"


def record(**scalars: float | int | str) -> None:
    """Record named scalars: the prose shows them, the tests compare them with their baseline.

    Each value is stored in the cell's output in the form that MyST-NB's ``glue`` and papermill's records
    share, so that one number serves the sentence, the regression test and a reader on Colab.

    Raises ``ValueError`` for a value that is not one finite number or a string.
    """
    for name, value in scalars.items():
        data = {_PREFIX + "text/plain": repr(_plain_scalar(name, value))}
        display(data, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": _PREFIX}})


def record_figure(name: str, figure: Figure) -> None:
    """Record a matplotlib figure under ``name``, so that another page of the book can show it too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = {_PREFIX + "image/png": base64.b64encode(buffer.getvalue()).decode()}
    display(data, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": _PREFIX}})


def _plain_scalar(name: str, value: object) -> float | int | str:
    if isinstance(value, str):
        return value
    if hasattr(value, "item"):  # NumPy and PyTorch scalars would render blank in the book
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name}: a recorded value is one finite number or a string, got {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def digits_of_agreement(value: object, reference: object) -> float:
    """Number of decimal digits to which two arrays agree: -log10 of max|value - reference| / max|reference|.

    About 15.5 when they differ by rounding only; 16 at the most, so that exact equality stays finite.

    Raises ``ValueError`` when the shapes differ, something is not finite, or the reference is zero throughout.
    """
    a, b = np.asarray(value, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"value has shape {a.shape}, reference {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("value and reference must be finite")
    scale = np.abs(b).max(initial=0.0)
    if scale == 0.0:
        raise ValueError("reference is zero: relative agreement is undefined")
    return float(min(16.0, -math.log10(max(np.abs(a - b).max() / scale, 1e-16))))
