"""`sweep repair`: what can still be read of a damaged record, in a new one."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import printable
from .options import root_option


@click.command(epilog="Example:  sweep repair digits")
@click.argument("name")
@root_option
def repair(name: str, root: Path) -> None:
    """Save what can be read of a damaged sweep.db, and of its backups, into a new one; the damaged file is kept beside it."""
    from ..record.layout import SweepDir
    from ..record.repair import repair as work

    directory = SweepDir(root, name)
    done = work(directory)
    if done is None:
        click.echo(f"{printable(directory.database)} is whole: nothing to repair")
        return
    click.echo(f"saved: {done.saved}")
    for line in done.lost or ["nothing that the damaged file and its backups tell of"]:
        click.echo(f"lost: {printable(line)}")
    if done.kept:
        click.echo(f"the damaged file is kept as {printable(done.kept)}")
    click.echo(f"next:  sweep status {name}   or the same `sweep run` to go on")
