"""A training that is interrupted, or whose disk is full, keeps what it has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from repdyn import cli, presets
from repdyn._files import read_state
from repdyn.training import Step, TrainConfig, loop, train


def weights(step: Step) -> list[torch.Tensor]:
    return [value.clone() for module in (step.denoiser, step.ema) for value in module.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def saved_step(state_file: Path) -> int:
    return int(read_state(state_file)[1]["step"])


def signals_in(module: object, name: str, at: int, number: int, patch: pytest.MonkeyPatch) -> None:
    """Let the ``at``-th call of a function be interrupted before it has done anything."""
    original, calls = getattr(module, name), []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # the interpreter looks for signals between two instructions
        return original(*args, **options)

    patch.setattr(module, name, interrupted)


@pytest.fixture
def whole(tiny: TrainConfig) -> list[torch.Tensor]:
    *_, last = train(tiny, cpu=True)
    return weights(last)


@pytest.mark.parametrize("where", ["dae_loss", "_update_ema"])
def test_ctrl_c_in_a_step_saves_the_whole_step(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[torch.Tensor], where: str
) -> None:
    state_file, before = tmp_path / "state.safetensors", signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        signals_in(loop, where, 3, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            list(train(tiny, state_file, cpu=True))
    assert saved_step(state_file) == 3
    assert signal.getsignal(signal.SIGINT) is before
    *_, last = train(tiny, state_file, cpu=True)
    assert same(weights(last), whole)


def test_who_stops_asking_leaves_the_last_step_in_the_file(
    tiny: TrainConfig, tmp_path: Path, whole: list[torch.Tensor]
) -> None:
    state_file = tmp_path / "state.safetensors"
    steps = train(tiny, state_file, cpu=True)
    next(steps), next(steps)
    assert not state_file.exists()
    steps.close()
    assert saved_step(state_file) == 2
    *_, last = train(tiny, state_file, cpu=True)
    assert same(weights(last), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_saves_on_signals(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", tiny)
    before, arguments = signal.getsignal(signal.SIGTERM), ["train", "fashion-tiny", "--cpu", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        signals_in(loop, "dae_loss", 4, number, patch)
        result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 1 and "Aborted" in result.output
    assert saved_step(tmp_path / "fashion-tiny" / "state.safetensors") == 4
    assert signal.getsignal(signal.SIGTERM) is before
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0 and "Precision: float32" in result.output
    assert (tmp_path / "fashion-tiny" / "weights.safetensors").exists()


def test_the_command_trains_in_the_precision_asked_for(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets.PRESETS, "fashion-tiny", replace(tiny, images=32))
    arguments = ["train", "fashion-tiny", "--cpu", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.main, [*arguments, "--precision", "fp16"])
    assert result.exit_code == 0 and "Precision: fp16" in result.output
    result = CliRunner().invoke(cli.main, [*arguments, "--precision", "float32"])
    assert result.exit_code == 1 and "precision='fp16'" in result.output


# ------------------------------------------------------------------------------------------------------ a full disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """A disk that is full while ``full["now"]``."""
    from repdyn.training import state

    write, disk = state.write_tensors, {"now": True}

    def limited(*args: object) -> None:
        if disk["now"]:
            raise OSError("No space left on device")
        write(*args)

    monkeypatch.setattr(state, "write_tensors", limited)
    yield disk


def test_a_full_disk_is_a_warning_until_there_is_room(
    tiny: TrainConfig, tmp_path: Path, full: dict[str, bool], whole: list[torch.Tensor]
) -> None:
    state_file = tmp_path / "state.safetensors"
    steps = train(tiny, state_file, cpu=True, save_every_s=-1)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="state.safetensors could not be written .*No space left.* goes on"):
            next(steps)
    full["now"] = False
    *_, last = steps
    assert same(weights(last), whole) and saved_step(state_file) == tiny.steps


def test_a_full_disk_at_the_end_is_an_error(tiny: TrainConfig, tmp_path: Path, full: dict[str, bool]) -> None:
    seen = []
    with pytest.raises(OSError, match="state.safetensors could not be written"):
        for step in train(tiny, tmp_path / "state.safetensors", cpu=True, save_every_s=1e9):
            seen.append(step.step)
    assert seen == list(range(1, tiny.steps))


def test_a_full_disk_when_interrupted_is_a_warning(tiny: TrainConfig, tmp_path: Path, full: dict[str, bool]) -> None:
    steps = train(tiny, tmp_path / "state.safetensors", cpu=True)
    next(steps)
    with pytest.warns(RuntimeWarning, match="state.safetensors could not be written .* is lost"):
        steps.close()
