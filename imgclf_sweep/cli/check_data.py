"""`sweep check-data`: every bad image named at once, before a night is spent on the others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable
from .options import data_dir_option, json_option, root_option


@click.command("check-data", epilog="Example:  sweep check-data photos/")
@click.argument("what", metavar="FILE_OR_FOLDER", type=click.Path(path_type=Path))
@json_option
@data_dir_option
@root_option
def check_data(what: Path, as_json: bool, root: Path, data_dir: Path | None) -> None:
    """Read every image of a folder, or of the data set that a sweep FILE names, and say which cannot be used."""
    from ..data.inspect import inspect
    from ..declare import read
    from ..errors import BadInput

    if not what.exists():
        raise BadInput(f"no such file or folder: {printable(what)}")
    folder = what
    if not what.is_dir():
        dataset = read(what, note=lambda line: click.echo(line, err=True)).dataset
        if dataset.path is None:
            _load(dataset, root, data_dir)
            return
        folder = Path(dataset.path)
    found = inspect(folder)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    for line in () if as_json else found.lines():
        click.echo(line)
    where = f"{printable(found.root)}: {found.images:,} images in {found.classes} classes"
    if found.classes_bad:
        also = f", {len(found.bad)} bad" if found.bad else ""
        raise BadInput(f"{where}{also}; as it is the folder is no data set: see above")
    if found.bad:
        raise BadInput(f'{where}, {len(found.bad)} bad; mend them, or declare on_bad="skip" to leave them out')
    if not as_json:
        click.echo(f"{where}, all good")


def _load(dataset, root: Path, data_dir: Path | None) -> None:  # type: ignore[no-untyped-def]
    """A data set that is one file: it is read whole, or refused by name."""
    import numpy as np

    from ..data.load import load, locate

    source = locate(dataset, data_dir, root / "cache" / "downloads", lambda line: click.echo(line, err=True))
    loaded = load(dataset, source, lambda name, shape: np.empty(shape, np.uint8))
    count = len(loaded.train_y) + (0 if loaded.test_y is None else len(loaded.test_y))
    click.echo(f"{dataset.kind}: {count:,} images in {len(loaded.classes)} classes, all good")
