"""Command line: ``repdyn data``, ``train``, ``record``, ``verify``."""

from __future__ import annotations

from pathlib import Path

import click

from repdyn import datasets, presets, records

__all__ = ["main"]


class _Main(click.Group):
    """Reports what a reader can put right as a message, not as a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ValueError, ConnectionError, FloatingPointError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Representation dynamics of diffusion models: data, train, record, verify."""


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
@click.option("--cpu", is_flag=True, help="Stay on the CPU even if there is a GPU.")
def train(preset: str, out: Path, cpu: bool) -> None:
    """Train PRESET, or go on where it stopped.

    The state lies in OUT/PRESET/state.safetensors and is saved every two minutes; run the same command again after an
    interruption. The averaged weights end up in OUT/PRESET/weights.safetensors, which repdyn.pretrained.load reads.
    Data is looked for in $REPDYN_DATA and the cache, and downloaded last.
    """
    weights = presets.train(preset, out, cpu=cpu)
    click.echo(f"Weights in {weights}")


@main.command()
@click.argument("name", type=click.Choice(sorted(presets.RECIPES)))
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the records."
)
def record(name: str, out: Path) -> None:
    """Make the record NAME in full, or go on where it stopped.

    Writes OUT/NAME.json. Features are kept in OUT/NAME until then, one file a noise level.
    """
    path = records.write(records.make(presets.recipe(name), cache=out / name), out)
    click.echo(f"Record written to {path}")


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(presets.RECIPES)))
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
    for name in names or sorted(presets.RECIPES):
        try:
            found = records.verify(presets.recipe(name), tolerance)
        except ConnectionError as error:
            if names:
                raise
            click.echo(f"{name}: NOT CHECKED: {error}")
            continue
        click.echo(f"{name}: {'agrees' if not found else f'{len(found)} numbers differ'}")
        problems += found
    if problems:
        raise click.ClickException("\n".join(problems))


if __name__ == "__main__":  # for accelerate launch -m
    main()
