"""The state of a training: what there is of it between two steps, and the file that it goes on from."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from repdyn._files import read_state, write_tensors
from repdyn.training.config import TrainConfig, config_from_dict

__all__ = ["Saver", "State", "held_back", "restore", "save"]


@dataclass
class State:
    """A training between two steps."""

    config: TrainConfig
    denoiser: nn.Module
    ema: nn.Module
    """The average of the denoiser's weights."""
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimiser steps done."""
    loss: float = math.nan
    """Loss of the last one."""
    precision: str = "float32"
    """What the configuration's precision is on this device: 'bf16', 'fp16' or 'float32'."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))
    """Scales the loss where gradients in fp16 would vanish; elsewhere it does nothing."""


def save(path: str | os.PathLike, state: State) -> None:
    """Write ``state`` to ``path``, by rename."""
    tensors = {f"model.{k}": v for k, v in state.denoiser.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    metadata = {"config": json.dumps(asdict(state.config)), "step": str(state.step), "loss": repr(state.loss)}
    metadata |= {"precision": state.precision, "scaler": json.dumps(state.scaler.state_dict())}
    write_tensors(path, tensors, metadata)


def restore(path: str | os.PathLike, state: State) -> None:
    """Bring ``state`` to what :func:`save` wrote to ``path``; the loss is NaN if an older version wrote it.

    Raises ``ValueError`` for a file that is damaged, and for the state of another configuration, precision or denoiser.
    """
    tensors, metadata = read_state(path)
    _check(path, metadata, state)
    for prefix, module in (("model.", state.denoiser), ("ema.", state.ema)):
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
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
    state.step, state.loss = int(metadata["step"]), float(metadata.get("loss", "nan"))


def _check(path: str | os.PathLike, metadata: dict[str, str], state: State) -> None:
    if "step" in metadata:
        config = config_from_dict(json.loads(metadata["config"]))
        # What counts is what was computed: "auto" may be the same as a precision by name, or not the same as itself.
        then = metadata.get("precision", config.precision)
        if replace(config, precision=state.config.precision) == state.config:
            if then == state.precision:
                return
            raise ValueError(
                f"{path} was trained in precision {then!r}, here it would go on in {state.precision!r}: "
                f"choose precision={then!r}, or another file"
            )
    raise ValueError(f"{path} belongs to another training configuration: choose another file, or remove it")


class Saver:
    """Saves a training by the clock, when it is interrupted and at its end; without a ``path`` never."""

    def __init__(self, path: str | os.PathLike | None, every_s: float) -> None:
        self.path = path
        self.every_s = every_s
        self._when = time.monotonic()
        self._step = 0  # that is in the file

    def after_step(self, state: State) -> None:
        """Save ``state`` if the last time is long ago, or if this step was the last.

        Raises ``OSError`` when the last one cannot be written; before that it warns, and the training goes on.
        """
        if state.step == state.config.steps:
            self._write(state)
        elif time.monotonic() - self._when > self.every_s:
            self._try(state, "the training goes on")

    def interrupted(self, state: State) -> None:
        """Save the steps since the last time; warns when that cannot be written."""
        if state.step > self._step:
            self._try(state, "what was trained since is lost")

    def _write(self, state: State) -> None:
        if self.path is None:
            return
        try:
            save(self.path, state)
        except (OSError, SafetensorError) as error:
            raise OSError(f"{self.path} could not be written ({error}): is the disk full?") from error
        finally:
            self._when = time.monotonic()
        self._step = state.step

    def _try(self, state: State, then: str) -> None:
        try:
            self._write(state)
        except OSError as error:
            warnings.warn(f"{error} The last saved state is intact, {then}.", RuntimeWarning, stacklevel=4)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C, and SIGTERM where somebody handles it, wait until the end of the block: no step is left half done.

    Outside the main thread, which alone is interrupted, nothing waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {n: h for n, h in before.items() if callable(h)}
    try:
        for number in handlers:
            signal.signal(number, lambda *received: arrived.append(received))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in arrived:
        handlers[number](number, frame)
