"""A U-Net whose parameter names and shapes are those of EDM's SongUNet, so that official weights load by name.

The architecture is DDPM++ or NCSN++ of Song et al. (2021) in the form of Karras et al. (2022), written anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.networks.blocks import (
    SKIP_SCALE,
    ZERO_GAIN,
    Block,
    Conv,
    FourierEmbedding,
    PositionalEmbedding,
    group_norm,
    linear,
)

__all__ = ["UNet", "UNetConfig"]


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a :class:`UNet`. The defaults are EDM's DDPM++ for 32x32 RGB (55.7 million parameters).

    Raises ``ValueError`` for a variant that is not known and sizes that do not fit.
    """

    resolution: int = 32
    """Side of the square image in pixels, which can be halved once for each resolution after the first. Of an oblong
    image it is the height; it names the layers, and the network takes any size that can be halved as often."""
    channels: int = 3
    """Colour channels of the image."""
    model_channels: int = 128
    """Unit of the widths, a multiple of 4."""
    channel_mult: tuple[int, ...] = (2, 2, 2)
    """Width at each resolution as a multiple of ``model_channels``, from the highest resolution down, each half of the
    one before."""
    num_blocks: int = 4
    """Blocks of the encoder at each resolution; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Resolutions, in pixels, with self-attention: in every block of the encoder and the last one of the decoder. The
    decoder's first block of all has it anyway."""
    dropout: float = 0.13
    """Probability with which an activation inside a block is dropped in training."""
    num_classes: int = 0
    """Classes that the network can be told; 0: it is told none."""
    augment_dim: int = 0
    """Numbers that tell the network of an augmentation; 0: it is told of none."""
    variant: str = "ddpmpp"
    """'ddpmpp' or 'ncsnpp', the two official ones."""

    def __post_init__(self) -> None:
        if self.variant not in ("ddpmpp", "ncsnpp"):
            raise ValueError(f"variant must be 'ddpmpp' or 'ncsnpp', got {self.variant!r}")
        if self.resolution % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(f"resolution {self.resolution} cannot be halved {len(self.channel_mult) - 1} times")
        if self.model_channels % 4:
            raise ValueError(f"model_channels must be a multiple of 4, got {self.model_channels}")

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` for a ``shape`` (C, H, W) of other channels, or sides that cannot be halved so often."""
        times = len(self.channel_mult) - 1
        if len(shape) != 3 or shape[0] != self.channels or any(side % 2**times for side in shape[1:]):
            raise ValueError(
                f"the network takes {self.channels} channels and sides that can be halved {times} times, the data has "
                f"{tuple(shape)}: choose another network or data set"
            )


class UNet(nn.Module):
    """U-Net F(x, noise_label) on square images, the network inside a preconditioned denoiser.

    ``enc`` and ``dec`` are :class:`torch.nn.ModuleDict` s whose keys name resolution and place
    (``16x16_block1``), so that a sweep over layers describes itself.

    Source: Song et al. (2021), DDPM++ and NCSN++; Karras et al. (2022), appendix F.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        ncsnpp = config.variant == "ncsnpp"
        noise_channels = config.model_channels * (2 if ncsnpp else 1)
        emb_channels = config.model_channels * 4
        self.map_noise = (FourierEmbedding if ncsnpp else PositionalEmbedding)(noise_channels)
        self.map_label = linear(config.num_classes, noise_channels) if config.num_classes else None
        self.map_augment = linear(config.augment_dim, noise_channels, bias=False) if config.augment_dim else None
        self.map_layer0 = linear(noise_channels, emb_channels)
        self.map_layer1 = linear(emb_channels, emb_channels)
        block_args = {
            "emb_channels": emb_channels,
            "dropout": config.dropout,
            "filter_taps": (1, 3, 3, 1) if ncsnpp else (1, 1),
        }
        self.enc = _encoder(config, block_args)
        skips = [m for name, m in self.enc.items() if "aux" not in name and isinstance(m, (Conv, Block))]
        self.dec = _decoder(config, block_args, [module.out_channels for module in skips])

    def forward(
        self, x: Tensor, noise_label: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Map images (B, C, H, W) and noise labels (B,) to an image-shaped output (B, C, H, W).

        ``class_labels`` is one-hot (B, num_classes), zero for no class; ``augment_labels`` (B, augment_dim). Either may
        be left out.
        """
        emb = self._embed(noise_label, class_labels, augment_labels)
        skips = self._encode(x, emb)
        x = skips[-1]
        for name, module in self.dec.items():
            if "aux" in name:
                continue
            if x.shape[1] != module.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = module(x, emb)
        side = f"{self.config.resolution}x{self.config.resolution}"
        return self.dec[f"{side}_aux_conv"](F.silu(self.dec[f"{side}_aux_norm"](x)))

    def encode(self, x: Tensor, noise_label: Tensor) -> Tensor:
        """What the encoder makes of images (B, C, H, W): its last activation, (B, width, h, w), and no decoder."""
        return self._encode(x, self._embed(noise_label, None, None))[-1]

    def _encode(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        skips: list[Tensor] = []
        aux = x
        for name, module in self.enc.items():
            if "aux" in name:  # NCSN++: the shrunken input joins every resolution
                x = skips[-1] = aux = (x + module(aux)) * SKIP_SCALE
            else:
                x = module(x, emb) if isinstance(module, Block) else module(x)
                skips.append(x)
        return skips

    def _embed(self, noise_label: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        emb = self.map_noise(noise_label)
        if self.map_label is not None:
            if class_labels is None:
                class_labels = emb.new_zeros(1, self.map_label.in_features)
            emb = emb + self.map_label(class_labels * math.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        blocks = {f"enc/{name}": module for name, module in self.enc.items() if "aux" not in name}
        return blocks | {f"dec/{name}": module for name, module in self.dec.items() if "aux" not in name}


def _encoder(config: UNetConfig, block_args: dict) -> nn.ModuleDict:
    enc = nn.ModuleDict()
    width = config.model_channels
    aux_width = config.channels
    for level, mult in enumerate(config.channel_mult):
        res = config.resolution >> level
        if level == 0:
            enc[f"{res}x{res}_conv"] = Conv(config.channels, width, 3)
        else:
            enc[f"{res}x{res}_down"] = Block(width, width, down=True, **block_args)
            if config.variant == "ncsnpp":
                taps = block_args["filter_taps"]
                enc[f"{res}x{res}_aux_residual"] = Conv(
                    aux_width, width, 3, down=True, filter_taps=taps, filter_last=True
                )
                aux_width = width
        for index in range(config.num_blocks):
            out = config.model_channels * mult
            attention = res in config.attn_resolutions
            enc[f"{res}x{res}_block{index}"] = Block(width, out, attention=attention, **block_args)
            width = out
    return enc


def _decoder(config: UNetConfig, block_args: dict, skip_widths: list[int]) -> nn.ModuleDict:
    dec = nn.ModuleDict()
    width = skip_widths[-1]
    for level, mult in reversed(list(enumerate(config.channel_mult))):
        res = config.resolution >> level
        if level == len(config.channel_mult) - 1:
            dec[f"{res}x{res}_in0"] = Block(width, width, attention=True, **block_args)
            dec[f"{res}x{res}_in1"] = Block(width, width, **block_args)
        else:
            dec[f"{res}x{res}_up"] = Block(width, width, up=True, **block_args)
        for index in range(config.num_blocks + 1):
            out = config.model_channels * mult
            attention = index == config.num_blocks and res in config.attn_resolutions
            dec[f"{res}x{res}_block{index}"] = Block(width + skip_widths.pop(), out, attention=attention, **block_args)
            width = out
    side = f"{config.resolution}x{config.resolution}"
    dec[f"{side}_aux_norm"] = group_norm(width)
    dec[f"{side}_aux_conv"] = Conv(width, config.channels, 3, gain=ZERO_GAIN)
    return dec
