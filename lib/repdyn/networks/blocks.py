"""What a U-Net is made of: convolutions that resample, residual blocks, embeddings of the noise label.

Parameter names and shapes are those of EDM's SongUNet (Karras et al., 2022), so that official weights load by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "SKIP_SCALE",
    "ZERO_GAIN",
    "Block",
    "Conv",
    "FourierEmbedding",
    "PositionalEmbedding",
    "group_norm",
    "linear",
]

#: Keeps the variance of a sum of two branches.
SKIP_SCALE = math.sqrt(0.5)
#: Gain of layers that start near zero, so that each block starts near the identity.
ZERO_GAIN = 1e-5
_ATTENTION_GAIN = math.sqrt(0.2)


class Conv(nn.Module):
    """Convolution after an optional resampling by two with a separable filter; ``kernel=0`` resamples only.

    ``filter_last`` convolves at the full resolution and shrinks the result, as NCSN++ does with the input image.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    resample_filter: Tensor  # None, and never read, where nothing is resampled

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
        """(B, in_channels, H, W) to (B, out_channels, H, W), or twice or half that height and width."""
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
        assert self.weight is not None and self.bias is not None, "there is a kernel where this is called"
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
        resampling = partial(Conv, in_channels, out_channels, up=up, down=down, filter_taps=filter_taps)
        self.norm0 = group_norm(in_channels)
        self.conv0 = resampling(3)
        self.affine = linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels)
        self.conv1 = Conv(out_channels, out_channels, 3, gain=ZERO_GAIN)
        needs_projection = in_channels != out_channels or up or down
        self.skip = resampling(1) if needs_projection else None
        self.attention = attention
        if attention:
            self.norm2 = group_norm(out_channels)
            self.qkv = Conv(out_channels, 3 * out_channels, 1, gain=_ATTENTION_GAIN)
            self.proj = Conv(out_channels, out_channels, 1, gain=ZERO_GAIN)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(B, in_channels, H, W) and the embedding (B, emb_channels) to (B, out_channels, H, W), resampled or not."""
        h = self.conv0(F.silu(self.norm0(x)))
        h = F.silu(self.norm1(h + self.affine(emb)[:, :, None, None].to(h.dtype)))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * SKIP_SCALE
        return (self._attend(x) + x) * SKIP_SCALE if self.attention else x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(batch, channels, 3, height * width)  # official layout: q, k, v innermost
        q, k, v = (t.transpose(1, 2).unsqueeze(1) for t in qkv.unbind(2))  # (B, 1, HW, C): one head
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)  # (B, C, HW)
        # Contiguous, or all later layers run in a channels-last layout, in which GroupNorm is many times slower.
        return self.proj(attended.contiguous().reshape(batch, channels, height, width))


class PositionalEmbedding(nn.Module):
    """Sines then cosines of the noise label at geometrically spaced frequencies (DDPM++), (B,) -> (B, C)."""

    freqs: Tensor

    def __init__(self, num_channels: int, max_positions: int = 10_000) -> None:
        super().__init__()
        exponents = torch.arange(num_channels // 2, dtype=torch.float32) / (num_channels // 2 - 1)
        self.register_buffer("freqs", (1 / max_positions) ** exponents, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Noise labels (B,) to (B, num_channels)."""
        angles = x.outer(self.freqs.to(x.dtype))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sines then cosines of the noise label at fixed random frequencies (NCSN++), (B,) -> (B, C)."""

    freqs: Tensor

    def __init__(self, num_channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Noise labels (B,) to (B, num_channels)."""
        angles = x.outer((2 * math.pi * self.freqs).to(x.dtype))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """EDM's: groups of at least four channels, 32 groups at most."""
    groups = min(32, channels // 4)
    while channels % groups:  # widths that EDM's networks do not have
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """A linear layer with EDM's first weights: uniform, of Xavier's variance; biases zero."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    layer.weight.data = _xavier((out_features, in_features), 1.0)
    if bias:
        layer.bias.data.zero_()
    return layer


def _xavier(shape: tuple[int, ...], gain: float) -> Tensor:
    receptive = math.prod(shape[2:])
    bound = math.sqrt(6 / ((shape[0] + shape[1]) * receptive))
    return (torch.rand(shape) * 2 - 1) * bound * gain
