"""The verbs that show what came of sweeps: `compare`, a table, and `figures`, a trial's curves. They read, and run no code of a
sweep's."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable
from .options import json_option, root_option, there
from .show import chosen, each, name_argument, stacked


@click.command(epilog="Example:  sweep compare cifar_gray cifar_batchnorm")
@click.argument("names", nargs=-1, metavar="NAME...")
@json_option
@root_option
def compare(names: tuple[str, ...], root: Path, as_json: bool) -> int:
    """Model, parameters, training time, validation value and final score of sweeps (default: all), side by side."""
    from ..compare import remarks, rows
    from ..record.layout import all_sweeps
    from ..tracking.progress import duration, params_text

    directories = [chosen(root, name) for name in dict.fromkeys(names)] or all_sweeps(root) or [chosen(root, None)]
    readable, code = each(directories, rows)
    found = [row for those in readable.values() for row in those]
    if as_json:
        click.echo(json.dumps([row.to_json() for row in found], indent=1))
    else:
        objectives = {row.objective for row in found}
        validation = objectives.pop() if len(objectives) == 1 else ""
        heads = [
            "sweep",
            "trial",
            "params",
            "time",
            validation or "validation",
            "test",
            "95% interval",
            "seeds",
            "model",
        ]
        cells = [
            [
                row.sweep,
                "-" if row.trial is None else row.trial,
                "-" if row.parameters is None else f"{row.parameters:,}",
                "-" if row.seconds is None else duration(row.seconds),
                "-" if row.validation is None else f"{'' if validation else row.objective + ' '}{row.validation:.4f}",
                "-" if row.score is None else f"{row.score:.4f}",
                "-" if row.low is None else f"{row.low:.4f}-{row.high:.4f}",
                "-" if row.seeds is None else row.seeds,
                f"{row.model} {params_text(row.params)}" if row.trial is not None else row.model,
            ]
            for row in found
        ]
        stacked(heads, cells)
        for name in dict.fromkeys(row.sweep for row in found if row.score is None and row.trial is not None):
            click.echo(f"not scored yet:  sweep retrain {name}{there(root)}")
    for line in remarks(list(readable), found):
        click.echo(line, err=True)
    return code


@click.command(epilog="Example:  sweep figures digits --trial 3")
@name_argument
@click.option("--trial", type=click.IntRange(0), help="Draw this trial; default: the best.")
@root_option
def figures(name: str | None, root: Path, trial: int | None) -> None:
    """Draw the accuracy and loss curves of a trial of the search as PNG."""
    from ..errors import BadInput, StoreError
    from ..pictures import trial_curves
    from ..record.layout import write_whole
    from ..record.read import Reader

    directory = chosen(root, name)
    reader = Reader(directory)
    trials = {t.number: t for t in reader.trials()}
    best = reader.best()
    wanted = trials.get(trial) if trial is not None else best
    if wanted is None:
        raise BadInput(
            f"{directory.name}: " + ("no trial is complete" if trial is None else f"there is no trial {trial}")
        )
    epochs = reader.metrics(wanted.number)
    if not epochs:
        raise BadInput(f"{directory.name}: trial {wanted.number} is {wanted.state} and has measured no epoch")
    title = f"{directory.name}, trial {wanted.number} ({wanted.state.lower()})"
    path = directory.path / "figures" / f"trial-{wanted.number:04d}.png"
    png = trial_curves(epochs, title, wanted.epoch, reader.sweep.objective.metric)
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, png)
    except OSError as error:
        raise StoreError(f"cannot write {printable(path)}: {printable(error.strerror or error)}") from None
    click.echo(f"curves are in {printable(path)}")
