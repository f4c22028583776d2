"""The U-Net: names and shapes of EDM's SongUNet, and every ingredient against a definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.networks import UNet, UNetConfig
from repdyn.networks.blocks import SKIP_SCALE, Block, Conv, FourierEmbedding, PositionalEmbedding

# ------------------------------------------------------------------------------------------------ names and shapes


def conv(name: str, out: int, into: int, side: int) -> dict[str, tuple]:
    return {f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)}


def vector_pair(name: str, width: int) -> dict[str, tuple]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name: str, into: int, out: int, emb: int, taps: int = 0, attention: bool = False) -> dict[str, tuple]:
    """State of a SongUNet block; ``taps`` is the length of its resampling filter, 0 for none."""
    state = vector_pair(f"{name}.norm0", into) | conv(f"{name}.conv0", out, into, 3)
    state |= {f"{name}.affine.weight": (out, emb), f"{name}.affine.bias": (out,)}
    state |= vector_pair(f"{name}.norm1", out) | conv(f"{name}.conv1", out, out, 3)
    if taps or into != out:
        state |= conv(f"{name}.skip", out, into, 1)
    if taps:
        state |= {f"{name}.{part}.resample_filter": (1, 1, taps, taps) for part in ("conv0", "skip")}
    if attention:
        state |= vector_pair(f"{name}.norm2", out)
        state |= conv(f"{name}.qkv", 3 * out, out, 1) | conv(f"{name}.proj", out, out, 1)
    return state


def official_state(variant: str, labels: int = 0, augment: int = 0) -> dict[str, tuple]:
    """Names and shapes of the CIFAR-10 networks of EDM, written out: 32, 16, 8 pixels, 256 wide, four blocks each."""
    taps, noise = (2, 128) if variant == "ddpmpp" else (4, 256)
    state: dict[str, tuple] = {} if variant == "ddpmpp" else {"map_noise.freqs": (128,)}
    if labels:
        state |= {"map_label.weight": (noise, labels), "map_label.bias": (noise,)}
    if augment:
        state |= {"map_augment.weight": (noise, augment)}
    state |= {"map_layer0.weight": (512, noise), "map_layer0.bias": (512,)}
    state |= {"map_layer1.weight": (512, 512), "map_layer1.bias": (512,)}

    state |= conv("enc.32x32_conv", 128, 3, 3) | block("enc.32x32_block0", 128, 256, 512)
    for index in (1, 2, 3):
        state |= block(f"enc.32x32_block{index}", 256, 256, 512)
    for side, attention in ((16, True), (8, False)):
        state |= block(f"enc.{side}x{side}_down", 256, 256, 512, taps)
        if variant == "ncsnpp":
            aux = f"enc.{side}x{side}_aux_residual"
            state |= conv(aux, 256, 3 if side == 16 else 256, 3) | {f"{aux}.resample_filter": (1, 1, 4, 4)}
        for index in range(4):
            state |= block(f"enc.{side}x{side}_block{index}", 256, 256, 512, attention=attention)

    state |= block("dec.8x8_in0", 256, 256, 512, attention=True) | block("dec.8x8_in1", 256, 256, 512)
    for side in (8, 16, 32):
        if side > 8:
            state |= block(f"dec.{side}x{side}_up", 256, 256, 512, taps)
        for index in range(5):
            # The last skip of the highest resolution is the first convolution, 128 wide.
            into = 256 + (128 if (side, index) == (32, 4) else 256)
            state |= block(f"dec.{side}x{side}_block{index}", into, 256, 512, attention=(side, index) == (16, 4))
    return state | vector_pair("dec.32x32_aux_norm", 256) | conv("dec.32x32_aux_conv", 3, 256, 3)


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize(("labels", "augment"), [(0, 0), (10, 9)])
def test_names_and_shapes_are_those_of_the_official_networks(variant: str, labels: int, augment: int) -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(variant=variant, num_classes=labels, augment_dim=augment))
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == official_state(variant, labels, augment)


@pytest.mark.parametrize(("variant", "millions", "exact"), [("ddpmpp", 55.7, 55_733_891), ("ncsnpp", 56.4, 56_397_827)])
def test_number_of_parameters_of_the_official_networks(variant: str, millions: float, exact: int) -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(variant=variant, augment_dim=9))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == exact
    assert round(count / 1e6, 1) == millions


def test_resampling_filters_are_the_binomial_ones() -> None:
    box, binomial = (small(variant=v).enc["4x4_down"].conv0.resample_filter[0, 0] for v in ("ddpmpp", "ncsnpp"))
    assert box.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert torch.equal(64 * binomial, torch.tensor([[1.0, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]]))


def test_layers_that_close_a_block_start_near_zero_and_the_others_do_not() -> None:
    network = small()
    first = network.enc["8x8_block0"]
    for weight, gain in ((first.conv0.weight, 1), (first.conv1.weight, 1e-5), (first.qkv.weight, math.sqrt(0.2))):
        fan = (weight.shape[0] + weight.shape[1]) * weight.shape[2] * weight.shape[3]
        assert weight.abs().max().item() == pytest.approx(gain * math.sqrt(6 / fan), rel=0.05)  # the bound of Xavier
    assert all((p == 0).all() for name, p in network.named_parameters() if name.endswith("bias") and "norm" not in name)


# ---------------------------------------------------------------------------------------------- the whole network


def small(**changes: object) -> UNet:
    """Two resolutions, attention at the higher one, weights large enough that every path counts."""
    torch.manual_seed(0)
    fields = {"resolution": 8, "model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}
    return UNet(UNetConfig(**{**fields, "dropout": 0.0, **changes})).eval()


def lively(network: UNet) -> UNet:
    """The same network with all parameters random, so that no branch is near zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / math.sqrt(max(parameter[0].numel(), 9))
    return network


def images(batch: int = 3, channels: int = 3, side: int = 8) -> Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(2))


def slow_forward(network: UNet, x: Tensor, noise_label: Tensor, labels: Tensor, augment: Tensor) -> Tensor:
    """The forward pass of SongUNet, spelled out from parameters, for two resolutions and one block each."""
    state = network.state_dict()

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(1))

    def norm(name: str, v: Tensor) -> Tensor:
        grouped = v.reshape(len(v), min(32, v.shape[1] // 4), -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, correction=0)
        v = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(v.shape)
        return v * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def conv2d(name: str, v: Tensor) -> Tensor:
        if (f := state.get(f"{name}.resample_filter")) is not None:
            v = resample(v, f[0, 0], up="up" in name)
        weight = state[f"{name}.weight"]
        return F.conv2d(v, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def residual(name: str, v: Tensor) -> Tensor:
        h = conv2d(f"{name}.conv0", F.silu(norm(f"{name}.norm0", v)))
        h = h + linear(f"{name}.affine", emb)[:, :, None, None]
        h = conv2d(f"{name}.conv1", F.silu(norm(f"{name}.norm1", h)))
        v = (h + (conv2d(f"{name}.skip", v) if f"{name}.skip.weight" in state else v)) / math.sqrt(2)
        if f"{name}.qkv.weight" in state:
            qkv = conv2d(f"{name}.qkv", norm(f"{name}.norm2", v)).flatten(2).unflatten(1, (v.shape[1], 3))
            q, k, value = qkv.unbind(2)  # (B, C, HW)
            weights = (q.mT @ k / math.sqrt(v.shape[1])).softmax(2)  # (B, query, key)
            v = (conv2d(f"{name}.proj", (value @ weights.mT).reshape(v.shape)) + v) / math.sqrt(2)
        return v

    emb = embedding(network, noise_label)
    emb = emb + linear("map_label", labels * math.sqrt(labels.shape[1])) + linear("map_augment", augment)
    emb = F.silu(linear("map_layer1", F.silu(linear("map_layer0", emb))))
    first = conv2d("enc.8x8_conv", x)
    second = residual("enc.8x8_block0", first)
    third = residual("enc.4x4_down", second)
    if "enc.4x4_aux_residual.weight" in state:
        third = (third + aux_residual(network, x)) / math.sqrt(2)
    fourth = residual("enc.4x4_block0", third)
    h = residual("dec.4x4_in1", residual("dec.4x4_in0", fourth))
    h = residual("dec.4x4_block0", torch.cat([h, fourth], 1))
    h = residual("dec.4x4_block1", torch.cat([h, third], 1))
    h = residual("dec.8x8_up", h)
    h = residual("dec.8x8_block0", torch.cat([h, second], 1))
    h = residual("dec.8x8_block1", torch.cat([h, first], 1))
    return conv2d("dec.8x8_aux_conv", F.silu(norm("dec.8x8_aux_norm", h)))


def embedding(network: UNet, noise_label: Tensor) -> Tensor:
    """Sines, then cosines, of the noise label at the network's frequencies."""
    if network.config.variant == "ncsnpp":
        angles = 2 * math.pi * noise_label[:, None] * network.map_noise.freqs
    else:
        half = network.config.model_channels // 2
        angles = noise_label[:, None] * torch.tensor([10_000 ** (-i / (half - 1)) for i in range(half)])
    return torch.cat([angles.sin(), angles.cos()], 1)


def resample(x: Tensor, f: Tensor, up: bool) -> Tensor:
    """Up: zeros between the pixels, then the filter with gain 4. Down: the filter, then every other pixel."""
    batch, channels, height, width = x.shape
    if up:
        spread = x.new_zeros(batch, channels, 2 * height, 2 * width)
        spread[:, :, ::2, ::2] = 4 * x
        x = spread
    taps = len(f)
    before, after = (taps // 2, taps // 2 - 1) if up else ((taps - 1) // 2, (taps - 1) // 2)
    filtered = F.conv2d(F.pad(x, (before, after) * 2).flatten(0, 1)[:, None], f[None, None])
    filtered = filtered.unflatten(0, (batch, channels))[:, :, 0]
    return filtered if up else filtered[:, :, ::2, ::2]


def aux_residual(network: UNet, x: Tensor) -> Tensor:
    """EDM's order for the input branch of NCSN++: convolve at full resolution, then filter, with one common padding."""
    module = network.enc["4x4_aux_residual"]
    x = F.conv2d(F.pad(x, (2, 2, 2, 2)), module.weight, module.bias)
    filtered = F.conv2d(x.flatten(0, 1)[:, None], module.resample_filter)[:, 0].unflatten(0, (len(x), -1))
    return filtered[:, :, ::2, ::2]


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp"])
@torch.no_grad()
def test_forward_pass_spelled_out(variant: str) -> None:
    network = lively(small(variant=variant, num_classes=4, augment_dim=2))
    noise_label, labels = torch.tensor([-1.5, 0.1, 0.7]), torch.eye(4)[[0, 3, 1]]
    augment = torch.tensor([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]])
    output = network(images(), noise_label, labels, augment)
    expected = slow_forward(network, images(), noise_label, labels, augment)
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_no_class_is_the_zero_vector_as_in_edm() -> None:
    network, label = lively(small(num_classes=4)), torch.zeros(3)
    torch.testing.assert_close(network(images(), label), network(images(), label, torch.zeros(3, 4)))
    assert not torch.allclose(network(images(), label), network(images(), label, torch.eye(4)[:3]), atol=1e-3)


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize(("side", "channels", "mult"), [(8, 3, (1, 2)), (28, 1, (1, 1, 2)), (6, 2, (1,))])
@torch.no_grad()
def test_output_has_the_shape_of_the_input(variant: str, side: int, channels: int, mult: tuple) -> None:
    network = lively(small(variant=variant, resolution=side, channels=channels, channel_mult=mult, attn_resolutions=()))
    x = images(2, channels, side)
    output = network(x, torch.zeros(2))
    assert output.shape == x.shape
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp"])
@torch.no_grad()
def test_an_image_does_not_see_the_others_of_its_batch(variant: str) -> None:
    network, label = lively(small(variant=variant)), torch.tensor([-1.0, 0.0, 1.0])
    together = network(images(), label)
    alone = torch.cat([network(images()[i : i + 1], label[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@torch.no_grad()
def test_the_noise_label_matters() -> None:
    network = lively(small())
    assert not torch.allclose(network(images(), torch.zeros(3)), network(images(), torch.ones(3)), atol=1e-2)


def test_every_parameter_gets_a_gradient() -> None:
    network = lively(small(variant="ncsnpp", num_classes=4, augment_dim=2))
    network(images(), torch.zeros(3), torch.eye(4)[:3], torch.ones(3, 2)).square().sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A key's bias adds the same to all scores of a query, so softmax cancels it: part of a vector, never all of it.
    assert dead == []


def test_dropout_acts_in_training_only() -> None:
    network, label = lively(small(dropout=0.5)), torch.zeros(3)
    assert torch.equal(network(images(), label), network(images(), label))
    network.train()
    assert not torch.allclose(network(images(), label), network(images(), label), atol=1e-3)


def test_feature_layers_are_the_blocks_in_order() -> None:
    assert list(small(variant="ncsnpp").feature_layers()) == [
        "enc/8x8_conv", "enc/8x8_block0", "enc/4x4_down", "enc/4x4_block0",
        "dec/4x4_in0", "dec/4x4_in1", "dec/4x4_block0", "dec/4x4_block1",
        "dec/8x8_up", "dec/8x8_block0", "dec/8x8_block1",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the pieces


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("up", [True, False])
def test_resampling_is_zero_insertion_or_decimation_around_a_filter(taps: tuple, up: bool) -> None:
    layer, x = Conv(3, 3, 0, up=up, down=not up, filter_taps=taps), images()
    torch.testing.assert_close(layer(x), resample(x, layer.resample_filter[0, 0], up))
    assert list(layer.state_dict()) == ["resample_filter"]


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_as_strided_and_transposed_convolutions(taps: tuple) -> None:
    x, padding = images(), (len(taps) - 1) // 2
    for up, function, gain in ((True, F.conv_transpose2d, 4), (False, F.conv2d, 1)):
        layer = Conv(3, 3, 0, up=up, down=not up, filter_taps=taps)
        kernel = gain * layer.resample_filter.repeat(3, 1, 1, 1)
        torch.testing.assert_close(layer(x), function(x, kernel, stride=2, padding=padding, groups=3))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_keeps_the_mean_of_a_constant_image(taps: tuple) -> None:
    constant = torch.full((1, 2, 8, 8), 3.0)
    for up in (True, False):
        inside = Conv(2, 2, 0, up=up, down=not up, filter_taps=taps)(constant)[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(inside, torch.full_like(inside, 3.0))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_upsample_then_convolve_in_whatever_order_is_faster(kernel: int, taps: tuple) -> None:
    torch.manual_seed(0)
    layer = Conv(3, 5, kernel, up=True, filter_taps=taps)
    layer.bias.data.normal_()
    upsampled = resample(images(), layer.resample_filter[0, 0], up=True)
    expected = F.conv2d(upsampled, layer.weight, layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(images()), expected)


def test_pointwise_convolution_as_a_matrix_product() -> None:
    torch.manual_seed(0)
    layer = Conv(3, 5, 1)
    layer.bias.data.normal_()
    torch.testing.assert_close(layer(images()), F.conv2d(images(), layer.weight, layer.bias))
    backward = torch.autograd.grad(layer(images()).square().sum(), layer.weight)[0]
    expected = torch.autograd.grad(F.conv2d(images(), layer.weight, layer.bias).square().sum(), layer.weight)[0]
    torch.testing.assert_close(backward, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    layer = Block(8, 8, 4, attention=True)
    layer.proj = nn.Identity()
    layer.conv1.weight.zero_()  # the residual branch: what attends is the scaled input
    x = SKIP_SCALE * images(2, 8, 3)
    qkv = F.conv2d(layer.norm2(x), layer.qkv.weight, layer.qkv.bias).reshape(2, 8, 3, 9).double()  # (B, C, qkv, HW)
    expected = torch.empty(2, 8, 9, dtype=torch.float64)
    for image in range(2):
        for here in range(9):
            query = qkv[image, :, 0, here]
            scores = [math.exp(query @ qkv[image, :, 1, there] / math.sqrt(8)) for there in range(9)]
            values = sum(score * qkv[image, :, 2, there] for there, score in enumerate(scores))
            expected[image, :, here] = values / sum(scores)
    attended = layer(images(2, 8, 3), torch.zeros(2, 4)) / SKIP_SCALE - x
    torch.testing.assert_close(attended.double(), expected.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_positional_embedding_by_formula() -> None:
    expected = [
        [math.sin(t * 10_000 ** (-i / 3)) for i in range(4)] + [math.cos(t * 10_000 ** (-i / 3)) for i in range(4)]
        for t in (-0.3, 2.0)
    ]
    torch.testing.assert_close(PositionalEmbedding(8)(torch.tensor([-0.3, 2.0])), torch.tensor(expected))


def test_fourier_embedding_by_formula() -> None:
    torch.manual_seed(0)
    layer = FourierEmbedding(2000)
    assert layer.freqs.std().item() == pytest.approx(16, rel=0.1)
    angles = (2 * math.pi * layer.freqs.double() * 0.25).float()
    torch.testing.assert_close(
        layer(torch.tensor([0.25]))[0], torch.cat([angles.sin(), angles.cos()]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("field", "value"), [("variant", "adm"), ("resolution", 30), ("model_channels", 30)])
def test_a_configuration_that_makes_no_network_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        UNetConfig(**{field: value})
