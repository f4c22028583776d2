"""A U-Net whose parameter names and shapes are those of EDM's SongUNet, so that official weights load by name.

The architecture is DDPM++ or NCSN++ of Song et al. (2021) in the form of Karras et al. (2022), written anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UNet", "UNetConfig"]

_SKIP_SCALE = math.sqrt(0.5)  # keeps the variance of a sum of two branches
_ATTENTION_GAIN = math.sqrt(0.2)
_ZERO_GAIN = 1e-5  # layers that start near zero, so that each block starts near the identity


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a :class:`UNet`. The defaults are EDM's DDPM++ for 32x32 RGB (55.7 million parameters).

    ``resolution`` is the side of the square image in pixels (of an oblong one its height; it names the layers, and the
    network takes any size that can be halved as often), ``channels`` its colour channels; ``channel_mult`` gives the
    width at each resolution as a multiple of ``model_channels``; blocks at a resolution in ``attn_resolutions`` have
    self-attention. ``ddpmpp`` and ``ncsnpp`` are the two official variants.
    """

    resolution: int = 32
    channels: int = 3
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (2, 2, 2)
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.13
    num_classes: int = 0
    augment_dim: int = 0
    variant: str = "ddpmpp"

    def __post_init__(self) -> None:
        if self.variant not in ("ddpmpp", "ncsnpp"):
            raise ValueError(f"variant must be 'ddpmpp' or 'ncsnpp', got {self.variant!r}")
        if self.resolution % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(f"resolution {self.resolution} cannot be halved {len(self.channel_mult) - 1} times")
        if self.model_channels % 4:
            raise ValueError(f"model_channels must be a multiple of 4, got {self.model_channels}")


class Conv(nn.Module):
    """Convolution after an optional resampling by two with a separable filter; ``kernel=0`` resamples only.

    ``filter_last`` convolves at the full resolution and shrinks the result, as NCSN++ does with the input image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        filter_taps: Sequence[float] = (1, 1),
        filter_last: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.up, self.down, self.filter_last = up, down, filter_last
        self.weight = self.bias = None
        if kernel:
            self.weight = nn.Parameter(_xavier((out_channels, in_channels, kernel, kernel), gain))
            self.bias = nn.Parameter(torch.zeros(out_channels))
        taps = torch.as_tensor(filter_taps, dtype=torch.float32)
        resample_filter = (taps.outer(taps) / taps.sum() ** 2)[None, None] if up or down else None
        self.register_buffer("resample_filter", resample_filter)

    def forward(self, x: Tensor) -> Tensor:
        pointwise = self.weight is not None and self.weight.shape[-1] == 1
        if pointwise and self.up and self.resample_filter.shape[-1] == 2:
            return self._upsample(self._convolve(x))  # the two commute, and this order costs a quarter
        if self.filter_last:  # padded for both at once
            return self._downsample(self._convolve(x, self._filter_padding), padding=0)
        if self.up:
            x = self._upsample(x)
        elif self.down:
            x = self._downsample(x)
        return x if self.weight is None else self._convolve(x)

    @property
    def _filter_padding(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _convolve(self, x: Tensor, extra_padding: int = 0) -> Tensor:
        if self.weight.shape[-1] > 1:
            return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2 + extra_padding)
        # A pointwise convolution is a matrix product, and as such several times faster on a CPU in bf16.
        weight = self.weight.flatten(1).expand(x.shape[0], -1, -1)  # (B, out, in)
        return torch.baddbmm(self.bias[None, :, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])

    def _upsample(self, x: Tensor) -> Tensor:
        taps = self.resample_filter.shape[-1]
        if taps == 2:  # the box filter: nearest neighbour, many times faster than the transposed convolution
            return F.interpolate(x, scale_factor=2, mode="nearest")
        kernel = (4 * self.resample_filter).to(x.dtype).expand(x.shape[1], 1, taps, taps)
        return F.conv_transpose2d(x, kernel, stride=2, padding=self._filter_padding, groups=x.shape[1])

    def _downsample(self, x: Tensor, padding: int | None = None) -> Tensor:
        taps = self.resample_filter.shape[-1]
        if taps == 2:
            return F.avg_pool2d(x, 2)
        kernel = self.resample_filter.to(x.dtype).expand(x.shape[1], 1, taps, taps)
        padding = self._filter_padding if padding is None else padding
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])


class Block(nn.Module):
    """Residual block of two convolutions, the noise embedding added between them; self-attention on request."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
        dropout: float = 0.0,
        filter_taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.dropout = dropout
        resample = {"up": up, "down": down, "filter_taps": filter_taps}
        self.norm0 = _group_norm(in_channels)
        self.conv0 = Conv(in_channels, out_channels, 3, **resample)
        self.affine = _linear(emb_channels, out_channels)
        self.norm1 = _group_norm(out_channels)
        self.conv1 = Conv(out_channels, out_channels, 3, gain=_ZERO_GAIN)
        needs_projection = in_channels != out_channels or up or down
        self.skip = Conv(in_channels, out_channels, 1, **resample) if needs_projection else None
        self.attention = attention
        if attention:
            self.norm2 = _group_norm(out_channels)
            self.qkv = Conv(out_channels, 3 * out_channels, 1, gain=_ATTENTION_GAIN)
            self.proj = Conv(out_channels, out_channels, 1, gain=_ZERO_GAIN)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h + self.affine(emb)[:, :, None, None].to(h.dtype)))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * _SKIP_SCALE
        return (self._attend(x) + x) * _SKIP_SCALE if self.attention else x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(batch, channels, 3, height * width)  # official layout: q, k, v innermost
        q, k, v = (t.transpose(1, 2).unsqueeze(1) for t in qkv.unbind(2))  # (B, 1, HW, C): one head
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)  # (B, C, HW)
        # Contiguous, or all later layers run in a channels-last layout, in which GroupNorm is many times slower.
        return self.proj(attended.contiguous().reshape(batch, channels, height, width))


class PositionalEmbedding(nn.Module):
    """Sines then cosines of the noise label at geometrically spaced frequencies (DDPM++), (B,) -> (B, C)."""

    def __init__(self, num_channels: int, max_positions: int = 10_000) -> None:
        super().__init__()
        exponents = torch.arange(num_channels // 2, dtype=torch.float32) / (num_channels // 2 - 1)
        self.register_buffer("freqs", (1 / max_positions) ** exponents, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angles = x.outer(self.freqs.to(x.dtype))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sines then cosines of the noise label at fixed random frequencies (NCSN++), (B,) -> (B, C)."""

    def __init__(self, num_channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, x: Tensor) -> Tensor:
        angles = x.outer((2 * math.pi * self.freqs).to(x.dtype))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


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
        self.map_label = _linear(config.num_classes, noise_channels) if config.num_classes else None
        self.map_augment = _linear(config.augment_dim, noise_channels, bias=False) if config.augment_dim else None
        self.map_layer0 = _linear(noise_channels, emb_channels)
        self.map_layer1 = _linear(emb_channels, emb_channels)
        block_args = {
            "emb_channels": emb_channels,
            "dropout": config.dropout,
            "filter_taps": (1, 3, 3, 1) if ncsnpp else (1, 1),
        }
        self.enc = _encoder(config, block_args)
        self.dec = _decoder(config, block_args, [m.out_channels for k, m in self.enc.items() if "aux" not in k])

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
        skips, aux = [], x
        for name, module in self.enc.items():
            if "aux" in name:  # NCSN++: the shrunken input joins every resolution
                x = skips[-1] = aux = (x + module(aux)) * _SKIP_SCALE
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
    dec[f"{side}_aux_norm"] = _group_norm(width)
    dec[f"{side}_aux_conv"] = Conv(width, config.channels, 3, gain=_ZERO_GAIN)
    return dec


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def _linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias)
    layer.weight.data = _xavier((out_features, in_features), 1.0)
    if bias:
        layer.bias.data.zero_()
    return layer


def _xavier(shape: tuple[int, ...], gain: float) -> Tensor:
    receptive = math.prod(shape[2:])
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * receptive))
    return (torch.rand(shape) * 2 - 1) * bound * gain
