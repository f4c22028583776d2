"""Denoisers and encoders of the Hugging Face hub, with the interface of ours: through diffusers and transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from importlib import import_module
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn.denoisers import VPDenoiser
from repdyn.images import to_unit_range

_Module = TypeVar("_Module", bound=nn.Module)
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def load_ddpm(path_or_id: str | os.PathLike, device: torch.device | str = "cpu") -> VPDenoiser:
    """Load a DDPM, a diffusers ``UNet2DModel`` with its schedule, as a denoiser of images (B, C, H, W) in [-1, 1].

    ``path_or_id`` is a folder or a model of the Hugging Face hub, such as ``google/ddpm-cifar10-32``. The denoiser is
    float32 on ``device``, in evaluation mode; its layers have the names of
    :class:`repdyn.networks.unet.UNet`. Other noise levels than those of the schedule are treated as
    :class:`repdyn.denoisers.VPDenoiser` says.

    Raises ``ImportError`` without diffusers, ``ValueError`` for anything else than such a model. Source: Ho et al.
    (2020).
    """
    diffusers = _optional("diffusers")
    unet = _component(diffusers.UNet2DModel, path_or_id, "unet")
    if unet.config.time_embedding_type != "positional":
        raise ValueError(f"{path_or_id} is told sigma itself, not a time step: it is no DDPM")
    return _ready(VPDenoiser(_UNet2D(unet), *_schedule(diffusers, path_or_id)), device)


def load_dit(path_or_id: str | os.PathLike, device: torch.device | str = "cpu") -> LatentDenoiser:
    """Load a DiT, a diffusers ``DiTTransformer2DModel`` with its schedule, as a denoiser of latents (B, C, h, w).

    ``path_or_id`` is a folder or a model of the Hugging Face hub, such as ``facebook/DiT-XL-2-256``. Where it has an
    auto-encoder, :meth:`LatentDenoiser.encode` turns images into latents. The class is the null class unless
    ``class_labels`` (B,), integers, are given to the denoiser. Layers are the blocks, as (B, width, tokens).

    Raises ``ImportError`` without diffusers, ``ValueError`` for anything else than such a model. Source: Peebles and
    Xie (2023).
    """
    diffusers = _optional("diffusers")
    transformer = _component(diffusers.DiTTransformer2DModel, path_or_id, "transformer")
    parts = _read(diffusers.DiTPipeline.load_config, path_or_id)
    has_vae = (parts.get("vae") or [None])[0] is not None
    vae = _component(diffusers.AutoencoderKL, path_or_id, "vae") if has_vae else None
    return _ready(LatentDenoiser(_DiT(transformer), *_schedule(diffusers, path_or_id), vae=vae), device)


def load_mae(path_or_id: str | os.PathLike, device: torch.device | str = "cpu") -> ImageEncoder:
    """Load the encoder of a masked auto-encoder (transformers ``ViTMAEModel``) or a plain ``ViTModel``, nothing masked.

    ``path_or_id`` is a folder or a model of the Hugging Face hub, such as ``facebook/vit-mae-base``. The result is no
    denoiser, but :func:`repdyn.features.extract` reads it like one: see :class:`ImageEncoder`.

    Raises ``ImportError`` without transformers, ``ValueError`` for anything else than such a model. Source: He et al.
    (2022).
    """
    transformers = _optional("transformers")
    kind = _read(transformers.AutoConfig.from_pretrained, path_or_id).model_type
    if kind not in ("vit_mae", "vit"):
        raise ValueError(f"{path_or_id} is a {kind!r} model: supported are 'vit_mae' and 'vit'")
    if kind == "vit_mae":
        vit = _component(transformers.ViTMAEModel, path_or_id, mask_ratio=0.0)
    else:
        vit = _component(transformers.ViTModel, path_or_id, add_pooling_layer=False)
    found = transformers.utils.cached_file(
        path_or_id, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
    )
    stated = {}
    if found is not None:
        with open(found, encoding="utf-8") as file:
            stated = json.load(file)
    mean, std = (stated.get(key, default) for key, default in _IMAGENET.items())
    return _ready(ImageEncoder(vit, mean, std), device)


class LatentDenoiser(VPDenoiser):
    """A :class:`repdyn.denoisers.VPDenoiser` of latents (B, C, h, w), with the auto-encoder that makes them, if any."""

    log_sigmas: Tensor

    def __init__(
        self,
        model: nn.Module,
        alpha_bar: np.ndarray | None = None,
        prediction_type: str = "epsilon",
        interpolate: bool = True,
        *,
        vae: _Foreign | None = None,
    ) -> None:
        super().__init__(model, alpha_bar, prediction_type, interpolate)
        self.vae = vae

    @torch.no_grad()
    def encode(self, images: Tensor, batch_size: int = 16) -> Tensor:
        """Latents (N, C, h, w) of ``images`` (N, 3, H, W), uint8 or float in [-1, 1]: the mean of the encoder, scaled.

        They are on the CPU, in the units that the denoiser was trained in. Raises ``ValueError`` without an
        auto-encoder.
        """
        if self.vae is None:
            raise ValueError("this model came without an auto-encoder: give it latents")
        latents = []
        for batch in images.split(batch_size):
            batch = to_unit_range(batch) if batch.dtype == torch.uint8 else batch.float()
            latents.append(self.vae.encode(batch.to(self.log_sigmas.device)).latent_dist.mode().cpu())
        return torch.cat(latents) * self.vae.config.scaling_factor


class ImageEncoder(nn.Module):
    """A vision transformer read like a denoiser: ``encoder(x, sigma)`` is (B, width), the mean of its final patches.

    ``x`` is (B, 3, H, W) in [-1, 1] and is resized and normalised as the network expects; ``sigma`` is not used. Layers
    are the blocks, as (B, width, patches), without the class token.
    """

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor

    def __init__(self, vit: _Foreign, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.vit = vit
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(list(value)).reshape(1, -1, 1, 1), persistent=False)
        blocks = next(module for module in vit.modules() if isinstance(module, nn.ModuleList))
        self.taps = _tap(blocks, first=1)

    def forward(self, x: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Features (B, width) of images ``x`` (B, 3, H, W) in [-1, 1]; raises ``ValueError`` for another shape."""
        if x.ndim != 4 or x.shape[1] != self.mean.shape[1]:
            raise ValueError(f"x must have shape (B, {self.mean.shape[1]}, H, W), got {tuple(x.shape)}")
        side = self.vit.config.image_size
        if x.shape[2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
        x = ((x + 1) / 2 - self.mean) / self.std
        if self.vit.config.model_type == "vit":
            return self.vit(x).last_hidden_state[:, 1:].mean(1)
        # The network shuffles the patches by this noise even when it masks none of them: keep their order.
        order = torch.arange((side // self.vit.config.patch_size) ** 2, device=x.device).expand(len(x), -1)
        return self.vit(x, noise=order).last_hidden_state[:, 1:].mean(1)

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose activations can be read, in the order of the forward pass: name -> module."""
        return {f"block{index}": tap for index, tap in enumerate(self.taps)}


class _Foreign(nn.Module):
    """A model of diffusers or transformers, or a part of one: to mypy its attributes can be anything.

    Both libraries are optional, and neither states the types of what is read here. Nothing is an instance of this.
    """

    from_pretrained: MethodType

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class _Tap(nn.Module):
    """Reads the tokens (B, tokens, width) that a block puts out, as (B, width, tokens): positions last, as in images.

    A module of its own, called with each activation, so that a hook on it sees what a hook on a U-Net block would.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def read(self, _block: nn.Module, _inputs: tuple, output: Tensor | tuple) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        self(tokens[:, self.first :].transpose(1, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def _tap(blocks: Iterable[nn.Module], first: int = 0) -> nn.ModuleList:
    taps = nn.ModuleList()
    for block in blocks:
        tap = _Tap(first)
        taps.append(tap)
        block.register_forward_hook(tap.read)
    return taps


class _UNet2D(nn.Module):
    """A diffusers U-Net with the interface of :class:`repdyn.networks.unet.UNet`: a tensor out, layers by name."""

    def __init__(self, unet: _Foreign) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """The network's output for ``x`` (B, C, H, W) at its time steps (B,)."""
        return self.unet(x, timestep, return_dict=False, **conditions)[0]

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers in the order of the forward pass, named as those of our own U-Net."""
        unet = self.unet
        deepest = len(unet.down_blocks) - 1
        layers: dict[str, nn.Module] = {f"enc/{self._side(0)}_conv": unet.conv_in}
        for level, block in enumerate(unet.down_blocks):
            layers |= _outputs(f"enc/{self._side(level)}", block)
            layers |= {f"enc/{self._side(level + 1)}_down": module for module in block.downsamplers or ()}
        if unet.mid_block is not None:
            resnets = enumerate(unet.mid_block.resnets)
            layers |= {f"mid/{self._side(deepest)}_block{index}": module for index, module in resnets}
        for level, block in zip(range(deepest, -1, -1), unet.up_blocks):
            layers |= _outputs(f"dec/{self._side(level)}", block)
            layers |= {f"dec/{self._side(level - 1)}_up": module for module in block.upsamplers or ()}
        return layers

    def _side(self, level: int) -> str:
        size = self.unet.config.sample_size
        if size is None:
            return f"level{level}"
        height, width = (size, size) if isinstance(size, int) else size
        return f"{height >> level}x{width >> level}"


def _outputs(prefix: str, block: _Foreign) -> dict[str, nn.Module]:
    """What each residual block ends with: itself, or the attention after it."""
    ends = getattr(block, "attentions", None) or block.resnets
    return {f"{prefix}_block{index}": module for index, module in enumerate(ends)}


class _DiT(nn.Module):
    """A diffusers DiT likewise: the output without its learned variance, blocks by number."""

    def __init__(self, transformer: _Foreign) -> None:
        super().__init__()
        self.transformer = transformer
        self.taps = _tap(transformer.transformer_blocks)

    def forward(self, x: Tensor, timestep: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The predicted noise for latents ``x`` (B, C, h, w) at their time steps (B,); without labels, of no class."""
        config = self.transformer.config
        if class_labels is None:  # the classes are followed by the null class
            class_labels = torch.full((len(x),), config.num_embeds_ada_norm, device=x.device)
        output = self.transformer(x, timestep, class_labels, return_dict=False)[0]
        return output[:, : config.in_channels]  # a learned variance may follow

    def feature_layers(self) -> dict[str, nn.Module]:
        """The blocks, in their order."""
        return {f"block{index}": tap for index, tap in enumerate(self.taps)}


def _ready(module: _Module, device: torch.device | str) -> _Module:
    return module.float().to(device).eval().requires_grad_(False)


def _optional(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name}, of repdyn's extra 'pretrained': pip install {name}") from error


def _read(reader: MethodType, path_or_id: str | os.PathLike, *args: object, **kwargs: object) -> Any:
    try:
        return reader(path_or_id, *args, **kwargs)
    except Exception as error:  # the libraries raise errors of many kinds for what is missing, damaged or foreign
        what = getattr(reader.__self__, "__name__", "model")
        raise ValueError(f"{path_or_id} cannot be read as {what}: {error}") from error


def _component(
    cls: type[_Foreign], path_or_id: str | os.PathLike, folder: str | None = None, **options: object
) -> _Foreign:
    """A model and all of its weights, from its own folder or from the top one, where older repositories keep it."""
    options |= {"output_loading_info": True}
    try:
        model, info = _read(cls.from_pretrained, path_or_id, **options, **({"subfolder": folder} if folder else {}))
    except ValueError as error:
        if folder is None or not isinstance(error.__cause__, OSError):
            raise
        try:
            model, info = _read(cls.from_pretrained, path_or_id, **options)
        except ValueError:
            raise error from error.__cause__
    if info["missing_keys"]:
        raise ValueError(f"{path_or_id} lacks weights of {cls.__name__}: {sorted(info['missing_keys'])[:3]}")
    return model


def _schedule(diffusers: ModuleType, path_or_id: str | os.PathLike) -> tuple[np.ndarray, str]:
    """The schedule's alpha_bar (steps,), and what the network predicts."""
    try:
        config = _read(diffusers.DDPMScheduler.load_config, path_or_id, subfolder="scheduler")
    except ValueError:
        config = _read(diffusers.DDPMScheduler.load_config, path_or_id)
    cls = getattr(diffusers, config.get("_class_name", ""), None)
    scheduler = cls.from_config(config) if cls is not None and hasattr(cls, "from_config") else None
    if scheduler is None or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{path_or_id} has no schedule of a DDPM: its scheduler is {config.get('_class_name')}")
    return scheduler.alphas_cumprod.double().numpy(), scheduler.config.get("prediction_type", "epsilon")
