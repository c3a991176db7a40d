"""The verbs after the search: `retrain`, `predict`, `board`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from .options import json_option, root_option
from .show import chosen, name_argument

if TYPE_CHECKING:
    from ..record.layout import SweepDir
    from ..record.write import Record
    from ..trial import Trial


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
    from ..record.layout import find
    from ..record.write import Record

    directory = find(root, name)
    record = Record.reopen(directory)
    try:
        _retrain(directory, record, workers, None, number=trial, seeds=seeds, epochs=epochs, on=on)
    finally:
        record.close()


def retrain_best(directory: SweepDir, record: Record, workers: int | None, gpus: int | None) -> None:
    """What `run --then retrain` ends with: `sweep retrain`, unless the best trial is the one that it was done with before."""
    best = record.best()
    if best is None:
        click.echo("no trial is complete: there is nothing to retrain")
    elif _is_retrained(directory, best):
        click.echo(f"trial {best.number} is retrained already: its score and model are in {printable(directory.best)}")
    else:
        _retrain(directory, record, workers, gpus)


def _is_retrained(directory: SweepDir, best: Trial) -> bool:
    from ..export import MANIFEST

    try:
        manifest = json.loads((directory.best / MANIFEST).read_text())
        told = manifest["trial"], manifest["epochs"], manifest["trained_on"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return told == (best.number, best.epoch, "train+validation")


def _retrain(directory: SweepDir, record: Record, workers: int | None, gpus: int | None, **how: Any) -> None:
    from ..data.cache import Prepared
    from ..ending import ended_by_signals
    from ..retrain import retrain as work
    from .workers import make_executor

    with ended_by_signals():
        score = work(
            directory,
            record,
            lambda setup: make_executor(setup, directory.worker_logs, workers, gpus, how.get("seeds", 1)),
            prepared=Prepared.open(directory.cache / Path(record.info.data).name),
            note=lambda line: click.echo(line),
            **how,
        )
    number = how.get("number")
    where = directory.best if number is None else directory.retrained(number)
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
    from ..export import MANIFEST
    from ..record.layout import all_sweeps

    if not model.is_file() and not (model / MANIFEST).is_file():  # a folder of images may have the sweep's name
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
    work(directory.logs, port=port, say=click.echo)
