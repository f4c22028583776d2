"""Tiny trainings and denoisers that the unit tests share, and one thread for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repdyn.denoisers import EDMDenoiser
from repdyn.networks import UNetConfig
from repdyn.training import TrainConfig, make_denoiser


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Bit-identical results need one number of threads, and tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> TrainConfig:
    """A training on scikit-learn's digits that takes a few milliseconds a step, with everything on that is random."""
    network = UNetConfig(
        resolution=8,
        channels=1,
        model_channels=8,
        channel_mult=(1, 2),
        num_blocks=1,
        attn_resolutions=(4,),
        dropout=0.1,
    )
    return TrainConfig(
        dataset="digits",
        network=network,
        images=96,
        batch_size=16,
        learning_rate=3e-3,
        warmup_images=32,
        precision="float32",
        seed=3,
    )


@pytest.fixture
def denoiser(tiny: TrainConfig) -> EDMDenoiser:
    """An untrained denoiser of 8x8 images whose every layer counts: none of its weights are near zero."""
    denoiser = make_denoiser(tiny)
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return denoiser


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, no REPDYN_DATA and no network."""

    def unreachable(url: str, *_: object, **__: object) -> str:
        raise OSError(f"no route to {url}")

    monkeypatch.delenv("REPDYN_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("pooch.retrieve", unreachable)
    return tmp_path


@pytest.fixture
def full_fashion(shared_data: Path) -> Path:
    """The folder of the full Fashion-MNIST, if there is one."""
    from repdyn import datasets

    try:
        datasets.load("fashion-mnist", "test")
    except ConnectionError:
        pytest.skip("NOT TESTED: no full Fashion-MNIST here; put it into a folder named by REPDYN_DATA")
    return shared_data
