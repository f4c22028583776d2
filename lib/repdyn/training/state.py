"""The state of a training: what there is of it between two steps, and the file that it goes on from."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from repdyn._files import read_state, write_tensors
from repdyn.training.config import TrainConfig, config_from_dict

__all__ = ["Saver", "State", "restore", "save"]


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
    """Saves a training by the clock and at its end; without a ``path`` never."""

    def __init__(self, path: str | os.PathLike | None, every_s: float) -> None:
        self.path = path
        self.every_s = every_s
        self._saved = time.monotonic()

    def restore(self, state: State) -> bool:
        """Whether there was a file; then ``state`` is brought to it."""
        if self.path is None or not Path(self.path).exists():
            return False
        restore(self.path, state)
        return True

    def after_step(self, state: State) -> None:
        """Save ``state`` if the last time is long ago, or if this step was the last."""
        due = state.step == state.config.steps or time.monotonic() - self._saved > self.every_s
        if self.path is not None and due:
            save(self.path, state)
            self._saved = time.monotonic()
