"""The reading verbs: `list`, `status`, `trials`, `best`. They read the record and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..text import printable
from .options import json_option, note, root_option

if TYPE_CHECKING:
    from ..record.layout import SweepDir
    from ..record.read import Reader
    from ..record.rows import Event
    from ..tracking.protocol import TimeLeft
    from ..trial import Trial

T = TypeVar("T")


def name_argument(verb: Any) -> Any:
    return click.argument("name", required=False)(verb)


def chosen(root: Path, name: str | None) -> SweepDir:
    """The sweep of that name, or the newest.  Raises: BadInput."""
    from ..errors import BadInput
    from ..record.layout import all_sweeps, find

    if name is not None:
        return find(root, name)
    sweeps = all_sweeps(root)
    if not sweeps:
        raise BadInput(f"no sweeps under {printable(root / 'sweeps')}; start one with  sweep run FILE")
    return sweeps[-1]


def each(directories: Sequence[SweepDir], read: Callable[[SweepDir], T]) -> tuple[dict[SweepDir, T], int]:
    """What `read` gives of each, and the exit code: one that is damaged is said, and does not hide the others.

    Raises: StoreError where it is the only one.
    """
    from ..errors import StoreError

    found, code = {}, 0
    for directory in directories:
        try:
            found[directory] = read(directory)
        except StoreError as error:
            if len(directories) == 1:
                raise
            note(f"sweep: {error}")
            code = error.exit_code
    return found, code


def summary(directory: SweepDir, reader: Reader) -> dict[str, Any]:
    """The object that `list` and `status` print: names, counts by state, the best trial, whether a process holds it."""
    from ..trial import State

    trials = reader.trials()
    best = reader.best()
    sweep = reader.sweep
    return {
        "name": directory.name,
        "backend": sweep.backend,
        "sampler": sweep.sampler_name,
        "objective": sweep.objective.metric,
        "direction": sweep.objective.direction,
        "trials": reader.info.trials,
        "states": {state.value: sum(t.state is state for t in trials) for state in State},
        "best": best.to_json() if best else None,
        "created": reader.info.created,
        "holder": asdict(holder) if (holder := reader.holder()) else None,
    }


@click.command("list", epilog="Example:  sweep list")
@json_option
@root_option
def list_sweeps(root: Path, as_json: bool) -> int:
    """The sweeps here, oldest first."""
    from ..record.layout import all_sweeps
    from ..record.read import Reader

    sweeps = all_sweeps(root)
    found, code = each(sweeps, lambda directory: summary(directory, Reader(directory)))
    rows = list(found.values())
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return code
    if not sweeps:
        click.echo(f"no sweeps under {printable(root / 'sweeps')}; start one with  sweep run FILE")
        return code
    table(
        ["name", "search", "finished", "best", "trial", "running"],
        [
            [
                row["name"],
                f"{row['backend']}/{row['sampler']}",
                f"{_finished(row)} of {row['trials']}",
                _value(row["best"] and row["best"]["value"]),
                "-" if row["best"] is None else row["best"]["number"],
                "yes" if row["holder"] else "no",
            ]
            for row in rows
        ],
    )
    return code


def _finished(row: dict[str, Any]) -> int:
    return sum(row["states"][state] for state in ("COMPLETE", "PRUNED", "FAILED"))


@click.command(epilog="Example:  sweep status digits")
@name_argument
@json_option
@root_option
def status(name: str | None, root: Path, as_json: bool) -> None:
    """How far a sweep is (default: the newest)."""
    from ..record.read import Reader
    from ..tracking.progress import time_left

    directory = chosen(root, name)
    reader = Reader(directory)
    row = summary(directory, reader)
    row["retraining"] = _retraining(reader) if row["holder"] else None
    left = _time_left(reader) if row["holder"] and row["retraining"] is None else None
    row["time_left"] = asdict(left) if left else None
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    holder = row["holder"]
    click.echo(f"{row['name']}: {_finished(row)} of {row['trials']} trials finished, {row['backend']}/{row['sampler']}")
    click.echo("  " + ", ".join(f"{count} {state.lower()}" for state, count in row["states"].items()))
    if row["best"]:
        best = row["best"]
        click.echo(
            f"  best {row['objective']} {_value(best['value'])} in epoch {best['epoch']} of trial {best['number']}"
        )
        click.echo(f"  with {_params(best['params'])}")
    what = "running" if row["retraining"] is None else f"retraining trial {row['retraining']}"
    running = f"{what} as process {holder['pid']} on {printable(holder['host'])}" if holder else "not running"
    click.echo(f"  {running}" + (f"; {time_left(left)}" if left else ""))


def _retraining(reader: Reader) -> int | None:
    """The trial that the process at work retrains; None while it searches."""
    begun = _since_opened(reader, "retraining")
    return begun[-1].data["number"] if begun else None


def _since_opened(reader: Reader, kind: str) -> list[Event]:
    """The events of one kind since the process at work opened the sweep; all of them while it has not yet."""
    opened = max((event.id for event in reader.events("opened")), default=0)
    return [event for event in reader.events(kind) if event.id > opened]


def _time_left(reader: Reader) -> TimeLeft:
    """What a running sweep has still to do, and the end that its run was given, from its record."""
    from ..clock import End
    from ..pacing import Pace
    from ..tracking.protocol import SweepInfo
    from ..trial import State

    history = reader.trials()
    limits = [event.data["until"] for event in _since_opened(reader, "limited")]
    workers = sum(t.state is State.RUNNING for t in history)  # as many as there seem to be
    pace = Pace(End(deadline=limits[-1] if limits else None), None, reader.epoch_seconds())
    pace.opened(SweepInfo(reader.info.name, reader.sweep, reader.info.trials, history, workers))
    return pace.left()


@click.command(epilog="Example:  sweep trials digits --json")
@name_argument
@json_option
@root_option
def trials(name: str | None, root: Path, as_json: bool) -> None:
    """Every trial of a sweep (default: the newest)."""
    from ..record.read import Reader

    directory = chosen(root, name)
    rows = Reader(directory).trials()
    if as_json:
        click.echo(json.dumps([t.to_json() for t in rows], indent=1))
        return
    table(["trial", "state", "value", "epoch", "seconds", "params"], [_row(t) for t in rows])


def _row(t: Trial) -> list[object]:
    epoch = f"{t.epoch}/{t.initial_epoch + t.epochs}" if t.epoch else t.epochs or "-"
    params = _params(t.params) + (f"   ({printable(t.reason)})" if t.reason and t.state == "FAILED" else "")
    return [t.number, t.state.value, _value(t.value), epoch, f"{t.seconds:.1f}" if t.seconds else "-", params]


@click.command(epilog="Example:  sweep best digits")
@name_argument
@json_option
@root_option
def best(name: str | None, root: Path, as_json: bool) -> None:
    """The best complete trial of a sweep (default: the newest)."""
    from ..record.read import Reader

    directory = chosen(root, name)
    reader = Reader(directory)
    winner = reader.best()
    objective = reader.sweep.objective.metric
    if as_json:
        click.echo(json.dumps(winner.to_json() if winner else None, indent=1))
    elif winner is None:
        click.echo(f"{directory.name}: none; no trial is complete")
    else:
        click.echo(
            f"{directory.name}: trial {winner.number}, {objective} {_value(winner.value)} in epoch {winner.epoch}"
        )
        for param, value in winner.params.items():
            click.echo(f"  {printable(param)} = {_short(value)}")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns on the terminal; whole lines, never cut, when piped."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    drawn = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for head in heads:
        drawn.add_column(head, overflow="fold", no_wrap=not terminal)
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if terminal else 10_000, highlight=False).print(drawn)


def stacked(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """`table`, but on a terminal the last and longest cell of a row stands below it."""
    import shutil
    import sys
    import textwrap

    if not sys.stdout.isatty():
        table(heads, rows)
        return
    lines = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads) - 1)]
    columns = shutil.get_terminal_size().columns
    for number, (*cells, last) in enumerate(lines):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        if number:
            click.echo(textwrap.fill(last, columns, initial_indent="    ", subsequent_indent="      "))


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def _params(params: dict[str, Any]) -> str:
    return " ".join(f"{printable(name)}={_short(value)}" for name, value in params.items())
