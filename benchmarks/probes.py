"""How fast, and in how little memory, many probes are fitted: ``python benchmarks/probes.py``, one thread, seeded.

Linear probes of one layer at ten noise levels against one scikit-learn fit a level, then the largest memory of a
measurement of CIFAR-10's size, which writes 11 GB to the temporary folder. The features of the first part take about
twelve minutes and are kept in _build/.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from theory import row
from torch import Tensor, nn

from repdyn import curves, datasets, features, presets
from repdyn.curves import CurveConfig
from repdyn.denoisers import EDMDenoiser
from repdyn.images import ImageSet
from repdyn.networks.unet import UNet
from repdyn.probes import LinearProbe, fit_many

ROUNDS, L2, CLOSE = 2, 1e-4, 0.002
SWEEP = CurveConfig(dataset="fashion-mnist", num_train=24_000, layers=("dec/14x14_up",), posterior=False, splits=1)
KEPT = Path(__file__).resolve().parent.parent / "_build" / "benchmark-features"
NUM_TRAIN, NUM_TEST, LIMIT = 50_000, 10_000, 6.0  # CIFAR-10's images; gigabytes


def rows() -> list[dict]:
    """The sweep over noise levels against scikit-learn in both precisions, and the memory of a measurement."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*sweep_rows(), memory_row()]
    finally:
        torch.set_num_threads(threads)


def sweep_rows() -> list[dict]:
    """Processor time of ten levels together against ten fits one after the other, at equal test accuracy."""
    reading = curves.read_features(SWEEP, cache=KEPT, progress=True)
    activations, (_, fitted) = reading.activations[SWEEP.layers[0]], reading.splits[0]
    x = torch.stack([level[fitted] for level in activations])  # (S, N, D)
    test = [level[len(reading.train_labels) :].numpy() for level in activations]
    y, y_test = reading.train_labels[fitted].numpy(), reading.test_labels.numpy()
    (ours, *others), (probes, *models) = in_turn(
        [
            lambda: fit_many(x, y, l2=L2),
            lambda: [reference(level.numpy(), y) for level in x],
            lambda: [reference(level.double().numpy(), y) for level in x],
        ]
    )
    result = []
    for precision, spent, fits in zip(("float32", "float64"), others, models, strict=True):
        pairs = list(zip(probes, fits, x, test, strict=True))
        off = max(abs(a.score(t, y_test) - b.score(t, y_test)) for a, b, _, t in pairs)
        if off > CLOSE:
            raise ValueError(f"test accuracies differ by up to {off:.4f}, so times say nothing")
        lower = [objective(b, level.numpy(), y) - objective(a, level.numpy(), y) for a, b, level, _ in pairs]
        note = f"other: scikit-learn on standardised features, {precision}, default tolerance; {tuple(x.shape)}; "
        note += f"accuracies within {100 * off:.2f} points, our objective lower by {min(lower):.0e} to {max(lower):.0e}"
        result.append(row(f"probes at {len(x)} noise levels, {precision}", ours, spent, 0.2, note))
    return result


def reference(x: np.ndarray, y: np.ndarray) -> Pipeline:
    """Scikit-learn's minimum of the same objective, as far as its default tolerance goes."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1 / (L2 * len(x)), max_iter=10_000)).fit(x, y)


def objective(model: LinearProbe | Pipeline, x: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy plus the penalty of weights of standardised features, in double precision."""
    logits = model.decision_function(x).astype(np.float64)
    if isinstance(model, Pipeline):
        weights = model[-1].coef_
    else:
        weights = model.coef_ * x.std(0, dtype=np.float64)
    picked = logits[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float((np.logaddexp.reduce(logits, axis=1) - picked).mean() + L2 / 2 * np.square(weights).sum())


def in_turn(calls: Sequence[Callable[[], object]]) -> tuple[list[float], list]:
    """Shortest processor time of each call, and what it returned; in turn, so that load touches all of them."""
    best, results = [math.inf] * len(calls), [None] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            start = time.process_time()
            results[index] = call()
            best[index] = min(best[index], time.process_time() - start)
    return best, results


def memory_row() -> dict:
    """Largest resident memory of ``curves.measure``, in gigabytes, against the size of the features it reads."""
    output = subprocess.run([sys.executable, __file__, "--memory"], stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(output)
    note = f"gigabytes, other: all features; {NUM_TRAIN} and {NUM_TEST} images, {found['layers']} layers of "
    note += f"{found['narrowest']} to {found['widest']} and the posterior of {found['posterior']}, ten levels; made-up "
    note += f"features of these sizes; {found['minutes']:.0f} min; target {LIMIT:g} GB"
    return row("memory of a measurement, GB", found["peak"], found["features"], LIMIT / found["features"], note)


class StandIn(nn.Module):
    """Layers with the names and widths of cifar10-small's, each a random map of the image, which is the output."""

    def __init__(self) -> None:
        super().__init__()
        network = presets.get("cifar10-small").network
        image = torch.zeros(1, network.channels, network.resolution, network.resolution)
        self.widths = {k: v.shape[1] for k, v in features.extract(EDMDenoiser(UNet(network)), image, 1.0).items()}
        hidden = [name for name in self.widths if name != features.POSTERIOR]
        self.maps = nn.ModuleList(nn.Linear(64, self.widths[name]) for name in hidden)

    def feature_layers(self) -> dict[str, nn.Module]:
        return dict(zip(self.widths, self.maps))  # the posterior, the last, has no map

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        for layer in self.maps:
            layer(x.flatten(1)[:, :64])
        return x


def measure_memory() -> dict:
    """Run ``curves.measure`` on made-up images in a process that does nothing else; for :func:`memory_row`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stand_in, start = StandIn(), time.process_time()

    def load(_name: str, split: str) -> ImageSet:
        num = NUM_TRAIN if split == "train" else NUM_TEST
        images = torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8)
        return original("digits", "train")._replace(images=images, labels=torch.arange(num) % 10)

    original, datasets.load = datasets.load, load
    config = CurveConfig(splits=1, l2=1.0)  # a strong penalty: few steps, in the memory that all steps need
    curves.measure(config, stand_in, progress=True)
    datasets.load = original
    *hidden, posterior = stand_in.widths.values()
    size = 4 * (NUM_TRAIN + NUM_TEST) * len(config.sigmas) * sum(stand_in.widths.values())
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "features": size / 1e9,
        "layers": len(hidden),
        "narrowest": min(hidden),
        "widest": max(hidden),
        "posterior": posterior,
        "minutes": (time.process_time() - start) / 60,
    }


def main() -> None:
    if "--memory" in sys.argv:
        print(json.dumps(measure_memory()))
        return
    for entry in rows():
        print(
            f"{entry['name']:<40} {entry['ours_s']:8.3f} {entry['other_s']:8.3f} {entry['ratio']:6.3f} {entry['note']}"
        )


if __name__ == "__main__":
    main()
