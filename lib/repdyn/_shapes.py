"""Shapes of U-Nets that presets and records share."""

from __future__ import annotations

from repdyn.networks.unet import UNetConfig

__all__ = ["CIFAR_UNET", "FASHION_UNET"]

FASHION_UNET = UNetConfig(
    resolution=28,
    channels=1,
    model_channels=32,
    channel_mult=(1, 1, 3),
    num_blocks=1,
    attn_resolutions=(7,),
    dropout=0.0,
)
CIFAR_UNET = UNetConfig(
    resolution=32,
    channels=3,
    model_channels=32,
    channel_mult=(1, 1, 4, 4),
    num_blocks=1,
    attn_resolutions=(8,),
    dropout=0.0,
)
