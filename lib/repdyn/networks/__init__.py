"""Networks behind the denoisers."""

from repdyn.networks.unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig"]
