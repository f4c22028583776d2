"""Networks behind the denoisers."""

from repdyn.networks.mlp import MLPDenoiser
from repdyn.networks.molrg_dae import MoLRGDenoiser
from repdyn.networks.molrg_starts import MoLRGStarts
from repdyn.networks.unet import UNet, UNetConfig

__all__ = ["MLPDenoiser", "MoLRGDenoiser", "MoLRGStarts", "UNet", "UNetConfig"]
