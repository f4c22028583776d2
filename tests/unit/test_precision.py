"""In which precision a training computes: by device, in its state, and never emulated unless asked for by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from repdyn import presets
from repdyn.features import supports_bf16
from repdyn.training import TrainConfig, make_denoiser, train
from repdyn.training.precision import effective

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NATIVE = supports_bf16(CPU)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


@pytest.mark.parametrize("name", presets.PRESETS)
@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 1), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_no_preset_asks_an_older_gpu_for_bf16(
    gpu: pytest.MonkeyPatch, name: str, capability: tuple[int, int], precision: str
) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert effective(presets.get(name).precision, GPU) == precision


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_computes_in_bf16_where_it_can(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr("repdyn.training.precision.supports_bf16", lambda device: native)
    assert effective("auto", CPU) == ("bf16" if native else "float32")
    assert effective("auto", torch.device("mps")) == "float32"
    assert effective("float32", CPU) == "float32" and effective("fp16", CPU) == "fp16"


def test_emulated_bf16_by_name_warns(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    with pytest.warns(UserWarning, match="bf16"):
        assert effective("bf16", GPU) == "bf16"


@pytest.mark.parametrize(
    ("resolved", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_products_are_in_the_precision_that_auto_became(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, resolved: str, dtype: torch.dtype
) -> None:
    """The processor stands in for a GPU: in what its products are, and what a step says of itself."""
    products = set()

    def note(module: nn.Module, _: object, output: object) -> None:
        if type(module).__name__ in ("Conv", "Linear"):
            products.add(output.dtype)

    monkeypatch.setattr("repdyn.training.loop.effective", lambda precision, device: resolved)
    with register_module_forward_hook(note):
        steps = list(train(replace(tiny, images=16, precision="auto"), cpu=True))
    assert products == {dtype} and {step.precision for step in steps} == {resolved}
    assert all(math.isfinite(step.loss) for step in steps)


def test_the_default_is_what_bf16_was(tiny: TrainConfig) -> None:
    if not NATIVE:
        pytest.skip("NOT TESTED: this processor has no bf16")
    (*_, auto), (*_, named) = (train(replace(tiny, precision=name), cpu=True) for name in ("auto", "bf16"))
    assert auto.precision == named.precision == "bf16" and TrainConfig("digits", None, 1).precision == "auto"
    pairs = zip(auto.denoiser.parameters(), named.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# --------------------------------------------------------------------------------------------------- scaled losses


def test_fp16_trains_with_a_scaled_loss_and_resumes_with_its_scale(tiny: TrainConfig, tmp_path: Path) -> None:
    config, state_file = replace(tiny, precision="fp16"), tmp_path / "state.safetensors"
    exact = [step.loss for step in train(tiny, cpu=True)]
    *_, whole = train(config, cpu=True)
    losses = []
    for step in train(config, state_file, cpu=True, save_every_s=-1):
        losses.append(step.loss)
        if step.step == 3:
            break
    *_, last = train(config, state_file, cpu=True)
    assert losses == pytest.approx(exact[:3], rel=0.05)
    pairs = zip(last.denoiser.parameters(), whole.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_step_whose_scaled_gradient_overflows_is_left_out(tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device, enabled: scaler(device, init_scale=2.0**126, enabled=enabled)
    )
    config = replace(tiny, precision="fp16", images=16, grad_clip=1e9)
    after = next(train(config, cpu=True)).denoiser.parameters()
    assert all(torch.equal(a, b) for a, b in zip(make_denoiser(config).parameters(), after, strict=True))


# -------------------------------------------------------------------------------------------------------- resuming


def test_a_training_goes_on_in_its_own_precision_only(tiny: TrainConfig, tmp_path: Path) -> None:
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    before = state_file.read_bytes()
    with safe_open(state_file, "pt") as file:
        assert file.metadata()["precision"] == "float32"
    with pytest.raises(ValueError, match="precision 'float32'.* 'fp16'"):
        next(train(replace(tiny, precision="fp16"), state_file, cpu=True))
    assert state_file.read_bytes() == before


def test_a_state_by_another_word_for_the_same_precision_resumes(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that was written when the presets said bf16 by name, and the precision was in no metadata."""
    state_file = tmp_path / "state.safetensors"
    next(train(tiny, state_file, cpu=True, save_every_s=-1))
    with safe_open(state_file, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if k not in ("precision", "scaler")}
    save_file(load_file(state_file), state_file, metadata)
    monkeypatch.setattr("repdyn.training.precision.supports_bf16", lambda device: False)
    assert next(train(replace(tiny, precision="auto"), state_file, cpu=True)).restored
