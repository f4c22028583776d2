"""What of an image an estimate retains: power by spatial frequency, and scatter within and between classes."""

from __future__ import annotations

import torch
from torch import Tensor

from repdyn import _checks

__all__ = ["retained_power", "scatter_shares"]


def retained_power(estimates: Tensor, images: Tensor, bands: int = 4) -> Tensor:
    """Power of ``estimates`` over that of ``images``, both (N, C, H, W), in octaves of spatial frequency: (bands,).

    The last band holds the frequencies from half of Nyquist's up, each one before the octave below it, the first all
    that is lower still. The mean over the set is taken off first, so that what is alike in all images does not count. 1
    means that all is retained; more, that the estimates have more of it than the images. float64.

    Raises ``ValueError`` for other shapes, values that are not finite, or a band without power or frequencies.

    Equation: ``eq-retained-power``
    """
    estimates, images = _pair(estimates, images)
    bands = _checks.integer("bands", bands, 1)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64) for size in images.shape[-2:])
    frequency = torch.hypot(rows[:, None], columns[None, :])  # (H, W), in cycles a pixel: Nyquist's is 1/2
    band = (frequency.clamp_min(1e-9).log2().floor() + 2 + bands - 1).clamp(0, bands - 1).long()
    power = []
    for x in (estimates, images):
        spectrum = torch.fft.fft2(x - x.mean(0)).abs().square().mean((0, 1))  # (H, W)
        power.append(torch.zeros(bands, dtype=torch.float64).index_add_(0, band.flatten(), spectrum.flatten()))
    if not (power[1] > 0).all():
        raise ValueError(f"images have no power in some of the {bands} bands: pass fewer bands, or larger images")
    return power[0] / power[1]


def scatter_shares(estimates: Tensor, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Scatter of ``estimates`` over that of ``images``, both (N, *shape): within classes, and between them.

    Within is the mean squared distance to the mean of the own class ``labels`` (N,), between that of the class means
    to the mean of all; the two add up to the variance. 1 means that all is retained.

    Raises ``ValueError`` for other shapes, values that are not finite, one class only, or images without scatter.

    Equation: ``eq-scatter``
    """
    estimates, images = _pair(estimates, images)
    labels = _checks.class_labels(labels, len(images), int(torch.as_tensor(labels).max()) + 1).cpu()
    scatter = []
    for x in (estimates.flatten(1), images.flatten(1)):
        centred = x - x.mean(0)
        means = torch.stack([centred[labels == k].mean(0) for k in labels.unique()])  # (K, D)
        own = means[labels.unique(return_inverse=True)[1]]  # (N, D)
        scatter.append(torch.stack([(centred - own).square().sum(), own.square().sum()]))
    if not (scatter[1] > 0).all():
        raise ValueError("images need scatter within and between at least two classes: there is none to retain")
    return tuple((scatter[0] / scatter[1]).tolist())


def _pair(estimates: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, of one shape and finite."""
    a, b = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (estimates, images))
    if a.shape != b.shape or a.ndim < 2 or not len(a):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"estimates and images must have one shape (N, *shape) with N > 0, got {shapes}")
    if not all(torch.isfinite(x).all() for x in (a, b)):
        raise ValueError("estimates and images must be finite, got NaN or infinity")
    return a, b
