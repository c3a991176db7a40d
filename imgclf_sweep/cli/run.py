"""`sweep run`: open the parts, hand them to the loop, close them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Broken, Held, Interrupted, StoreError
from ..text import printable
from .end import retrain_best
from .lanes import lanes
from .options import COUNT, CountOrAll, Deadline, Duration, data_dir_option, note, prepared_images, root_option, there
from .workers import environments_for, open_executor

if TYPE_CHECKING:
    from ..clock import End
    from ..ending import Ending
    from ..pacing import Pace
    from ..record.layout import SweepDir
    from ..record.write import Record
    from ..run import Loop
    from ..sweep import Sweep
    from ..trial import Trial


@click.command(epilog="Example:  sweep run search_spaces/digits.py --trials 10")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the sweep; default: the file's stem.")
@click.option("--trials", type=COUNT, help="Trials in all, those already recorded included.")
@click.option("--timeout", type=Duration(), help="Be done after this long: 90s, 30m, 8h.")
@click.option("--deadline", type=Deadline(), help="Be done by then: 07:00, or 2026-12-01T07:00.")
@click.option(
    "--then", type=click.Choice(["retrain"]), help="Retrain the best trial before the end, in time reserved for it."
)
@click.option("--workers", type=click.IntRange(0), help="Worker processes; 0 trains in this one, for debugging.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs to use; default: all there are.")
@click.option(
    "--workers-per-gpu", type=click.IntRange(1), help="Workers that share each GPU and its memory; default: 1."
)
@click.option("--lanes", type=COUNT, help="Trials each worker trains at a time, as one program; default: by the GPU.")
@click.option("--max-trial-time", type=Duration(), help="A trial that takes longer is stopped and FAILED.")
@click.option(
    "--stall-timeout",
    type=Duration(),
    default="10m",
    show_default=True,
    help="A worker silent or stuck for longer is replaced.",
)
@click.option("--backend", help="optuna, keras-tuner or random.")
@click.option("--sampler", help="optuna: tpe, random, grid; keras-tuner: random, bayesian, hyperband, grid.")
@click.option("--pruner", help="optuna: median, successive-halving, none.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs a trial, known configurations included.")
@click.option("--limit-images", type=COUNT, help="Search on a stratified sample of this many images.")
@click.option("--seed", type=click.IntRange(0), help="From which every random number follows.")
@click.option("--keep", type=CountOrAll(), help="Trials that keep their weights, the best ones; or all. Default: 5.")
@click.option("--overwrite", is_flag=True, help="Remove the sweep of this name first, its logs and models too.")
@click.option("--allow-change", is_flag=True, help="Go on with another space, epochs, pruner ...; noted in the record.")
@click.option("--allow-network-fs", is_flag=True, help="Run on a network disk all the same; locks may fail there.")
@data_dir_option
@root_option
@click.option(
    "--trainer",
    type=click.Choice(["auto", "fit", "compiled", "synthetic"]),
    metavar="[auto|fit|compiled]",
    default="auto",
    show_default=True,
    help="Keras fit, or one compiled JAX program for each shape; a sweep goes on with the one it began with.",
)
def run(file: Path, root: Path, name: str | None, data_dir: Path | None, **options: Any) -> int:
    """Search the space that FILE declares. The same command continues a sweep that was stopped or killed."""
    from ..clock import End
    from ..data.split import parts
    from ..declare import read
    from ..record.filesystem import refuse_network
    from ..record.layout import SweepDir
    from ..record.remove import remove
    from ..record.write import Record
    from ..training.room import announce

    end = End(options["timeout"], options["deadline"])  # decoding images counts too
    directory = SweepDir(root, file.stem if name is None else name)
    _refuse_held(directory)
    sweep = read(file, note=note)
    overrides = {key: options[key] for key in ("backend", "sampler", "pruner", "epochs", "seed")}
    sweep = sweep.replaced(**overrides)
    options["trainer"], why = _trainer(directory, sweep, options)
    if not options["overwrite"]:
        _refuse_changed(directory, sweep, options)
    if not options["allow_network_fs"]:
        refuse_network(directory.path)
    trials = _target(sweep, options["trials"])
    environments = environments_for(options, trials)
    prepared = prepared_images(sweep, root, data_dir)
    limit = options["limit_images"]
    # refused now rather than in a worker
    split = parts(prepared, sweep.validation, sweep.seed, limit, sweep.validation_part)
    options["lanes"] = lanes(options["lanes"], options["trainer"], sweep, prepared, split, environments, trials)
    if why:
        note(why)
    if options["trainer"] == "fit":
        for line in announce(sweep, prepared, limit):
            note(line)
    if options["overwrite"] and remove(directory):
        note(f"removed the sweep '{directory.name}' that was there, as told by --overwrite")
    record = Record.open(
        directory,
        sweep,
        trials=trials,
        limit_images=limit,
        data=prepared,
        trainer=options["trainer"],
        allow_change=options["allow_change"],
    )
    try:
        for line in record.notes:
            note(line)
        pace = _pace(end, options["then"], record, len(split.both) / len(split.train))
        code = _conduct(directory, record, trials, options, environments, pace)
        if options["then"]:
            retrain_best(directory, record, options["workers"], options["gpus"])
        return code
    finally:
        record.close()


def _refuse_held(directory: SweepDir) -> None:
    """Say that somebody else is running this sweep before the file is executed; taking the lock decides."""
    from ..record.lock import holder

    who = holder(directory.lock)
    if who is not None:
        raise Held(f"sweep '{directory.name}' is being run by {who}")


def _trainer(directory: SweepDir, sweep: Sweep, options: dict[str, Any]) -> tuple[str, str]:
    """The trainer asked for, and why in a line, where there is more to say; "auto" is that which the sweep began with, or
    for a new one the faster that can train it."""
    from ..executors.devices import visible_gpus
    from ..record.read import Reader
    from ..training.choice import AUTO, choose

    if options["trainer"] == AUTO and directory.exists() and not options["overwrite"]:
        asked, said = Reader(directory).info.trainer, True
    else:
        asked, said = options["trainer"], False
    chosen = choose(asked, sweep, gpu=options["gpus"] != 0 and bool(visible_gpus()))
    return chosen.trainer, "" if said else chosen.line


def _refuse_changed(directory: SweepDir, sweep: Sweep, options: dict[str, Any]) -> None:
    """Say that the declaration is not the recorded one before images are decoded for it; opening the record decides."""
    if not directory.exists():
        return
    from ..record.info import changes
    from ..record.read import Reader

    known = Reader(directory)
    now = {"limit_images": options["limit_images"], "trainer": options["trainer"]}
    same_images = {"fingerprint": known.info.fingerprint}  # not known yet
    changes(known.info, known.sweep, sweep, options["allow_change"], **now, **same_images)


def _target(sweep: Sweep, trials: int | None) -> int:
    if sweep.sampler_name != "grid":
        return trials or sweep.trials
    size = len(sweep.known) + sweep.space.grid_size()
    return min(trials, size) if trials else size


def _pace(end: End, then: str | None, record: Record, images: float) -> Pace:
    """The time that a run has, put on record for `status`.  images: as many times a trial's to retrain on."""
    from ..pacing import Pace

    left = end.left()
    if left is not None:
        record.event("limited", until=end.wall() + left, then=then)
    return Pace(end, images if then else None, record.epoch_seconds())


def _conduct(
    directory: SweepDir,
    record: Record,
    trials: int,
    options: dict[str, Any],
    environments: Sequence[Mapping[str, str]],
    pace: Pace,
) -> int:
    from ..backends import open_backend
    from ..backends.exports import load_libraries
    from ..ending import Stop
    from ..executors.worker_process import Limits
    from ..keep import Keep, agreed
    from ..run import Loop
    from ..tracking.console import ConsoleTracker
    from ..tracking.protocol import SweepInfo, Trackers
    from ..tracking.tensorboard import TensorBoardTracker
    from ..training.protocol import Setup

    history, count = record.trials(), agreed(record, options["keep"])
    console = ConsoleTracker(left=pace.left)
    board = TensorBoardTracker(directory.logs, console.note)
    if len(history) >= trials and all(t.state.finished for t in history):
        board.opened(SweepInfo(directory.name, record.sweep, trials, history))  # a kill may have kept its last lines
        board.closed("")
        Keep(directory, record.sweep.objective, history, count, lambda: _needed(record, history)).settle([])
        export(directory, record)  # the last one may have been cut short
        click.echo(
            f"sweep '{directory.name}' already has {len(history)} of {trials} trials; {_next_steps(directory, options)}"
        )
        return 0 if any(t.value is not None for t in history) else 1
    stop = Stop()
    with stop.listening():
        data = str(Path(record.info.data).absolute())
        setup = Setup(record.sweep, data, options["limit_images"], options["trainer"], options["lanes"])
        limits = Limits(options["max_trial_time"], options["stall_timeout"])
        executor = open_executor(setup, environments, directory.worker_logs, limits)  # workers import meanwhile
        tracker = Trackers([pace, board, console])
        backend = None
        try:
            backend = open_backend(record.sweep, history, record.state())
            record.keep_state(backend.state())  # what it caught up on after a kill
            at_once = len(executor.slots) if environments else 0, setup.lanes
            tracker.opened(SweepInfo(directory.name, record.sweep, trials, history, *at_once))
            load_libraries()
            loop = Loop(
                directory,
                record,
                backend,
                executor,
                tracker,
                trials,
                pace,
                stop,
                lambda: export(directory, record),
                keep=count,
            )
            ending = loop.run()
        except BaseException:
            tracker.closed("stopped by an error; what was told is in the record")
            raise
        finally:
            executor.close()
            if backend is not None:
                backend.close()
        if executor.compilations.words():
            tracker.note(executor.compilations.words())
        export(directory, record)
        return _close(directory, loop, ending, options)


def _needed(record: Record, history: Sequence[Trial]) -> set[int]:
    """The trials that the search may start others from, should the sweep be given more of them."""
    from ..backends import open_backend

    with contextlib.closing(open_backend(record.sweep, history, record.state())) as backend:
        return backend.needed()


def export(directory: SweepDir, record: Record) -> None:
    """Write what plain Optuna and Keras Tuner open. Only a convenience: trouble is said, never fatal."""
    import sqlite3

    from ..backends.exports import write_exports

    try:
        write_exports(directory.path, record.sweep, record.trials(), record.state())
    except (OSError, sqlite3.Error) as error:
        note(f"sweep: the exports could not be written ({printable(error)}); the record itself is whole")


def _next_steps(directory: SweepDir, options: dict[str, Any]) -> str:
    verbs = ("board", "trials") if options["then"] else ("retrain", "board", "trials")
    return "next:" + "".join(f"  sweep {verb} {directory.name}{there(directory.root)} " for verb in verbs).rstrip()


def _close(directory: SweepDir, loop: Loop, ending: Ending, options: dict[str, Any]) -> int:
    from ..ending import Ending

    again = "the same command continues"
    if ending is Ending.STOPPED or (options["then"] and loop.stop.signals):  # heard after the last trial
        loop.tracker.closed(f"stopped; {again}")
        raise Interrupted(f"interrupted; nothing told is lost, {again}", loop.stop.number)
    tripped = loop.breaker.tripped
    if ending is Ending.BROKEN and tripped is not None:
        loop.tracker.closed("stopped: the first trials all failed in the same way")
        if tripped.frames:
            note(tripped.frames)
        again = "mend that, then run the same command again with --allow-change"
        raise Broken(f"every trial fails in the same way: {tripped.reason}; {again}")
    if ending is Ending.PAUSED:
        loop.tracker.closed(f"paused; no trial has failed by it; {again}")
        raise StoreError(f"paused: {loop.reason}; mend that, then run the same command again")
    if ending is Ending.TIMEOUT:
        loop.tracker.closed(f"{loop.reason}; {again}; {_next_steps(directory, options)}")
    elif not loop.breaker.succeeded:
        loop.tracker.closed(f"no trial succeeded; see  sweep trials {directory.name}{there(directory.root)}")
    else:
        why = "the search has nothing left to try; " if ending is Ending.EXHAUSTED else ""
        loop.tracker.closed(why + _next_steps(directory, options))
    return 0 if loop.breaker.succeeded or ending is Ending.TIMEOUT else 1
