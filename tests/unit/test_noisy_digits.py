"""Digits beside noise: the data, what is asked of a model, and the classifier's switch on real images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from repdyn import datasets, records
from repdyn.chapters import recipes
from repdyn.chapters.feature_learning.noisy_digits import (
    NoisyDigitsConfig,
    fit_classifier,
    measure,
    patches,
    readable,
    rebuilt,
    response,
    swapped,
)
from repdyn.networks import MLPDenoiser

DIGITS = datasets.load("digits", "train")
LABELS = DIGITS.labels[:200]


@pytest.mark.parametrize("snr", [0.1, 3.0])
def test_patches_have_their_ratio(snr: float) -> None:
    x = patches(DIGITS, snr, scale=0.7, seed=1)
    assert x.shape == (1437, 2, 64) and x.dtype == torch.float32
    signal, noise = x.square().mean((0, 2)).sqrt().tolist()
    assert signal / noise == pytest.approx(snr, rel=0.02)
    assert np.hypot(signal, noise) == pytest.approx(0.7 * np.sqrt(2), rel=0.02)
    assert x[:, 0].mean(0).abs().max() < 1e-5
    assert not torch.equal(x[:, 1], patches(DIGITS, snr, scale=0.7, seed=2)[:, 1])
    for bad in ({"snr": 0.0}, {"snr": snr, "scale": float("nan")}):
        with pytest.raises(ValueError, match="positive"):
            patches(DIGITS, **bad)


class Linear(nn.Module):
    """A layer that sees the signal patch three times as loud as the noise patch, and a denoiser that halves."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden2 = nn.Linear(128, 128, bias=False)
        self.hidden2.weight.data = torch.diag(torch.tensor([3.0] * 64 + [1.0] * 64))

    def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.hidden2(x.flatten(1))
        return x / 2

    def feature_layers(self) -> dict[str, nn.Module]:
        return {"hidden2": self.hidden2}


def test_response_and_rebuilding_of_a_linear_model() -> None:
    x = patches(DIGITS, 2.0)
    signal, noise = response(Linear(), x, 0.5)
    assert signal / noise == pytest.approx(3 * 2, rel=0.02)
    assert signal == pytest.approx(3 * x[:, 0].square().sum(1).mean().sqrt().item(), rel=1e-4)
    # x/2 - x_0 = (sigma eps - x_0) / 2
    expected = [1 - (0.25 + 0.25 * 0.25 / part.item()) for part in x.square().mean((0, 2))]
    assert rebuilt(Linear(), x, 0.5, seed=0) == pytest.approx(expected, abs=0.01)


def test_response_is_a_derivative() -> None:
    x, model, seen = patches(DIGITS, 1.0)[:50], MLPDenoiser(128, hidden=32), []
    model.feature_layers()["hidden2"].register_forward_hook(lambda _m, _i, output: seen.append(output))
    along = torch.stack([x[:, 0], torch.zeros(50, 64)], dim=1)
    with torch.no_grad():
        model(x + 1e-2 * along, 0.5), model(x - 1e-2 * along, 0.5)
    slope = (seen[0] - seen[1]) / 2e-2
    assert response(model, x, 0.5)[0] == pytest.approx(slope.square().sum(1).mean().sqrt().item(), rel=1e-2)


def test_what_can_be_read() -> None:
    x = patches(DIGITS, 1.0)
    train, test = x[:600], x[600:1000]
    assert min(readable(Linear(), train, test, 0.5)) > 0.999
    blind = Linear()
    blind.hidden2.weight.data[64:] = 0
    signal, noise = readable(blind, train, test, 0.5)
    assert signal > 0.999 and noise < 0.05


def test_the_wrapped_classifier_is_scikit_learns_and_switches() -> None:
    loud, quiet = (patches(DIGITS, snr)[:200] for snr in (10.0, 0.03))
    digit, memory = (fit_classifier(x, LABELS, 64, seed=0) for x in (loud, quiet))
    for model, x in ((digit, loud), (memory, quiet)):
        assert (model(x).argmax(1) == LABELS).double().mean() > 0.99
    new_noise, new_signal = swapped(digit, loud, LABELS, seed=0)
    assert new_noise > 0.99 and new_signal < 0.25
    new_noise, new_signal = swapped(memory, quiet, LABELS, seed=0)
    assert new_noise < 0.25 and new_signal > 0.8
    assert list(digit.feature_layers()) == ["hidden1", "hidden2"]


def test_a_measurement_is_plain_and_repeatable() -> None:
    config = NoisyDigitsConfig(num_train=100, num_test=50, snrs=(0.3, 3.0), hidden=24, images=640, seeds=2)
    result = measure(config)
    assert json.loads(json.dumps(result)) == {
        key: [[list(v) if isinstance(v, tuple) else v for v in row] for row in rows] for key, rows in result.items()
    }
    assert all(np.shape(rows)[:2] == (2, 2) for rows in result.values())
    again = measure(replace(config, snrs=(3.0,)))
    assert again["response_denoiser"][0] == pytest.approx(result["response_denoiser"][1])
    assert abs(result["response_untrained"][1][0] - np.log10(3)) < 0.15


def test_the_denoiser_is_the_more_balanced_one_in_the_record() -> None:
    entry = records.read(recipes.get("noisy-mnist"))
    snrs, metrics = np.log10(entry["config"]["snrs"]), entry["metrics"]
    slope = {k: np.polyfit(snrs, metrics[f"response_{k}"], 1)[0] for k in ("denoiser", "classifier", "untrained")}
    assert (slope["denoiser"] < slope["classifier"]).all() and (slope["denoiser"] < slope["untrained"]).all()
    new_noise, new_signal = (np.mean(metrics[key], 1) for key in ("new_noise", "new_signal"))
    assert new_signal[0] > 0.3 and new_noise[0] < 0.7  # at the lowest SNR much is memorised
    assert new_noise[-1] > 0.95 and new_signal[-1] < 0.2
    for patch in ("signal", "noise"):
        assert np.min(metrics[f"{patch}_denoiser"]) > 0.95
    assert np.max(metrics["signal_classifier"][0]) < 0.5 and np.max(metrics["noise_classifier"][-1]) < 0.05
