"""Training in two processes, real ones, that talk over the loopback interface: the same as in one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from repdyn.training import TrainConfig, train

# What each process writes down: the loss of every step, whether it is the main one, an image denoised at the end.
CHILD = """
import json, os, sys, torch
torch.set_num_threads(1)
from repdyn.training import config_from_dict
from repdyn.training import train
folder, limit = sys.argv[2], int(sys.argv[3])
state_file = folder + "/state-" + os.environ["RANK"] + ".safetensors" if limit == 0 else folder + "/state.safetensors"
losses = []
for step in train(config_from_dict(json.loads(sys.argv[1])), state_file, cpu=True, save_every_s=-1):
    losses.append(step.loss)
    if len(losses) == limit:
        os.kill(os.getpid(), 9)
x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
with torch.no_grad():
    output = [getattr(step, name).eval()(x, 0.5).flatten().tolist() for name in ("denoiser", "ema")]
result = {"losses": losses, "main": step.main, "output": output}
open(folder + "/result-" + os.environ["RANK"] + ".json", "w").write(json.dumps(result))
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def steady(tiny: TrainConfig) -> TrainConfig:
    """A training without dropout, which differs from process to process, on batches that two cannot share evenly."""
    network = replace(tiny.network, dropout=0.0, num_classes=10, augment_dim=6)
    return replace(tiny, network=network, batch_size=15, images=8 * 15, augment=0.3, flip=True)


def in_two_processes(config: TrainConfig, folder: Path, kill_after: int = -1) -> list[subprocess.CompletedProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [sys.executable, "-c", CHILD, json.dumps(asdict(config)), str(folder), str(kill_after)]
    processes = []
    for rank in "01":
        environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(arguments, env=environment, **pipes))
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [subprocess.CompletedProcess(p.args, p.returncode, *o) for p, o in zip(processes, outputs)]


def in_one_process(config: TrainConfig) -> tuple[list[float], list[Tensor]]:
    losses = []
    for step in train(config, cpu=True):
        losses.append(step.loss)
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    with torch.no_grad():
        return losses, [denoiser.eval()(x, 0.5).flatten() for denoiser in (step.denoiser, step.ema)]


def test_two_processes_are_one_also_when_killed_and_resumed(steady: TrainConfig, tmp_path: Path) -> None:
    killed = in_two_processes(steady, tmp_path, kill_after=4)
    assert [process.returncode for process in killed] == [-signal.SIGKILL] * 2, killed[0].stderr
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        done = int(file.metadata()["step"])
    assert 3 <= done <= 4
    finished = in_two_processes(steady, tmp_path)
    assert [process.returncode for process in finished] == [0, 0], finished[0].stderr + finished[1].stderr
    results = [json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in (0, 1)]
    assert [result["main"] for result in results] == [True, False]
    assert results[0]["losses"] == results[1]["losses"], "both report the loss of the whole batch"
    losses, outputs = in_one_process(steady)
    assert results[0]["losses"] == pytest.approx(losses[done - 1 :], rel=1e-4)
    for result in results:
        for found, expected in zip(result["output"], outputs):
            torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result-0.json", "result-1.json", "state.safetensors"]


def test_only_the_main_process_writes(steady: TrainConfig, tmp_path: Path) -> None:
    finished = in_two_processes(replace(steady, images=30), tmp_path, kill_after=0)  # each with a file of its own
    assert [process.returncode for process in finished] == [0, 0], finished[0].stderr + finished[1].stderr
    assert [path.name for path in tmp_path.glob("state*")] == ["state-0.safetensors"]


def test_more_processes_than_images_are_refused(steady: TrainConfig, tmp_path: Path) -> None:
    for process in in_two_processes(replace(steady, batch_size=1), tmp_path):
        assert process.returncode == 1
        assert "ValueError: batch_size must be at least the 2 processes: start fewer" in process.stderr
