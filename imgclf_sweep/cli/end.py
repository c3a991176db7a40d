"""The verbs after the search: `retrain`, `predict`, `board`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable
from .options import json_option, root_option
from .show import chosen, name_argument


@click.command(epilog="Example:  sweep retrain digits --seeds 3")
@click.argument("name")
@click.option("--trial", type=click.IntRange(0), help="Retrain this trial instead of the best.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Trainings to score; more, a truer interval.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs; default: as many as the trial's best epoch.")
@click.option("--on", type=click.Choice(["all", "train"]), default="all", show_default=True, help="Images to train on.")
@click.option("--workers", type=click.IntRange(0), help="Worker processes; 0 trains in this one, for debugging.")
@root_option
def retrain(
    name: str, root: Path, trial: int | None, seeds: int, epochs: int | None, on: str, workers: int | None
) -> None:
    """Train the winner on train+validation, open the test part once, write the final score and export the model."""
    from ..data.cache import Prepared
    from ..record.layout import find
    from ..record.write import Record
    from ..retrain import retrain as work
    from .run import make_executor

    directory = find(root, name)
    record = Record.reopen(directory)
    try:
        score = work(
            directory,
            record,
            lambda setup: make_executor(setup, directory.worker_logs, workers, seeds),
            prepared=Prepared.open(Path(record.info.data)),
            number=trial,
            seeds=seeds,
            epochs=epochs,
            on=on,
            note=lambda line: click.echo(line),
        )
    finally:
        record.close()
    where = directory.best if trial is None else directory.retrained(trial)
    click.echo(score.words())
    click.echo(f"model, labels, report, pictures and manifest are in {printable(where)}")
    click.echo(f"next:  sweep predict {printable(where)} IMAGE...")


@click.command(epilog="Example:  sweep predict digits photo.png")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@root_option
def predict(model: Path, images: tuple[Path, ...], root: Path, as_json: bool) -> None:
    """Name the class of each image file. MODEL is a sweep's name, or a folder or .keras file that `retrain` wrote."""
    from ..predict import predict as work

    predictions = work(_model_path(model, root), list(images))
    if as_json:
        rows = [{"path": str(p.path), "label": p.label, "probability": p.probability} for p in predictions]
        click.echo(json.dumps(rows, indent=1))
        return
    for p in predictions:
        click.echo(f"{printable(p.path)}: {printable(p.label)} ({p.probability:.3f})")


def _model_path(model: Path, root: Path) -> Path:
    from ..record.layout import all_sweeps

    if not model.exists():
        for directory in all_sweeps(root):
            if directory.name == str(model):
                return directory.best
    return model


@click.command(epilog="Example:  sweep board digits")
@name_argument
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1; default: 6006 or the next free one.")
@root_option
def board(name: str | None, root: Path, port: int | None) -> None:
    """Open TensorBoard's HParams tab on a sweep (default: the newest)."""
    from ..board import board as work

    directory = chosen(root, name)
    if name is None:
        click.echo(f"showing the newest sweep, '{directory.name}'")
    work(directory.logs, port=port)
