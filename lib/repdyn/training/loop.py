"""Training of any denoiser: a generator that yields after every step, with EMA, checkpoints and exact resume.

All randomness of step ``i`` is drawn from the seed and ``i`` alone, so a resumed run needs no generator state, and a
run on several processes draws what one process would. Only dropout differs from process to process.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repdyn import datasets
from repdyn._torch import autocast, seeded
from repdyn.denoisers import dae_loss
from repdyn.images import ImageSet
from repdyn.training import batches, memory_format
from repdyn.training.batches import Batch
from repdyn.training.config import TrainConfig, config_from_dict, make_denoiser
from repdyn.training.precision import effective
from repdyn.training.state import Saver, State, held_back, restore
from repdyn.training.terms import NoWeight

with warnings.catch_warnings():
    # Its import of tqdm warns in a notebook without ipywidgets, where nothing is amiss.
    warnings.simplefilter("ignore")
    from accelerate import Accelerator


__all__ = [
    "Batch",
    "Objective",
    "Step",
    "TrainConfig",
    "config_from_dict",
    "train",
]

_log = logging.getLogger(__name__)

#: Losses (B,) of a model on what a step sees.
Objective = Callable[[nn.Module, Batch], Tensor]


@dataclass
class Step:
    """State of a training after ``step`` optimiser steps; ``denoiser`` and ``ema`` are live, not copies."""

    step: int
    """Optimiser steps done."""
    images: int
    """Images seen in them."""
    loss: float
    """Loss of the step, of the whole batch; NaN for a restored step that an older version saved."""
    images_per_second: float
    """Speed since this start of the training; 0 for a restored step."""
    denoiser: Any  # a module of the kind that was passed
    """The network as it is trained."""
    ema: Any
    """The average of its weights, in evaluation mode."""
    main: bool = True
    """Of several processes, one is: the one that may write files."""
    restored: bool = False
    """Not computed now but found in the file of the state."""
    precision: str = "float32"
    """In which products were computed: 'bf16', 'fp16' or 'float32'."""


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
    """Train a denoiser by ``config``, yielding a :class:`Step` after every optimiser step, at first the restored one.

    Any ``denoiser`` can stand in for that of ``config.network``; a copy of it is trained. Any ``data`` (N, *shape),
    floating point and as it is, or any image set, can stand in for ``config.dataset``, which then only says what it is.
    An ``objective(model, batch)``, losses (B,) of what a step sees, can stand in for the weighted denoising loss; it
    goes with the weighting :class:`repdyn.training.NoWeight`.

    With ``state_file``, the state is written there at least every ``save_every_s`` seconds, when the training is
    interrupted (Ctrl-C, or nobody asks for the next step) and at the end, by rename. A write that fails before the end
    is a warning. A run that finds the file goes on from it: on a CPU to bit-identical weights. It yields the step that
    it found first, so that ``*_, last = train(...)`` has a last step even when nothing is left to do; a training that
    starts yields step 1 first, not step 0. ``cpu`` keeps a training off the GPU. Started in several processes, by
    ``accelerate launch`` or ``torchrun``, each takes its share of every batch; without dropout they get the weights of
    one process, to rounding.

    Raises ``ValueError`` when ``state_file`` belongs to another configuration or precision or is damaged, when the data
    does not fit the network, when the denoiser has no ``loss_weight`` and the configuration none instead, when an
    ``objective`` comes with a weighting, and when there are more processes than images in a batch;
    ``FloatingPointError`` when the loss is not finite; ``OSError`` when the state cannot be written at the end.
    """
    accelerator, device = _processes(config, cpu)
    data = _checked_data(config, data, objective, denoiser)
    state = _untrained(config, denoiser, device)
    data = data._replace(images=_of_type(data.images, next(state.denoiser.parameters()).dtype))
    saver = Saver(state_file if accelerator.is_main_process else None, save_every_s)
    restored = False
    if state_file is not None and Path(state_file).exists():
        restore(state_file, state)
        restored = True
    loss_of = functools.partial(_loss, state.precision, objective)
    model = _placed(state, accelerator, device, data, loss_of)
    main, first, started = accelerator.is_main_process, state.step, time.monotonic()
    if restored:
        yield _report(state, 0.0, main, restored=True)
    try:
        while state.step < config.steps:
            with held_back():
                state.loss = _optimise(state, accelerator, model, data, loss_of)
                state.step += 1
                _update_ema(state.ema, state.denoiser, config, state.step)
            saver.after_step(state)
            yield _report(state, (state.step - first) * config.batch_size / (time.monotonic() - started), main)
    except (KeyboardInterrupt, GeneratorExit):
        saver.interrupted(state)
        raise


def _report(state: State, rate: float, main: bool, restored: bool = False) -> Step:
    images = state.step * state.config.batch_size
    return Step(state.step, images, state.loss, rate, state.denoiser, state.ema, main, restored, state.precision)


def _processes(config: TrainConfig, cpu: bool) -> tuple[Accelerator, torch.device]:
    """What knows of the other processes, and the device of this one."""
    # accelerate knows one precision and one device a process; in a notebook one training may follow another.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    accelerator = Accelerator(cpu=cpu and several, mixed_precision="no")
    if config.batch_size < accelerator.num_processes:
        raise ValueError(f"batch_size must be at least the {accelerator.num_processes} processes: start fewer")
    return accelerator, torch.device("cpu") if cpu else accelerator.device


def _checked_data(
    config: TrainConfig, data: Tensor | ImageSet | None, objective: Objective | None, denoiser: nn.Module | None
) -> ImageSet:
    """The images of a training; ``ValueError`` where what was passed does not go together."""
    if objective is not None and config.weighting != NoWeight():
        raise ValueError(f"an objective has its own weights: choose the weighting NoWeight(), got {config.weighting}")
    found = datasets.load(config.dataset, "train") if data is None else batches.unlabelled(data)
    batches.check(config, found)
    if denoiser is None and config.network is not None:
        config.network.check_images(found.images.shape[1:])
    return found


def _of_type(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.to(dtype) if images.is_floating_point() else images


def _untrained(config: TrainConfig, denoiser: nn.Module | None, device: torch.device) -> State:
    """A training before its first step, still on the CPU, to be brought to ``device``."""
    denoiser = make_denoiser(config) if denoiser is None else copy.deepcopy(denoiser)
    config.weighting.check(denoiser)
    ema = copy.deepcopy(denoiser).requires_grad_(False).eval()
    # Without decay AdamW is Adam, to the last bit and in the names of its state.
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    precision = effective(config.precision, device)
    _log.info("training in precision %s on %s", precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    return State(config, denoiser, ema, optimizer, precision=precision, scaler=scaler)


def _placed(
    state: State,
    accelerator: Accelerator,
    device: torch.device,
    data: ImageSet,
    loss_of: Callable[..., Tensor],
) -> nn.Module:
    """Bring ``state`` to ``device``, in the layout that is fastest there; the model of all processes."""
    state.denoiser.to(device)
    layout = _fastest_format(state, data, loss_of)
    state.denoiser.to(memory_format=layout)  # type: ignore[call-overload]
    state.ema.to(device, memory_format=layout)  # type: ignore[call-overload]
    placement = [device == accelerator.device] * 2
    model, state.optimizer = accelerator.prepare(state.denoiser, state.optimizer, device_placement=placement)
    return model


def _optimise(
    state: State, accelerator: Accelerator, model: nn.Module, data: ImageSet, loss_of: Callable[..., Tensor]
) -> float:
    """One step of the optimiser: the loss of the whole batch."""
    # Each process takes its share of the batch that a single process would have drawn.
    config, step, optimizer = state.config, state.step, state.optimizer
    device, processes = next(model.parameters()).device, accelerator.num_processes
    whole = batches.draw(step, config, data)
    batch = batches.share(whole, accelerator.process_index, processes, device)
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (step + 1) * config.batch_size / max(config.warmup_images, 1))
    with seeded(batches.dropout_seed(config, step, accelerator.process_index), device):
        loss = loss_of(model, config.weighting.weight(accelerator.unwrap_model(model), batch.sigma), batch)
        # The processes' gradients are averaged, and shares may differ by one image: each counts by its size.
        loss = loss * (len(batch.x0) * processes / config.batch_size)
    total = accelerator.reduce(loss.detach(), "mean").item()
    _refuse_infinite("loss", total, step)  # in all processes at once, so that none waits for another in vain
    accelerator.backward(state.scaler.scale(loss))
    state.scaler.unscale_(optimizer)
    norm = accelerator.clip_grad_norm_(model.parameters(), config.grad_clip).item()
    if state.scaler.get_scale() <= 1:  # of a scaled loss the scaler leaves the step out, and lowers the scale
        _refuse_infinite("gradient's norm", norm, step)  # before it is written into the weights and the state
    state.scaler.step(optimizer)
    state.scaler.update()
    optimizer.zero_grad()
    return total


def _refuse_infinite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value} at step {step}: lower learning_rate, or use precision='float32'; "
            "the last saved state is intact"
        )


def _loss(
    precision: str, objective: Objective | None, model: nn.Module, weight: Tensor | float, batch: Batch
) -> Tensor:
    x0, sigma, noise, conditions, _ = batch
    with autocast(x0.device, precision):
        if objective is not None:
            return objective(model, batch).mean()
        errors = dae_loss(functools.partial(model, **conditions), x0, sigma, noise)
    return (weight * errors).mean() / x0[0].numel()


def _fastest_format(state: State, data: ImageSet, loss_of: Callable[..., Tensor]) -> torch.memory_format:
    batch = batches.draw(0, state.config, data)
    batch = batches.share(batch, 0, 1, next(state.denoiser.parameters()).device)
    weight = state.config.weighting.weight(state.denoiser, batch.sigma)
    return memory_format.fastest(
        state.denoiser, batch.x0, lambda trial, x0: loss_of(trial, weight, batch._replace(x0=x0))
    )


@torch.no_grad()
def _update_ema(ema: nn.Module, model: nn.Module, config: TrainConfig, step: int) -> None:
    halflife = min(config.ema_halflife_images, config.ema_rampup * step * config.batch_size)
    weight = 1 - 0.5 ** (config.batch_size / halflife)
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), weight)
    for average, now in zip(ema.buffers(), model.buffers(), strict=True):  # statistics, such as batch normalisation's
        average.copy_(now)
