"""Training of a denoiser: a generator that yields after every step, with EMA, checkpoints and exact resume.

All randomness of step ``i`` is drawn from the seed and ``i`` alone, so a resumed run needs no generator state, and a
run on several processes draws what one process would. Only dropout differs from process to process.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from repdyn import _augment, _batches, datasets
from repdyn.denoisers import EDMDenoiser, VPDenoiser, dae_loss
from repdyn.networks.unet import UNet, UNetConfig
from repdyn.noise import VP_TIMES, vp_sigma

__all__ = ["Step", "TrainConfig", "config_from_dict", "make_denoiser", "read_state", "train", "write_tensors"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training. Lengths are counted in images, so budgets compare across batch sizes.

    ``batch_size`` is that of all processes together. ``preconditioning`` is 'edm', with noise levels
    log sigma ~ N(``p_mean``, ``p_std``^2); 'epsilon': a DDPM, with time steps drawn evenly and the error of the
    predicted noise as the loss; or 'vp', the same in continuous time (Karras et al., 2022, table 1). ``flip`` mirrors
    every other image. ``augment`` is the probability of each transform of a non-leaking augmentation: mirroring,
    quarter turns, translation, of which the network is told (``network.augment_dim`` must be 6). A network with
    ``num_classes`` is told each image's class. The learning rate rises linearly over ``warmup_images``; the
    exponential moving average of the weights has a half-life of ``ema_halflife_images``, or of ``ema_rampup`` times
    the images seen, whichever is shorter. Defaults follow Karras et al. (2022) where the scale allows.
    """

    dataset: str
    network: UNetConfig
    images: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_images: int = 20_000
    ema_halflife_images: int = 500_000
    ema_rampup: float = 0.05
    flip: bool = False
    augment: float = 0.0
    preconditioning: str = "edm"
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5
    grad_clip: float = 1.0
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        positive = "images batch_size learning_rate ema_halflife_images ema_rampup p_std sigma_data grad_clip"
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in ("bf16", "no"):
            raise ValueError(f"precision must be 'bf16' or 'no', got {self.precision!r}")
        if self.preconditioning not in ("edm", "epsilon", "vp"):
            raise ValueError(f"preconditioning must be 'edm', 'epsilon' or 'vp', got {self.preconditioning!r}")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment must be a probability, got {self.augment}")
        if self.augment and self.network.augment_dim != _augment.NUM_LABELS:
            raise ValueError(
                f"network.augment_dim must be {_augment.NUM_LABELS} for augment > 0, got {self.network.augment_dim}"
            )

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return -(-self.images // self.batch_size)


@dataclass
class Step:
    """State of a training after ``step`` optimiser steps; ``denoiser`` and ``ema`` are live, not copies.

    ``loss`` is that of the whole batch. Of several processes, one is ``main``: the one that may write files.
    """

    step: int
    images: int
    loss: float
    images_per_second: float
    denoiser: EDMDenoiser | VPDenoiser
    ema: EDMDenoiser | VPDenoiser
    main: bool = True


def make_denoiser(config: TrainConfig) -> EDMDenoiser | VPDenoiser:
    """The untrained denoiser of a configuration, its weights drawn from the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = UNet(config.network)
    if config.preconditioning == "edm":
        return EDMDenoiser(network, config.sigma_data)
    return VPDenoiser(network, None if config.preconditioning == "epsilon" else 1 / (1 + vp_sigma(VP_TIMES) ** 2))


def config_from_dict(values: dict) -> TrainConfig:
    """Rebuild a :class:`TrainConfig` from its JSON form; raises ``ValueError`` for fields it does not have."""
    unknown = set(values) - {field.name for field in fields(TrainConfig)}
    unknown |= set(values["network"]) - {field.name for field in fields(UNetConfig)}
    if unknown:
        raise ValueError(f"config has unknown fields: {', '.join(sorted(unknown))}")
    network = {k: tuple(v) if isinstance(v, list) else v for k, v in values["network"].items()}
    return TrainConfig(**{**values, "network": UNetConfig(**network)})


def train(
    config: TrainConfig,
    state_file: str | os.PathLike | None = None,
    *,
    cpu: bool = False,
    save_every_s: float = 120.0,
) -> Iterator[Step]:
    """Train a denoiser by ``config``, yielding a :class:`Step` after every optimiser step.

    With ``state_file``, the state is written there at least every ``save_every_s`` seconds and at the end, by rename,
    and a run that finds the file goes on from it: on a CPU to bit-identical weights. ``cpu`` keeps a training off the
    GPU. Started in several processes, by ``accelerate launch`` or ``torchrun``, each takes its share of every batch;
    without dropout they get the weights of one process, to rounding.

    Raises ``ValueError`` when ``state_file`` belongs to another configuration or is damaged, when the data does not fit
    the network, and when there are more processes than images in a batch; ``FloatingPointError`` when the loss is not
    finite.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")  # accelerate knows one precision a process, we do not
    if config.batch_size < accelerator.num_processes:
        raise ValueError(f"batch_size must be at least the {accelerator.num_processes} processes: start fewer")
    data = datasets.load(config.dataset, "train")
    _batches.check(config, data)
    denoiser, ema = make_denoiser(config), make_denoiser(config).requires_grad_(False).eval()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=config.learning_rate)
    step = 0
    if state_file is not None and Path(state_file).exists():
        step = _restore(state_file, config, denoiser, ema, optimizer)
    ema.to(accelerator.device)
    model, optimizer = accelerator.prepare(denoiser, optimizer)
    main, started, saved, first = accelerator.is_main_process, time.monotonic(), time.monotonic(), step
    while step < config.steps:
        loss = _optimise(step, config, accelerator, model, optimizer, data)
        step += 1
        _update_ema(ema, denoiser, config, step)
        due = step == config.steps or time.monotonic() - saved > save_every_s
        if state_file is not None and due and main:
            _save(state_file, config, step, denoiser, ema, optimizer)
            saved = time.monotonic()
        rate = (step - first) * config.batch_size / (time.monotonic() - started)
        yield Step(step, step * config.batch_size, loss, rate, denoiser, ema, main)


def _optimise(
    step: int,
    config: TrainConfig,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: datasets.ImageSet,
) -> float:
    # Each process takes its share of the batch that a single process would have drawn.
    device, processes = accelerator.device, accelerator.num_processes
    whole = _batches.draw(step, config, data)
    x0, sigma, noise, conditions = _batches.share(whole, accelerator.process_index, processes, device)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (step + 1) * config.batch_size / max(config.warmup_images, 1))
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        torch.manual_seed(_batches.dropout_seed(config, step, accelerator.process_index))
        weight = accelerator.unwrap_model(model).loss_weight(sigma)
        loss = (weight * dae_loss(functools.partial(model, **conditions), x0, sigma, noise)).mean() / x0[0].numel()
        # The processes' gradients are averaged, and shares may differ by one image: each counts by its size.
        loss = loss * (len(x0) * processes / config.batch_size)
    total = accelerator.reduce(loss.detach(), "mean").item()
    if not math.isfinite(total):  # in all processes at once, so that none waits for another in vain
        raise FloatingPointError(
            f"the loss is {total} at step {step}: lower learning_rate, or use precision='no'; "
            "the last saved state is intact"
        )
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
    optimizer.step()
    optimizer.zero_grad()
    return total


@torch.no_grad()
def _update_ema(ema: nn.Module, model: nn.Module, config: TrainConfig, step: int) -> None:
    halflife = min(config.ema_halflife_images, config.ema_rampup * step * config.batch_size)
    weight = 1 - 0.5 ** (config.batch_size / halflife)
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), weight)


def _save(path: str | os.PathLike, config: TrainConfig, step: int, model: nn.Module, ema: nn.Module, optimizer) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    write_tensors(path, tensors, {"config": json.dumps(asdict(config)), "step": str(step)})


def write_tensors(path: str | os.PathLike, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name and rename it, so that a kill or a full disk loses nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file written by :func:`write_tensors`; raises ``ValueError`` when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}): remove it, or restore it from a copy"
        ) from error


def _restore(path: str | os.PathLike, config: TrainConfig, model: nn.Module, ema: nn.Module, optimizer) -> int:
    tensors, metadata = read_state(path)
    if "step" not in metadata or config_from_dict(json.loads(metadata["config"])) != config:
        raise ValueError(f"{path} belongs to another training configuration: choose another file, or remove it")
    for prefix, module in (("model.", model), ("ema.", ema)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
