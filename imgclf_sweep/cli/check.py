"""`sweep check`: what a file would search, said before a night is spent on it."""

from __future__ import annotations

from pathlib import Path

import click

from .options import data_dir_option, root_option


@click.command(epilog="Example:  sweep check search_spaces/digits.py")
@click.argument("file", type=click.Path(path_type=Path))
@data_dir_option
@root_option
def check(file: Path, root: Path, data_dir: Path | None) -> None:
    """Say in words what FILE searches, and build its smallest and largest model."""
    from ..check import describe, extremes
    from ..data.cache import prepare
    from ..declare import read

    sweep = read(file)
    prepared = prepare(
        sweep.dataset,
        cache=root / "cache",
        data_dir=data_dir,
        test=sweep.test,
        seed=sweep.seed,
        note=lambda line: click.echo(line, err=True),
    )
    for line in describe(sweep, prepared):
        click.echo(line)
    for line in extremes(sweep, prepared):
        click.echo(line)
