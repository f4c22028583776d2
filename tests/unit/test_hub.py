"""Models of the hub: tiny random ones, saved by diffusers and transformers themselves, read without a network."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repdyn import features, pretrained
from repdyn.chapters.ensembles.measure import EnsembleConfig, ProbeTask, measure_network

MISSING = [name for name in ("diffusers", "transformers") if find_spec(name) is None]
needs_hub = pytest.mark.skipif(
    bool(MISSING), reason=f"NOT TESTED: no {' and no '.join(MISSING)} here; pip install repdyn[pretrained]"
)


@pytest.fixture(autouse=True)
def same_weights_in_every_run() -> None:
    torch.manual_seed(0)


def randomised(model: nn.Module) -> nn.Module:
    """All parameters random: some layers of these models begin at zero, and would hide what is before them."""
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture
def ddpm(tmp_path: Path) -> Path:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    DDPMPipeline(randomised(unet), DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


@pytest.fixture
def dit(tmp_path: Path) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        sample_size=8,
        num_embeds_ada_norm=5,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    DiTPipeline(randomised(transformer), randomised(vae), DDIMScheduler()).save_pretrained(tmp_path / "dit")
    return tmp_path / "dit"


MEAN, STD = (torch.tensor(rgb)[:, None, None] for rgb in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # ImageNet's
VIT = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
VIT |= {"image_size": 16, "patch_size": 4}


@pytest.fixture
def mae(tmp_path: Path) -> Path:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {f"decoder_{key}": VIT[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size")}
    config = ViTMAEConfig(**VIT, **decoder, decoder_num_hidden_layers=1)
    randomised(ViTMAEForPreTraining(config)).save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def images(channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(2))


# ------------------------------------------------------------------------------------------------------------ DDPM


@needs_hub
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@torch.no_grad()
def test_ddpm_estimates_what_its_scheduler_does(ddpm: Path, kind: str) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    edit(ddpm / "scheduler" / "scheduler_config.json", prediction_type=kind, clip_sample=False)
    unet, scheduler = UNet2DModel.from_pretrained(ddpm / "unet"), DDPMScheduler.from_pretrained(ddpm / "scheduler")
    denoiser = pretrained.load_ddpm(ddpm)
    for step in (0, 400, 999):
        abar = scheduler.alphas_cumprod[step].double()
        sigma = ((1 - abar) / abar).sqrt().item()
        expected = scheduler.step(unet(images(), step).sample, step, images()).pred_original_sample
        estimate = denoiser(images() / abar.sqrt().float(), sigma)
        torch.testing.assert_close(estimate, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())


@needs_hub
def test_ddpm_features_are_those_of_its_layers(ddpm: Path) -> None:
    denoiser = pretrained.load_ddpm(str(ddpm))
    names = features.layers(denoiser)
    assert names == [
        "enc/16x16_conv", "enc/16x16_block0", "enc/8x8_down", "enc/8x8_block0", "mid/8x8_block0", "mid/8x8_block1",
        "dec/8x8_block0", "dec/8x8_block1", "dec/16x16_up", "dec/16x16_block0", "dec/16x16_block1", "posterior",
    ]  # fmt: skip
    seen = []
    handles = [
        module.register_forward_hook(lambda _m, _i, _o, name=name: seen.append(name))
        for name, module in denoiser.feature_layers().items()
    ]
    found = features.extract(denoiser, images(), 0.5)
    assert seen == names[:-1]  # listed in the order of the forward pass, each of them once
    for handle in handles:
        handle.remove()
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: (3, 768 if name == "posterior" else 8 if "16x16" in name and "up" not in name or "down" in name else 16)
        for name in names
    }
    whole = features.extract(denoiser, images(), 0.5, ["enc/8x8_block0"], pool="none")["enc/8x8_block0"]
    torch.testing.assert_close(whole.reshape(3, 16, 64).mean(2), found["enc/8x8_block0"])


@needs_hub
@pytest.mark.parametrize(("size", "name"), [([16, 8], "enc/8x4_block0"), (None, "enc/level1_block0")])
def test_ddpm_layers_are_named_for_any_size(ddpm: Path, size: object, name: str) -> None:
    edit(ddpm / "unet" / "config.json", sample_size=size)
    assert name in features.layers(pretrained.load_ddpm(ddpm))


@needs_hub
@torch.no_grad()
def test_ddpm_of_an_older_repository_lies_in_one_folder(ddpm: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(ddpm / "unet", flat)
    shutil.copy(ddpm / "scheduler" / "scheduler_config.json", flat)
    torch.testing.assert_close(pretrained.load_ddpm(flat)(images(), 0.5), pretrained.load_ddpm(ddpm)(images(), 0.5))


@needs_hub
def test_ddpm_refuses_what_is_none(ddpm: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    with pytest.raises(ValueError, match="nothing-here .*UNet2DModel"):
        pretrained.load_ddpm(tmp_path / "nothing-here")
    scheduler = ddpm / "scheduler" / "scheduler_config.json"
    edit(scheduler, _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ValueError, match="ddpm .*FlowMatchEuler"):
        pretrained.load_ddpm(ddpm)
    edit(scheduler, _class_name="DDPMScheduler")
    config = UNet2DModel.load_config(ddpm / "unet") | {"time_embedding_type": "fourier"}
    UNet2DModel.from_config(config).save_pretrained(ddpm / "unet")
    with pytest.raises(ValueError, match="ddpm .*time step"):
        pretrained.load_ddpm(ddpm)


@needs_hub
def test_missing_and_damaged_weights_are_refused(ddpm: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = ddpm / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "conv_in.bias"}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="conv_in.bias"):
        pretrained.load_ddpm(ddpm)
    save_file(tensors, weights, {"format": "pt"})
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ddpm .*UNet2DModel"):
        pretrained.load_ddpm(ddpm)


# ------------------------------------------------------------------------------------------------------------- DiT


@needs_hub
@torch.no_grad()
def test_dit_estimates_what_its_scheduler_does(dit: Path) -> None:
    from diffusers import DDPMScheduler, DiTTransformer2DModel

    transformer = DiTTransformer2DModel.from_pretrained(dit / "transformer").eval()
    scheduler = DDPMScheduler.from_pretrained(dit / "scheduler", clip_sample=False)
    denoiser, x, step = pretrained.load_dit(dit), images(4, 8), 300
    abar = scheduler.alphas_cumprod[step]
    sigma = ((1 - abar) / abar).sqrt().item()
    for label, conditions in ((5, {}), (2, {"class_labels": torch.full((3,), 2)})):  # 5: the null class
        output = transformer(x, torch.full((3,), step), torch.full((3,), label)).sample[:, :4]
        expected = scheduler.step(output, step, x).pred_original_sample
        torch.testing.assert_close(denoiser(x / abar.sqrt(), sigma, **conditions), expected, rtol=1e-3, atol=1e-3)


@needs_hub
@torch.no_grad()
def test_dit_features_are_means_of_tokens(dit: Path) -> None:
    from diffusers import DiTTransformer2DModel

    denoiser, x = pretrained.load_dit(dit), images(4, 8)
    assert features.layers(denoiser) == ["block0", "block1", "block2", "posterior"]
    found = features.extract(denoiser, x, 0.5)
    assert {name: tuple(v.shape) for name, v in found.items()} == {
        "block0": (3, 8), "block1": (3, 8), "block2": (3, 8), "posterior": (3, 256)
    }  # fmt: skip
    tokens = []
    transformer = DiTTransformer2DModel.from_pretrained(dit / "transformer").eval()
    transformer.transformer_blocks[1].register_forward_hook(lambda _m, _i, output: tokens.append(output))
    scaled, step = x / (1 + 0.5**2) ** 0.5, denoiser.timestep(torch.full((3,), 0.5))
    transformer(scaled, step, torch.full((3,), 5))
    torch.testing.assert_close(found["block1"], tokens[0].mean(1), rtol=1e-4, atol=1e-5)


@needs_hub
def test_a_copy_of_a_denoiser_has_features_of_its_own(dit: Path) -> None:
    denoiser = pretrained.load_dit(dit)
    copied = copy.deepcopy(denoiser)
    for parameter in copied.parameters():
        parameter.zero_()
    assert not torch.equal(*(features.extract(d, images(4, 8), 0.5, ["block1"])["block1"] for d in (denoiser, copied)))


@needs_hub
@torch.no_grad()
def test_dit_encodes_images_to_latents(dit: Path) -> None:
    from diffusers import AutoencoderKL

    denoiser, vae = pretrained.load_dit(dit), AutoencoderKL.from_pretrained(dit / "vae")
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = denoiser.encode(pixels, batch_size=2)
    expected = vae.encode(pixels / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
    assert latents.shape == (5, 4, 8, 8)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(denoiser.encode(pixels / 127.5 - 1), latents, rtol=1e-4, atol=1e-5)


@needs_hub
def test_dit_without_an_auto_encoder_takes_latents_only(dit: Path) -> None:
    edit(dit / "model_index.json", vae=[None, None])
    shutil.rmtree(dit / "vae")
    denoiser = pretrained.load_dit(dit)
    assert denoiser(images(4, 8), 0.5).shape == (3, 4, 8, 8)
    with pytest.raises(ValueError, match="auto-encoder"):
        denoiser.encode(images())


# ------------------------------------------------------------------------------------------------------------- MAE


@needs_hub
@torch.no_grad()
def test_mae_sees_every_patch_and_keeps_their_order(mae: Path) -> None:
    from transformers import ViTMAEModel

    encoder, x = pretrained.load_mae(mae), images().clamp(-1, 1)
    assert features.layers(encoder) == ["block0", "block1", "block2", "posterior"]
    found = features.extract(encoder, x, 0.5, pool="none")
    assert found["block1"].shape == (3, 8 * 16)  # 16 patches: nothing is masked
    vit = ViTMAEModel.from_pretrained(mae, mask_ratio=0.0).eval()
    outputs = vit(((x + 1) / 2 - MEAN) / STD, noise=torch.arange(16.0).expand(3, -1), output_hidden_states=True)
    expected = outputs.hidden_states[2][:, 1:].mT
    torch.testing.assert_close(found["block1"].reshape(3, 8, 16), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(x), outputs.last_hidden_state[:, 1:].mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["posterior"], encoder(x))
    torch.manual_seed(1)
    assert torch.equal(found["block2"], features.extract(encoder, x, 9.0, pool="none")["block2"])


@needs_hub
@torch.no_grad()
def test_mae_resizes_and_normalises_as_its_processor_says(mae: Path) -> None:
    plain, x = pretrained.load_mae(mae), images()
    (mae / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    centred = pretrained.load_mae(mae)
    torch.testing.assert_close(centred(((x + 1) / 2 - MEAN) / STD), plain(x), rtol=1e-4, atol=1e-5)
    constant = torch.full((1, 3, 5, 5), 0.3)
    torch.testing.assert_close(plain(constant), plain(torch.full((1, 3, 16, 16), 0.3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="^x .*3, 1, 16, 16"):
        plain(images(1))


@needs_hub
@torch.no_grad()
def test_a_plain_vision_transformer_is_read_likewise(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    model = randomised(ViTForImageClassification(ViTConfig(**VIT)))
    model.save_pretrained(tmp_path / "vit")
    encoder, x = pretrained.load_mae(tmp_path / "vit"), images()
    stated = {"image_mean": [0] * 3, "image_std": [1] * 3}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(stated))
    unnormalised = pretrained.load_mae(tmp_path / "vit")
    expected = model.vit((x + 1) / 2).last_hidden_state[:, 1:].mean(1)
    torch.testing.assert_close(unnormalised(x), expected, rtol=1e-4, atol=1e-5)
    assert features.extract(encoder, x, 0.5, ["block2"])["block2"].shape == (3, 8)


@needs_hub
def test_mae_refuses_what_is_none(mae: Path, tmp_path: Path) -> None:
    edit(mae / "config.json", model_type="bert")
    with pytest.raises(ValueError, match="mae .*'bert'.*'vit'"):
        pretrained.load_mae(mae)
    with pytest.raises(ValueError, match="nothing .*AutoConfig"):
        pretrained.load_mae(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------------ without the extra


@pytest.mark.parametrize(
    ("function", "name"), [("load_ddpm", "diffusers"), ("load_dit", "diffusers"), ("load_mae", "transformers")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        getattr(pretrained, function)("anything")


@needs_hub
def test_networks_of_the_hub_are_probed_under_label_noise_like_ours(dit: Path, mae: Path) -> None:
    """An encoder reads images and no noise level; a latent denoiser reads latents at every one."""
    y = np.arange(60) % 2
    noise = 0.1 * torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    pixels = (noise + 0.3 * torch.as_tensor(2 * y - 1)[:, None, None, None]).clamp(-1, 1)  # dark and light images
    task = ProbeTask("brightness", pixels, y[:40], y[40:], 2)
    config = EnsembleConfig(
        sources=("weights",), layers=None, sigmas=(0.1, 0.5, 2.0), neighbours=1, shares=(0.0, 0.2), label_seeds=(0,)
    )
    encoder, denoiser = pretrained.load_mae(mae), pretrained.load_dit(dit)
    found = measure_network(config, task, encoder, "masked")
    assert found["sigmas"] is None and found["runs"][0]["best"]["accuracy"] == 1.0
    latents = task._replace(images=denoiser.encode(task.images))
    runs = measure_network(config, latents, denoiser)["runs"]
    assert "levels" in runs[0] and runs[0]["sigma"] in config.sigmas and runs[0]["best"]["accuracy"] > 0.8
