"""Command line: ``repdyn data``, ``train``, ``probe``, ``record``, ``verify``."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import joblib
import numpy as np

from repdyn import curves, datasets, presets, pretrained, records
from repdyn.chapters import recipes
from repdyn.noise import PAPER_SIGMAS
from repdyn.records.sweeps import SweepError
from repdyn.training.precision import PRECISIONS

__all__ = ["main"]


class _Main(click.Group):
    """Reports what a reader can put right as a message, not as a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ValueError, ConnectionError, FloatingPointError, SweepError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Representation dynamics of diffusion models: data, train, probe, record, verify."""


@main.command()
@click.argument("name", required=False, type=click.Choice(datasets.NAMES))
@click.option(
    "--path", type=click.Path(path_type=Path), help="Folder to look in, instead of $REPDYN_DATA and the cache."
)
@click.option("--size", type=int, help="image-folder: crop and resize all images to SIZE by SIZE pixels.")
def data(name: str | None, path: Path | None, size: int | None) -> None:
    """Find or download the data set NAME, verify it and say what is in it; without NAME, list the sets.

    Sets are looked for in $REPDYN_DATA and the cache, and downloaded last. Some are copies that no site offers: put
    their archives into a folder of yours and name it in REPDYN_DATA.
    """
    if name is None:
        for known in datasets.NAMES:
            click.echo(f"{known:20}{datasets.describe(known).variant}")
        return
    description = datasets.describe(name)
    classes: tuple[str, ...] = ()
    for split in description.splits:
        found = datasets.load(name, split, path=path, size=size)
        shapes = f"images {tuple(found.images.shape)}, labels {tuple(found.labels.shape)}"
        click.echo(f"{split:8}{shapes}, sha256 {found.sha256}")
        classes = found.classes
    click.echo(f"{'classes':8}{len(classes)}: {', '.join(classes)}")
    click.echo(f"{'variant':8}{description.variant}\n{'licence':8}{description.licence}")


@main.command()
@click.argument("preset", type=click.Choice(sorted(presets.PRESETS)))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the runs."
)
@click.option("--dataset", help="Another data set of the same shape, such as cifar10 in place of cifar10-jpeg.")
@click.option("--cpu", is_flag=True, help="Stay on the CPU even if there is a GPU.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of the products in a step.  [default: the preset's]")
def train(preset: str, out: Path, dataset: str | None, cpu: bool, precision: str | None) -> None:
    """Train PRESET, or go on where it stopped.

    The state lies in OUT/PRESET/state.safetensors and is saved every two minutes, and on Ctrl-C and SIGTERM; run the
    same command again after an interruption. The averaged weights end up in OUT/PRESET/weights.safetensors, which
    repdyn.pretrained.load reads. Data is looked for in $REPDYN_DATA and the cache, and downloaded last.
    """
    with _ended_by_sigterm():
        weights = presets.train(preset, out, dataset=dataset, cpu=cpu, precision=precision)
    click.echo(f"Weights in {weights}")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM is a Ctrl-C, after which the state is saved; a write that fails is reported."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except OSError as error:
        raise click.ClickException(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)


class _List(click.ParamType):
    """Values of one type with commas between them; given as a tuple."""

    def __init__(self, kind: type) -> None:
        self.kind, self.name = kind, f"{kind.__name__},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part.strip()) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.1,1", param, ctx)


def _json_file(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix != ".json":
        raise click.BadParameter(f"{value} must end in .json")
    return value


@main.command()
@click.option(
    "--weights",
    default="fashion-small",
    show_default=True,
    help=f"Whose features: a shipped denoiser ({', '.join(pretrained.available())}) or a file that repdyn train wrote.",
)
@click.option(
    "--dataset",
    type=click.Choice([name for name in datasets.NAMES if name != "image-folder"]),
    default="fashion-mnist-mini",
    show_default=True,
    help="Images and labels; their size must be that of the network.",
)
@click.option("--num-train", default=1000, show_default=True, help="Training images, equally many of each class.")
@click.option("--num-test", default=500, show_default=True, help="Test images, equally many of each class.")
@click.option("--sigmas", type=_List(float), help="Noise levels, rising.  [default: the paper's ten]")
@click.option("--noisy", is_flag=True, help="Add noise to the images; without it they are read clean.")
@click.option("--layers", type=_List(str), help="Hidden layers, e.g. enc/7x7_block0.  [default: all]")
@click.option(
    "--l2",
    type=_List(float),
    default="1e-4,1e-3,1e-2,1e-1",
    show_default=True,
    help="Penalties of the probe; of several, validation images choose.",
)
@click.option("--splits", default=3, show_default=True, help="Repetitions, each with other validation images.")
@click.option("--seed", default=0, show_default=True, help="Draws images, splits and noise.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder that keeps the features, for another run.")
@click.option("--out", type=click.Path(path_type=Path), callback=_json_file, help="JSON file for result and settings.")
def probe(noisy: bool, sigmas: tuple | None, l2: tuple, cache: Path | None, out: Path | None, **options: Any) -> None:
    """Accuracy of linear probes on a denoiser's features, at each noise level.

    The features of each layer are averaged over positions. A linear probe is fitted to them for each layer and noise
    level; a sixth of the training images is held out and chooses the layer and the penalty, so the test images choose
    nothing. The table has a line for each noise level:

    \b
      test       accuracy of the chosen layer, mean over splits
      spread     highest less lowest over splits
      posterior  accuracy of a probe on the denoised image itself

    Below it are the chosen layer, the accuracy of raw pixels, and how far the best level stands above both ends, with
    95 % intervals over test images: a peak has both intervals above zero.

    Try: repdyn probe --sigmas 0.01,0.3,3 --layers dec/7x7_block0,dec/14x14_up
    """
    config = curves.CurveConfig(
        sigmas=sigmas or PAPER_SIGMAS, noisy_input=noisy, l2=l2[0] if len(l2) == 1 else l2, **options
    )
    result = curves.measure(config, cache=cache, progress=True)
    click.echo("\n".join(_table(result)))
    if out is not None:
        record = {"name": out.stem, "config": asdict(config), "metrics": result, "provenance": records.provenance()}
        click.echo(f"Written to {records.write(record, out.parent)}")


def _table(result: dict[str, Any]) -> list[str]:
    test, posterior = np.array(result["test"]), np.mean(result["posterior"], axis=0)
    lines = [f"{'sigma':>8}{'test':>10}{'spread':>10}{'posterior':>11}"]
    for sigma, mean, spread, other in zip(result["sigmas"], test.mean(0), np.ptp(test, axis=0), posterior, strict=True):
        lines.append(f"{sigma:8.3g}{mean:10.4f}{spread:10.4f}{other:11.4f}")
    lines += [f"layer   {result['best_layer']}", f"pixels  {np.mean(result['pixels']):.4f}"]
    if result["peak"] is not None:
        peak = result["peak"]
        lines.append(f"peak    at sigma {result['sigmas'][peak['index']]:.3g}, as the validation images have it")
        for side, end in (("left", "lowest"), ("right", "highest")):
            low, high = peak[f"{side}_interval"]
            lines.append(f"        {peak[f'above_{side}']:+.4f} [{low:+.4f}, {high:+.4f}] above the {end} level")
    return lines


@main.command()
@click.argument("name", required=False, type=click.Choice(sorted(recipes.RECIPES)))
@click.option("--list", "listing", is_flag=True, help="Say of each record (or of NAME) what is shipped, and stop.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the records."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs of a sweep side by side, each in a process.",
)
def record(name: str | None, listing: bool, out: Path, jobs: int) -> None:
    """Make the record NAME in full, or go on where it stopped.

    Writes OUT/NAME.json. What is done, features or the runs of a sweep, is kept in OUT/NAME until then.

    --list has a line for each record: missing, stale and why (what of its configuration or version differs), or
    recorded, how long it took, when, and on what.
    """
    if listing:
        for known in [name] if name else recipes.RECIPES:
            click.echo(_state(known))
        return
    if name is None:
        raise click.UsageError("name a record to make, or use --list to see them")
    # A worker that keeps to one thread is faster than several that compete for the processor.
    with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1) if jobs > 1 else nullcontext():
        path = records.write(records.make(recipes.get(name), cache=out / name), out)
    shutil.rmtree(out / name, ignore_errors=True)  # or the next record of this name would be made of today's parts
    click.echo(f"Record written to {path}")


def _state(name: str) -> str:
    state = records.state(recipes.get(name))
    if state != "recorded":
        return f"{name:30}{state}"
    made = records.read_any(name)["provenance"]
    return f"{name:30}{state:10}{made['seconds'] / 60:6.0f} min   {made['date']}   {made['device']}"


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(recipes.RECIPES)))
@click.option(
    "--tolerance",
    default=0.03,
    show_default=True,
    help="Largest accepted difference: processors round bfloat16 differently.",
)
def verify(names: tuple[str, ...], tolerance: float) -> None:
    """Recompute a slice of each record (or of NAMES) from the shipped weights, and compare.

    Some slices need images that are not shipped; without them such a record is reported as not checked, and is an error
    if it was asked for by name.
    """
    problems = []
    for name in names or sorted(recipes.RECIPES):
        try:
            found = records.verify(recipes.get(name), tolerance)
        except ConnectionError as error:
            if names:
                raise
            click.echo(f"{name}: NOT CHECKED: {error}")
            continue
        except (ValueError, SweepError) as error:  # of this one: the others are still to be checked
            click.echo(f"{name}: cannot be checked")
            problems.append(f"{name}: {error}")
            continue
        click.echo(f"{name}: {'agrees' if not found else f'{len(found)} numbers differ'}")
        problems += found
    if problems:
        raise click.ClickException("\n".join(problems))


if __name__ == "__main__":  # for accelerate launch -m
    main()
