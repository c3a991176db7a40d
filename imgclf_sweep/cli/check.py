"""`sweep check`: what a file would search, said before a night is spent on it."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import printable
from .options import data_dir_option, note, prepared_images, root_option


@click.command(epilog="Example:  sweep check search_spaces/digits.py")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--at", multiple=True, metavar="NAME=VALUE", help="Show the network of one configuration; may be repeated."
)
@click.option(
    "--known", type=click.IntRange(0), metavar="N", help="Show the network of the file's Nth known configuration."
)
@data_dir_option
@root_option
def check(file: Path, root: Path, data_dir: Path | None, at: tuple[str, ...], known: int | None) -> None:
    """Say in words what FILE searches, build its smallest and largest model, and draw a grid of its images by class."""
    from ..check import configuration, describe, extremes, summary
    from ..declare import read
    from ..pictures import save_samples

    sweep = read(file, note=note)
    params = configuration(sweep, at, known) if at or known is not None else None
    prepared = prepared_images(sweep, root, data_dir)
    if params is not None:
        for line in summary(sweep, prepared, params):
            click.echo(line)
        return
    for line in describe(sweep, prepared):
        click.echo(line)
    for line in extremes(sweep, prepared):
        click.echo(line)
    path = root / "cache" / "samples" / f"{file.stem}.png"
    try:
        save_samples(prepared, sweep.dataset.kind, path)
        click.echo(f"sample images by class: {printable(path)}")
    except OSError as error:
        note(f"sweep: the sample images could not be written: {printable(error)}")
