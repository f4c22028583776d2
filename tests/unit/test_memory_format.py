"""The layout of images in memory: timed on a GPU, known on a CPU, and without a trace in what is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repdyn import training
from repdyn.training import TrainConfig, memory_format


class Seen(nn.Module):
    """A network with dropout that notes the layout of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = nn.Conv2d(3, 4, 3), []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append([t.is_contiguous(memory_format=torch.channels_last) for t in (x, self.conv.weight)])
        return nn.functional.dropout(self.conv(x), 0.5)


X0 = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", memory_format.FORMATS)
def test_both_are_run_on_a_copy(layout: torch.memory_format) -> None:
    network, seen = Seen(), []

    def loss(trial: Seen, x0: Tensor) -> Tensor:
        value = trial(x0).square().mean()
        seen.append(trial.seen[-1])
        return value

    before = torch.random.get_rng_state()
    assert memory_format.seconds_in(layout, network, X0, loss) > 0
    assert seen == 8 * [2 * [layout == torch.channels_last]]
    assert network.conv.weight.grad is None and network.conv.weight.is_contiguous()
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_faster_is_taken_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(layout: torch.memory_format, *_: object) -> float:
        return 1.0 if layout == torch.channels_last else 2.0

    class Elsewhere:
        ndim, device = 4, torch.device("cuda")

    monkeypatch.setattr(memory_format, "seconds_in", seconds)
    assert memory_format.fastest(Seen(), Elsewhere(), lambda *_: None) == torch.channels_last
    assert memory_format.fastest(Seen(), X0, lambda *_: None) == torch.contiguous_format


def test_channels_last_trains_the_same_to_rounding(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses() -> list[float]:
        return [step.loss for step in training.train(tiny, cpu=True)][:4]

    expected = losses()
    monkeypatch.setattr(memory_format, "fastest", lambda *_: torch.channels_last)
    assert losses() == pytest.approx(expected, rel=2e-2)
