"""What a reading of features is made of: positions averaged, draws of noise, and a noise of its own for each level."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from repdyn.curves import CurveConfig, measure, probe_curves, read_features
from repdyn.features import POSTERIOR, default_device, extract, supports_bf16
from repdyn.images import to_unit_range
from repdyn.metrics.resampling import peak_height
from repdyn.noise import PAPER_SIGMAS


class Tokens(nn.Module):
    """A denoiser with a layer of tokens (N, C, T) and one of vectors (N, C); the output is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.vectors = nn.Flatten(2), nn.Flatten(1)
        self.calls = 0

    def feature_layers(self) -> dict[str, nn.Module]:
        return {"tokens": self.tokens, "vectors": self.vectors}

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        self.tokens(x)
        self.vectors(x)
        return x


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_positions_of_tokens_are_averaged_and_vectors_stay(images: Tensor) -> None:
    """Guards the pooling of activations that are neither maps nor vectors."""
    found = extract(Tokens(), images, 0.5)
    torch.testing.assert_close(found["tokens"], images.mean((2, 3)))
    torch.testing.assert_close(found["vectors"], images.flatten(1))
    torch.testing.assert_close(found[POSTERIOR], images.flatten(1))
    assert torch.equal(extract(Tokens(), images, 0.5, ["tokens"], pool="none")["tokens"], images.flatten(1))
    assert torch.equal(extract(Tokens(), images, 0.5, ["tokens"], pool="maps")["tokens"], images.flatten(2))


def test_a_clean_image_is_read_once_however_many_draws(images: Tensor) -> None:
    """Guards the cost of a clean reading: there is nothing to average."""
    for noisy, calls in ((False, 1), (True, 7)):
        denoiser = Tokens()
        extract(denoiser, images, 0.5, noisy_input=noisy, draws=7)
        assert denoiser.calls == calls


def test_the_mean_over_draws_and_images_is_taken_in_batches_of_256(images: Tensor) -> None:
    """Guards the default batch, which bounds the memory of a reading, and that no image is left out."""
    denoiser = Tokens()
    many = images.repeat(50, 1, 1, 1)[:257]
    assert torch.equal(extract(denoiser, many, 0.5)["vectors"], many.flatten(1)) and denoiser.calls == 2


def test_one_draw_and_the_first_seed_unless_told_otherwise(images: Tensor) -> None:
    """Guards the defaults of a reading, which are those of the records."""
    plain = extract(Tokens(), images, 0.5, noisy_input=True)
    told = extract(Tokens(), images, 0.5, noisy_input=True, draws=1, pool="mean", seed=0)
    assert list(plain) == ["tokens", "vectors", POSTERIOR] and all(torch.equal(plain[k], told[k]) for k in plain)
    assert torch.equal(extract(Tokens(), images, 0.5)[POSTERIOR], images.flatten(1)), "a clean input"


def test_bf16_is_for_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards which GPUs read features in bfloat16: those of compute capability 8.0 and later."""
    for available, capability, expected in (
        (True, (8, 0), True),
        (True, (9, 0), True),
        (True, (7, 5), False),
        (False, (8, 0), False),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda value=available: value)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, value=capability: value)
        assert supports_bf16("cuda") is expected
        assert default_device().type == ("cuda" if available else "cpu")


def test_each_noise_level_of_a_curve_has_its_own_noise() -> None:
    """Guards the seeds of the levels: one draw for all would correlate the errors along a curve."""
    config = CurveConfig(
        dataset="digits", num_train=50, num_test=20, sigmas=(0.1, 0.2, 0.4), noisy_input=True, pixels=False, layers=()
    )
    reading = read_features(config, Tokens())
    clean = to_unit_range(reading.images).flatten(1)
    noise = [(x - clean) / sigma for x, sigma in zip(reading.activations[POSTERIOR], config.sigmas, strict=True)]
    correlation = torch.corrcoef(torch.stack([n.flatten() for n in noise]))
    assert (correlation - torch.eye(3)).abs().max() < 0.1
    again = read_features(replace(config, seed=1), Tokens()).activations[POSTERIOR][0]
    other_images = read_features(replace(config, seed=1, noisy_input=False), Tokens()).activations[POSTERIOR][0]
    first = ((again - other_images) / 0.1).flatten()
    assert abs(torch.corrcoef(torch.stack([first, noise[1].flatten()]))[0, 1]) < 0.1, "nor that of another seed"


def test_what_a_curve_is_of_unless_told_otherwise() -> None:
    """Guards the defaults that a record need not name."""
    known = {
        "weights": "fashion-small", "dataset": "fashion-mnist-mini", "num_train": None, "num_test": None,
        "sigmas": PAPER_SIGMAS, "noisy_input": False, "draws": 1, "splits": 3, "validation": 1 / 6, "l2": 1e-4,
        "layers": None, "posterior": True, "pixels": True, "untrained": False, "seed": 0,
    }  # fmt: skip
    assert {key: value for key, value in asdict(CurveConfig()).items() if key in known} == known


def test_the_peak_is_resampled_from_the_seed_of_the_curve(capsys: pytest.CaptureFixture) -> None:
    """Guards the seed of the intervals, whose items are test images, and that nothing is told unless asked for."""
    config = CurveConfig(
        dataset="digits", num_train=100, sigmas=(0.2, 1.0, 5.0), noisy_input=True, splits=1, l2=1e-1,
        layers=("vectors",), posterior=False, pixels=False, seed=3,
    )  # fmt: skip
    peak, reading = measure(config, Tokens())["peak"], read_features(config, Tokens())
    labels = (reading.train_labels, reading.test_labels, reading.splits, config.l2)
    correct = probe_curves(reading.activations["vectors"], *labels).correct.mean(0)
    assert (
        peak == peak_height(correct, peak["index"], seed=3)._asdict() != peak_height(correct, peak["index"])._asdict()
    )
    assert capsys.readouterr().err == ""
