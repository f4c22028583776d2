"""How fast the U-Net trains and is read: ``python benchmarks/networks.py``, one thread, seeded, about five minutes.

Against a plain implementation of the same architecture with the same weights, and against diffusers' UNet2DModel with
as many parameters. Times are those of the processor, the shortest of several rounds in turn.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from theory import row
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from repdyn import presets
from repdyn.denoisers import EDMDenoiser, dae_loss
from repdyn.features import extract
from repdyn.networks.blocks import Block, Conv
from repdyn.networks.unet import UNet, UNetConfig

BATCH, ROUNDS = 32, 5
#: Widths of a UNet2DModel with as many parameters as the preset's network.
WIDTHS = {"fashion-small": (32, 32, 100), "cifar10-small": (32, 32, 136, 136)}
#: Shapes (channels in and out, side) of the 3x3 convolutions among which the best rate is looked for.
CONVOLUTIONS = ((32, 32), (64, 32), (128, 16), (128, 8), (256, 16))


class PlainConv(Conv):
    """Resampling by transposed or strided convolution, then the convolution at full resolution: EDM's order."""

    def forward(self, x: Tensor) -> Tensor:
        if self.resample_filter is not None:
            kernel = self.resample_filter.to(x.dtype).repeat(x.shape[1], 1, 1, 1)
            if self.up:
                x = F.conv_transpose2d(x, 4 * kernel, stride=2, padding=self._filter_padding, groups=x.shape[1])
            else:
                x = F.conv2d(x, kernel, stride=2, padding=self._filter_padding, groups=x.shape[1])
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class PlainBlock(Block):
    """Attention as two products with a softmax in float32 between them, all heads and positions at once."""

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm2(x)).reshape(len(x), x.shape[1], 3, -1).unbind(2)  # (B, C, HW)
        weights = torch.einsum("ncq,nck->nqk", q.float(), k.float() / math.sqrt(x.shape[1])).softmax(2).to(q.dtype)
        return self.proj(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape))


class Diffusers(nn.Module):
    """diffusers' UNet2DModel, called as ours is; resolutions, blocks and attention as in ``config``."""

    def __init__(self, config: UNetConfig, widths: Sequence[int]) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        attended = [config.resolution >> level in config.attn_resolutions for level in range(len(widths))]
        self.model = UNet2DModel(
            sample_size=config.resolution,
            in_channels=config.channels,
            out_channels=config.channels,
            layers_per_block=config.num_blocks,
            block_out_channels=tuple(widths),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
            norm_num_groups=4,  # divides all widths
            attention_head_dim=None,  # one head
        )

    def forward(self, x: Tensor, noise_label: Tensor) -> Tensor:
        return self.model(x, noise_label).sample


def ours(preset: str) -> EDMDenoiser:
    torch.manual_seed(0)
    return EDMDenoiser(UNet(presets.get(preset).network))


def plain(preset: str) -> EDMDenoiser:
    """The same network with the same weights, without what makes ours faster."""
    denoiser = ours(preset)
    for module in denoiser.modules():
        module.__class__ = {Conv: PlainConv, Block: PlainBlock}.get(type(module), type(module))
    return denoiser


def diffusers(preset: str) -> EDMDenoiser:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return EDMDenoiser(Diffusers(presets.get(preset).network, WIDTHS[preset]))


def rows() -> list[dict]:
    """Rows of a training step, of reading features, of stopping early, and of the share of the machine's peak."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = []
        for preset in WIDTHS:
            result += comparison(preset, "bf16") + (
                [comparison(preset, "fp32")[0]] if preset == "fashion-small" else []
            )
            result.append(early_stop(preset))
            result.append(share_of_peak(preset))
        return result
    finally:
        torch.set_num_threads(threads)


def comparison(preset: str, precision: str) -> list[dict]:
    """Training step, then the forward pass, each against the two others; first the check that all do the same."""
    denoisers = [ours(preset), plain(preset), diffusers(preset)]
    parameters = [sum(p.numel() for p in d.parameters()) for d in denoisers]
    if max(parameters) > 1.02 * min(parameters):
        raise ValueError(f"the networks differ in size by more than 2 %: {parameters}")
    lively(denoisers[0]), lively(denoisers[1])
    x, sigma, _ = batch(preset)
    with torch.no_grad():
        torch.testing.assert_close(denoisers[0](x, sigma), denoisers[1](x, sigma), rtol=1e-3, atol=1e-3)
    result = []
    for what, make in (("training step", training_step), ("forward pass", forward_pass)):
        calls = [make(denoiser, preset, precision) for denoiser in denoisers]
        times, flops = in_turn(calls), [flops_of(call) for call in calls]
        for name, other in (("EDM-style", 1), ("diffusers", 2)):
            note = f"batch {BATCH}; {parameters[0] / 1e6:.2f} and {parameters[other] / 1e6:.2f} million parameters, "
            note += f"{flops[0] / 1e9:.1f} and {flops[other] / 1e9:.1f} GFLOP"
            result.append(row(f"{what}, {preset}, {precision}, {name}", times[0], times[other], 1.0, note))
    return result


def lively(denoiser: nn.Module) -> None:
    """Large weights everywhere, so that a comparison of outputs compares every branch."""
    generator = torch.Generator().manual_seed(1)
    for parameter in denoiser.parameters():
        if parameter.ndim > 1:
            scale = parameter[0].numel() ** -0.5
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)


def batch(preset: str) -> tuple[Tensor, Tensor, Tensor]:
    network, generator = presets.get(preset).network, torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, BATCH, network.channels, network.resolution, network.resolution, generator=generator)
    return x, torch.rand(BATCH, generator=generator) + 0.1, noise


def training_step(denoiser: EDMDenoiser, preset: str, precision: str) -> Callable[[], object]:
    x, sigma, noise = batch(preset)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = (denoiser.loss_weight(sigma) * dae_loss(denoiser.train(), x, sigma, noise)).mean() / x[0].numel()
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_pass(denoiser: EDMDenoiser, preset: str, precision: str) -> Callable[[], object]:
    x, sigma, _ = batch(preset)

    @torch.no_grad()
    def forward() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            denoiser.eval()(x, sigma)

    return forward


def early_stop(preset: str) -> dict:
    """Features of the layer in the middle, where the pass stops, against those of the same layer and the output."""
    denoiser, (x, _, _) = ours(preset), batch(preset)
    layer = next(name for name in denoiser.feature_layers() if name.startswith("dec/"))
    least, full = in_turn([lambda: extract(denoiser, x, 0.5, [layer]), lambda: extract(denoiser, x, 0.5)])
    note = f"other: all layers and the output; batch {BATCH}, bf16 where native"
    return row(f"features of {layer} alone, {preset}", least, full, 1.0, note)


def share_of_peak(preset: str) -> dict:
    """A training step against its operations at the best rate that a convolution reaches here, forward and back."""
    call = training_step(ours(preset), preset, "bf16")
    spent, flops = in_turn([call])[0], flops_of(call)
    rates = []
    for channels, side in CONVOLUTIONS:
        layer = nn.Conv2d(channels, channels, 3, padding=1).bfloat16()
        x = torch.randn(BATCH, channels, side, side, dtype=torch.bfloat16, requires_grad=True)
        one = lambda layer=layer, x=x: layer(x).sum().backward()  # noqa: E731
        rates.append(flops_of(one) / in_turn([one])[0])
    note = f"other: {flops / 1e9:.1f} GFLOP at {max(rates) / 1e9:.0f} GFLOP/s, the best of {len(rates)} convolutions, "
    note += f"forward and backward; share reached {flops / max(rates) / spent:.0%}"
    return row(f"training step, {preset}, bf16, share of peak", spent, flops / max(rates), None, note)


def flops_of(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def in_turn(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Shortest processor time of each call; in turn, so that a change of clock or load touches all of them."""
    for call in calls:
        call()
    best = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            start = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - start)
    return best


if __name__ == "__main__":
    for entry in rows():
        print(
            f"{entry['name']:<50} {entry['ours_s']:8.3f} {entry['other_s']:8.3f} {entry['ratio']:6.3f} {entry['note']}"
        )
