"""Features: the activations of a manual forward pass, read in one pass that stops where nothing more is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.datasets import load
from repdyn.denoisers import EDMDenoiser
from repdyn.features import POSTERIOR, extract, layers, supports_bf16
from repdyn.images import to_unit_range
from repdyn.training import TrainConfig, make_denoiser

SIGMA = 0.3


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load("digits", "test").images[:10]


@torch.no_grad()
def manual(denoiser: EDMDenoiser, x: Tensor) -> dict[str, Tensor]:
    """Activations of every layer, (N, C, H, W), by calling the layers one after the other."""
    network, total = denoiser.model.eval(), SIGMA**2 + 0.25
    emb = network.map_noise(torch.full((len(x),), SIGMA).log() / 4)
    emb = F.silu(network.map_layer1(F.silu(network.map_layer0(emb))))
    h = network.enc["8x8_conv"](x / total**0.5)
    found, skips = {"enc/8x8_conv": h}, [h]
    for name in ("8x8_block0", "4x4_down", "4x4_block0"):
        h = found[f"enc/{name}"] = network.enc[name](h, emb)
        skips.append(h)
    for name in ("4x4_in0", "4x4_in1", "4x4_block0", "4x4_block1", "8x8_up", "8x8_block0", "8x8_block1"):
        h = torch.cat([h, skips.pop()], 1) if "block" in name else h
        h = found[f"dec/{name}"] = network.dec[name](h, emb)
    output = network.dec["8x8_aux_conv"](F.silu(network.dec["8x8_aux_norm"](h)))
    return found | {POSTERIOR: 0.25 / total * x + SIGMA * 0.5 / total**0.5 * output}


def test_layers_are_named_in_order(denoiser: EDMDenoiser, images: Tensor) -> None:
    assert layers(denoiser) == list(manual(denoiser, to_unit_range(images)))
    with pytest.raises(ValueError, match="feature_layers"):
        layers(nn.Identity())


@pytest.mark.parametrize("pool", ["mean", "none", "maps"])
def test_values_are_those_of_a_manual_forward_pass(denoiser: EDMDenoiser, images: Tensor, pool: str) -> None:
    expected = manual(denoiser, to_unit_range(images))
    found = extract(denoiser, images, SIGMA, pool=pool, batch_size=4)
    assert list(found) == list(expected)
    for name, value in expected.items():
        if pool != "maps":
            value = value.mean((2, 3)) if pool == "mean" and name != POSTERIOR else value.flatten(1)
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        assert value.std(0).mean() > 1e-3, "the images do not differ in this layer"


def test_float_images_are_taken_as_they_are(denoiser: EDMDenoiser, images: Tensor) -> None:
    asked = ["enc/8x8_block0"]
    as_bytes = extract(denoiser, images, SIGMA, asked)
    as_floats = extract(denoiser, to_unit_range(images).double(), SIGMA, asked)
    assert torch.equal(as_bytes[asked[0]], as_floats[asked[0]])


def test_the_order_asked_for_is_the_order_returned(denoiser: EDMDenoiser, images: Tensor) -> None:
    asked = [POSTERIOR, "dec/4x4_in1", "enc/8x8_conv", "dec/4x4_in1"]
    found = extract(denoiser, images, SIGMA, asked)
    assert list(found) == [POSTERIOR, "dec/4x4_in1", "enc/8x8_conv"]
    assert all(len(value) == len(images) for value in found.values())


def count_calls(denoiser: EDMDenoiser) -> dict[str, int]:
    calls = dict.fromkeys(denoiser.feature_layers(), 0)

    def counter(name: str):
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    for name, module in denoiser.feature_layers().items():
        module.register_forward_pre_hook(counter(name))
    return calls


def test_the_pass_stops_at_the_deepest_layer(denoiser: EDMDenoiser, images: Tensor) -> None:
    calls = count_calls(denoiser)
    extract(denoiser, images, SIGMA, ["dec/4x4_in0", "enc/8x8_conv"], batch_size=5)
    names = list(calls)
    deepest = names.index("dec/4x4_in0")
    assert [calls[name] for name in names] == [2] * (deepest + 1) + [0] * (len(names) - deepest - 1)


def test_all_layers_are_read_in_one_pass(denoiser: EDMDenoiser, images: Tensor) -> None:
    calls = count_calls(denoiser)
    extract(denoiser, images, SIGMA)
    assert set(calls.values()) == {1}


def test_the_size_of_a_batch_does_not_matter(denoiser: EDMDenoiser, images: Tensor) -> None:
    for noisy in (False, True):
        whole, parts = (extract(denoiser, images, SIGMA, noisy_input=noisy, batch_size=b) for b in (10, 3))
        for name in whole:
            torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-5)


def test_noise_has_the_level_asked_for_and_draws_are_averaged(images: Tensor) -> None:
    class Echo(nn.Module):
        """A denoiser without weights that returns its input."""

        def feature_layers(self) -> dict[str, nn.Module]:
            return {}

        def forward(self, x: Tensor, sigma: float) -> Tensor:
            return x

    clean = to_unit_range(images).flatten(1)
    assert torch.equal(extract(Echo(), images, 0.5)[POSTERIOR], clean)
    for draws in (1, 25):
        noise = extract(Echo(), images, 0.5, noisy_input=True, draws=draws)[POSTERIOR] - clean
        assert noise.std().item() == pytest.approx(0.5 / draws**0.5, rel=0.1)
        assert abs(noise.mean().item()) < 0.1 / draws**0.5
        assert len(noise.unique(dim=0)) == 10, "images share their noise"


def test_several_draws_are_the_mean_of_features_not_the_feature_of_the_mean(
    denoiser: EDMDenoiser, images: Tensor
) -> None:
    asked = ["dec/4x4_in1"]
    averaged = extract(denoiser, images, SIGMA, asked, noisy_input=True, draws=3, seed=5)[asked[0]]
    single = []
    for draw in range(3):
        noise = np.random.default_rng([5, draw]).standard_normal(images.shape, dtype=np.float32)
        noisy = to_unit_range(images) + SIGMA * torch.from_numpy(noise)
        single.append(extract(denoiser, noisy, SIGMA, asked)[asked[0]])
    torch.testing.assert_close(averaged, torch.stack(single).mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(single[0], single[1], atol=1e-3)


def test_noise_depends_on_the_seed_alone(denoiser: EDMDenoiser, images: Tensor) -> None:
    def read(seed: int) -> Tensor:
        return extract(denoiser, images, SIGMA, [POSTERIOR], noisy_input=True, seed=seed)[POSTERIOR]

    first = read(1)
    torch.rand(7)
    assert torch.equal(first, read(1))
    assert not torch.allclose(first, read(2), atol=1e-2)


def test_bf16_is_close(tiny: TrainConfig, images: Tensor) -> None:
    denoiser = make_denoiser(replace(tiny, network=replace(tiny.network, model_channels=16)))
    exact, rounded = (extract(denoiser, images, SIGMA, precision=p) for p in ("float32", "bf16"))
    assert all(value.dtype == torch.float32 for value in rounded.values())
    for name in exact:
        error = (rounded[name] - exact[name]).norm() / exact[name].norm()
        assert error < 0.02, name
    assert not torch.equal(exact["enc/8x8_conv"], rounded["enc/8x8_conv"])


def test_precision_is_what_was_asked_for_whatever_the_machine(
    denoiser: EDMDenoiser, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(**options: str) -> Tensor:
        return extract(denoiser, images, SIGMA, [POSTERIOR], **options)[POSTERIOR]

    exact, rounded = read(), read(precision="bf16")
    monkeypatch.setattr("repdyn.features.supports_bf16", lambda _: True)
    assert torch.equal(read(), exact) and not torch.equal(exact, rounded)
    monkeypatch.setattr("repdyn.features.supports_bf16", lambda _: False)
    assert torch.equal(read(precision="bf16"), rounded)


def test_bf16_support_is_a_plain_answer() -> None:
    assert supports_bf16("cpu") in (True, False)
    assert supports_bf16(torch.device("cpu")) is supports_bf16("cpu")


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_hooks_are_as_before(denoiser: EDMDenoiser, images: Tensor, training: bool) -> None:
    denoiser.train(training)
    denoiser.model.enc["8x8_block0"].dropout = 0.9  # evaluation mode has none of it
    first, second = (extract(denoiser, images, SIGMA, ["enc/4x4_down"])["enc/4x4_down"] for _ in range(2))
    assert torch.equal(first, second)
    assert denoiser.training is training and denoiser.model.enc["8x8_block0"].training is training
    assert not any(module._forward_hooks for module in denoiser.modules())


def test_mode_and_hooks_are_as_before_even_after_an_error(denoiser: EDMDenoiser, images: Tensor) -> None:
    def fail(*_: object) -> None:
        raise KeyError("from inside")

    handle = denoiser.model.enc["4x4_down"].register_forward_pre_hook(fail)
    denoiser.train()
    with pytest.raises(KeyError, match="from inside"):
        extract(denoiser, images, SIGMA)
    assert denoiser.training
    assert not any(module._forward_hooks for module in denoiser.modules())
    handle.remove()
    extract(denoiser, images, SIGMA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ["enc/99x99_conv"]}, "unknown layer .*enc/99x99_conv.*enc/8x8_conv"),
        ({"layers": []}, "unknown layer"),
        ({"pool": "max"}, "pool"),
        ({"images": torch.zeros(8, 8, 8)}, "images must have shape"),
        ({"images": torch.zeros(8, 8, dtype=torch.uint8)}, "images must have shape"),
        ({"images": torch.zeros(0, 1, 8, 8)}, "images.* N > 0"),
        ({"images": torch.full((1, 1, 8, 8), float("nan"))}, "images hold NaN"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"noisy_input": True, "draws": 0}, "draws"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_what_cannot_be_read_is_refused(denoiser: EDMDenoiser, images: Tensor, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(denoiser, **{"images": images, "sigma": SIGMA, **changes})
