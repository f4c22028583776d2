"""What a measurement of segmentation is told."""

from __future__ import annotations

from dataclasses import dataclass

from repdyn import features
from repdyn.noise import PAPER_SIGMAS

__all__ = ["PixelCurveConfig"]


@dataclass(frozen=True)
class PixelCurveConfig:
    """What is measured: whose features, of which images, at which noise levels, with how few labelled images."""

    weights: str = "fashion-small"
    """Name or file of the denoiser whose features are read."""
    dataset: str = "fashion-mnist-mini"
    """Images, with masks or, by ``threshold``, made into such."""
    threshold: int | None = None
    """For sets without masks: see :func:`repdyn.chapters.segmentation.pixels.masks`."""
    num_labelled: int = 20
    """Training images that are labelled in each repetition; the repetitions share none."""
    num_validation: int = 40
    """Training images that choose the best noise level; they belong to no labelled set."""
    num_test: int | None = None
    """Test images that the score is taken on; None: all that are ``apart``."""
    apart: float | None = None
    """Least difference of a test image from every training image, root mean square in [-1, 1]: a set may hold a
    photograph twice. None: whatever the difference."""
    splits: int = 3
    """Repetitions, each with other labelled images."""
    sigmas: tuple[float, ...] = PAPER_SIGMAS
    """Noise levels at which features are read."""
    noisy_input: bool = False
    """Add noise to the images; without it they are read clean."""
    draws: int = 1
    """Draws of noise that the features of noisy input are averaged over."""
    layers: tuple[str, ...] | None = None
    """Layers that are read; None: :func:`repdyn.chapters.segmentation.pixels.decoder_layers`."""
    pixels_per_image: int | None = None
    """Pixels of each labelled image that train the probe, drawn at random; None: all."""
    hidden: int = 128
    """Width of the probe, a :class:`repdyn.probes.MLPProbe`."""
    max_epochs: int = 20
    """Most epochs of the probe."""
    batch_size: int = 512
    """Pixels of one step of the probe."""
    window: int | None = None
    """Side of raw patches that are probed too; None: none are."""
    untrained: bool = False
    """Draw the weights of the network anew."""
    examples: int = 0
    """Test images, the first ones, whose predicted masks are kept."""
    example_sigmas: tuple[float, ...] = ()
    """Noise levels at which they are kept."""
    seed: int = 0
    """Draws images, pixels, noise, and the weights of an untrained network."""
    precision: str = "float32"
    """Of the network's products while features are read: 'float32' or 'bf16'."""

    def __post_init__(self) -> None:
        features.check_precision(self.precision)
