"""Networks behind the denoisers."""

from repdyn.networks.mlp import MLP, MLPDenoiser
from repdyn.networks.molrg_dae import MoLRGDenoiser
from repdyn.networks.molrg_starts import MoLRGStarts
from repdyn.networks.unet import UNet, UNetConfig

__all__ = ["MLP", "MLPDenoiser", "MoLRGDenoiser", "MoLRGStarts", "UNet", "UNetConfig"]
