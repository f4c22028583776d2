"""Training of any denoiser: a generator that yields after every step, with EMA, checkpoints and exact resume.

All randomness of step ``i`` is drawn from the seed and ``i`` alone, so a resumed run needs no generator state, and a
run on several processes draws what one process would. Only dropout differs from process to process.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from repdyn import datasets
from repdyn._files import read_state, write_tensors
from repdyn.denoisers import dae_loss
from repdyn.images import ImageSet
from repdyn.training import batches, memory_format
from repdyn.training.batches import Batch
from repdyn.training.config import TrainConfig, config_from_dict, make_denoiser
from repdyn.training.terms import NoWeight

__all__ = [
    "Batch",
    "Objective",
    "Step",
    "TrainConfig",
    "config_from_dict",
    "train",
]

#: Losses (B,) of a model on what a step sees.
Objective = Callable[[nn.Module, Batch], Tensor]


@dataclass
class Step:
    """State of a training after ``step`` optimiser steps; ``denoiser`` and ``ema`` are live, not copies.

    ``loss`` is that of the whole batch. Of several processes, one is ``main``: the one that may write files.
    """

    step: int
    images: int
    loss: float
    images_per_second: float
    denoiser: nn.Module
    ema: nn.Module
    main: bool = True


def train(
    config: TrainConfig,
    state_file: str | os.PathLike | None = None,
    *,
    denoiser: nn.Module | None = None,
    data: Tensor | ImageSet | None = None,
    objective: Objective | None = None,
    cpu: bool = False,
    save_every_s: float = 120.0,
) -> Iterator[Step]:
    """Train a denoiser by ``config``, yielding a :class:`Step` after every optimiser step.

    Any ``denoiser`` can stand in for that of ``config.network``; a copy of it is trained. Any ``data`` (N, *shape),
    floating point and as it is, or any image set, can stand in for ``config.dataset``, which then only says what it is.
    An ``objective(model, batch)``, losses (B,) of what a step sees, can stand in for the weighted denoising loss; it
    goes with the weighting :class:`repdyn.training.NoWeight`.

    With ``state_file``, the state is written there at least every ``save_every_s`` seconds and at the end, by rename,
    and a run that finds the file goes on from it: on a CPU to bit-identical weights. ``cpu`` keeps a training off the
    GPU. Started in several processes, by ``accelerate launch`` or ``torchrun``, each takes its share of every batch;
    without dropout they get the weights of one process, to rounding.

    Raises ``ValueError`` when ``state_file`` belongs to another configuration or is damaged, when the data does not fit
    the network, when the denoiser has no ``loss_weight`` and the configuration none instead, when an ``objective``
    comes with a weighting, and when there are more processes than images in a batch; ``FloatingPointError`` when the
    loss is not finite.
    """
    # accelerate knows one precision and one device a process; in a notebook one training may follow another.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    accelerator = Accelerator(cpu=cpu and several, mixed_precision="no")
    device = torch.device("cpu") if cpu else accelerator.device
    if config.batch_size < accelerator.num_processes:
        raise ValueError(f"batch_size must be at least the {accelerator.num_processes} processes: start fewer")
    if objective is not None and config.weighting != NoWeight():
        raise ValueError(f"an objective has its own weights: choose the weighting NoWeight(), got {config.weighting}")
    data = datasets.load(config.dataset, "train") if data is None else batches.unlabelled(data)
    batches.check(config, data)
    if denoiser is None and config.network is not None:
        config.network.check_images(data.images.shape[1:])
    denoiser = make_denoiser(config) if denoiser is None else copy.deepcopy(denoiser)
    if data.images.is_floating_point():
        data = data._replace(images=data.images.to(next(denoiser.parameters()).dtype))
    config.weighting.check(denoiser)
    ema = copy.deepcopy(denoiser).requires_grad_(False).eval()
    # Without decay AdamW is Adam, to the last bit and in the names of its state.
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    step = 0
    if state_file is not None and Path(state_file).exists():
        step = _restore(state_file, config, denoiser, ema, optimizer)
    loss_of = functools.partial(_loss, config, objective)
    memory_format = _fastest_format(config, denoiser.to(device), data, loss_of)
    denoiser.to(memory_format=memory_format)
    ema.to(device, memory_format=memory_format)
    model, optimizer = accelerator.prepare(denoiser, optimizer, device_placement=[device == accelerator.device] * 2)
    main, started, saved, first = accelerator.is_main_process, time.monotonic(), time.monotonic(), step
    while step < config.steps:
        loss = _optimise(step, config, accelerator, model, optimizer, data, loss_of)
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
    data: ImageSet,
    loss_of: Callable[..., Tensor],
) -> float:
    # Each process takes its share of the batch that a single process would have drawn.
    device, processes = next(model.parameters()).device, accelerator.num_processes
    whole = batches.draw(step, config, data)
    batch = batches.share(whole, accelerator.process_index, processes, device)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (step + 1) * config.batch_size / max(config.warmup_images, 1))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(batches.dropout_seed(config, step, accelerator.process_index))
        loss = loss_of(model, config.weighting.weight(accelerator.unwrap_model(model), batch.sigma), batch)
        # The processes' gradients are averaged, and shares may differ by one image: each counts by its size.
        loss = loss * (len(batch.x0) * processes / config.batch_size)
    total = accelerator.reduce(loss.detach(), "mean").item()
    if not math.isfinite(total):  # in all processes at once, so that none waits for another in vain
        raise FloatingPointError(
            f"the loss is {total} at step {step}: lower learning_rate, or use precision='float32'; "
            "the last saved state is intact"
        )
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), config.grad_clip).item()
    if not math.isfinite(norm):  # before the step, which would write it into the weights and the state
        raise FloatingPointError(
            f"the gradient's norm is {norm} at step {step}: lower learning_rate, or use precision='float32'; "
            "the last saved state is intact"
        )
    optimizer.step()
    optimizer.zero_grad()
    return total


def _loss(
    config: TrainConfig, objective: Objective | None, model: nn.Module, weight: Tensor | float, batch: Batch
) -> Tensor:
    x0, sigma, noise, conditions, _ = batch
    with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        if objective is not None:
            return objective(model, batch).mean()
        errors = dae_loss(functools.partial(model, **conditions), x0, sigma, noise)
    return (weight * errors).mean() / x0[0].numel()


def _fastest_format(
    config: TrainConfig, denoiser: nn.Module, data: ImageSet, loss_of: Callable[..., Tensor]
) -> torch.memory_format:
    batch = batches.draw(0, config, data)
    batch = batches.share(batch, 0, 1, next(denoiser.parameters()).device)
    weight = config.weighting.weight(denoiser, batch.sigma)
    return memory_format.fastest(denoiser, batch.x0, lambda trial, x0: loss_of(trial, weight, batch._replace(x0=x0)))


@torch.no_grad()
def _update_ema(ema: nn.Module, model: nn.Module, config: TrainConfig, step: int) -> None:
    halflife = min(config.ema_halflife_images, config.ema_rampup * step * config.batch_size)
    weight = 1 - 0.5 ** (config.batch_size / halflife)
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), weight)
    for average, now in zip(ema.buffers(), model.buffers(), strict=True):  # statistics, such as batch normalisation's
        average.copy_(now)


def _save(path: str | os.PathLike, config: TrainConfig, step: int, model: nn.Module, ema: nn.Module, optimizer) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    write_tensors(path, tensors, {"config": json.dumps(asdict(config)), "step": str(step)})


def _restore(path: str | os.PathLike, config: TrainConfig, model: nn.Module, ema: nn.Module, optimizer) -> int:
    tensors, metadata = read_state(path)
    if "step" not in metadata or config_from_dict(json.loads(metadata["config"])) != config:
        raise ValueError(f"{path} belongs to another training configuration: choose another file, or remove it")
    for prefix, module in (("model.", model), ("ema.", ema)):
        try:
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        except RuntimeError as error:  # of a denoiser that was passed: the configuration knows nothing of it
            raise ValueError(
                f"{path} holds the state of another denoiser: choose another file, or remove it"
            ) from error
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
