"""Networks behind the denoisers."""

from repdyn.networks.mlp import MLPDenoiser
from repdyn.networks.molrg_dae import MoLRGDenoiser
from repdyn.networks.unet import UNet, UNetConfig

__all__ = ["MLPDenoiser", "MoLRGDenoiser", "UNet", "UNetConfig"]
