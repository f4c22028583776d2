"""What a measurement of segmentation is told."""

from __future__ import annotations

from dataclasses import dataclass

from repdyn import features
from repdyn.noise import PAPER_SIGMAS

__all__ = ["PixelCurveConfig"]


@dataclass(frozen=True)
class PixelCurveConfig:
    """What is measured: whose features, of which images, at which noise levels, with how few labelled images.

    In each of ``splits`` repetitions ``num_labelled`` other training images are labelled; the repetitions share no
    image, and the ``num_validation`` training images that choose the best noise level belong to none of them. The score
    is taken on ``num_test`` test images (``None``: all), of those that differ from every training image by ``apart`` or
    more, root mean square in [-1, 1]: a set may hold a photograph twice. ``pixels_per_image`` pixels of each labelled
    image, drawn at random (``None``: all), train a :class:`repdyn.probes.MLPProbe` of width ``hidden`` for at most
    ``max_epochs``. ``layers`` defaults to :func:`repdyn.chapters.segmentation.pixels.decoder_layers`; ``noisy_input``
    averages over ``draws`` draws of noise; ``threshold`` is for sets without masks
    (:func:`repdyn.chapters.segmentation.pixels.masks`). With a ``window``, raw patches of that side are probed too. The
    masks predicted for the first ``examples`` test images are kept at ``example_sigmas``. ``precision`` is that of the
    features.
    """

    weights: str = "fashion-small"
    dataset: str = "fashion-mnist-mini"
    threshold: int | None = None
    num_labelled: int = 20
    num_validation: int = 40
    num_test: int | None = None
    apart: float | None = None
    splits: int = 3
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    noisy_input: bool = False
    draws: int = 1
    layers: tuple[str, ...] | None = None
    pixels_per_image: int | None = None
    hidden: int = 128
    max_epochs: int = 20
    batch_size: int = 512
    window: int | None = None
    untrained: bool = False
    examples: int = 0
    example_sigmas: tuple[float, ...] = ()
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        features.check_precision(self.precision)
