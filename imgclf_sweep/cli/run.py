"""`sweep run`: open the parts, hand them to the loop, close them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import Broken, Held, Interrupted, StoreError
from ..text import printable
from .options import COUNT, Duration, data_dir_option, note, prepared_images, root_option

if TYPE_CHECKING:
    from ..executors.protocol import Executor
    from ..executors.worker_process import Limits
    from ..record.layout import SweepDir
    from ..record.write import Record
    from ..run import Ending, Loop
    from ..sweep import Sweep
    from ..training.protocol import Setup


@click.command(epilog="Example:  sweep run search_spaces/digits.py --trials 10")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the sweep; default: the file's stem.")
@click.option("--trials", type=COUNT, help="Trials in all, those already recorded included.")
@click.option("--timeout", type=Duration(), help="Stop after this long: 90s, 30m, 8h.")
@click.option("--workers", type=click.IntRange(0), help="Worker processes; 0 trains in this one, for debugging.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs to use; default: all there are.")
@click.option(
    "--workers-per-gpu", type=click.IntRange(1), help="Workers that share each GPU and its memory; default: 1."
)
@click.option("--max-trial-time", type=Duration(), help="A trial that takes longer is stopped and FAILED.")
@click.option(
    "--stall-timeout", type=Duration(), default="10m", show_default=True, help="A worker silent for longer is replaced."
)
@click.option("--backend", help="optuna, keras-tuner or random.")
@click.option("--sampler", help="optuna: tpe, random, grid; keras-tuner: random, bayesian, hyperband, grid.")
@click.option("--pruner", help="optuna: median, successive-halving, none.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs a trial, known configurations included.")
@click.option("--limit-images", type=COUNT, help="Search on a stratified sample of this many images.")
@click.option("--seed", type=click.IntRange(0), help="From which every random number follows.")
@click.option("--overwrite", is_flag=True, help="Remove the sweep of this name first, its logs and models too.")
@click.option("--allow-change", is_flag=True, help="Go on with another space, epochs, pruner ...; noted in the record.")
@click.option("--allow-network-fs", is_flag=True, help="Run on a network disk all the same; locks may fail there.")
@data_dir_option
@root_option
@click.option("--trainer", type=click.Choice(["fit", "synthetic"]), default="fit", hidden=True)
def run(file: Path, root: Path, name: str | None, data_dir: Path | None, **options: Any) -> int:
    """Search the space that FILE declares. The same command continues a sweep that was stopped or killed."""
    from ..data.split import parts
    from ..declare import read
    from ..record.filesystem import refuse_network
    from ..record.layout import SweepDir
    from ..record.remove import remove
    from ..record.write import Record
    from ..training.room import announce

    directory = SweepDir(root, file.stem if name is None else name)
    _refuse_held(directory)
    sweep = read(file, note=note)
    overrides = {key: options[key] for key in ("backend", "sampler", "pruner", "epochs", "seed")}
    sweep = sweep.replaced(**overrides)
    if not options["overwrite"]:
        _refuse_changed(directory, sweep, options)
    if not options["allow_network_fs"]:
        refuse_network(directory.path)
    trials = _target(sweep, options["trials"])
    environments = _environments(options, trials)
    prepared = prepared_images(sweep, root, data_dir)
    limit = options["limit_images"]
    parts(prepared, sweep.validation, sweep.seed, limit, sweep.validation_part)  # refused now rather than in a worker
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
        return _conduct(directory, record, trials, options, environments)
    finally:
        record.close()


def _refuse_held(directory: SweepDir) -> None:
    """Say that somebody else is running this sweep before the file is executed; taking the lock decides."""
    from ..record.lock import holder

    who = holder(directory.lock)
    if who is not None:
        raise Held(f"sweep '{directory.name}' is being run by {who}")


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


def _environments(options: dict[str, Any], trials: int) -> list[dict[str, str]]:
    """One entry a worker process; none where training is to be in this one.  Raises: BadInput for GPUs that are not there."""
    from ..executors.devices import plan

    workers, gpus, each = options["workers"], options["gpus"], options["workers_per_gpu"]
    planned = plan(workers, gpus, each, most=trials, trainer=options["trainer"], note=note)
    return [] if workers == 0 else planned


def _conduct(
    directory: SweepDir,
    record: Record,
    trials: int,
    options: dict[str, Any],
    environments: Sequence[Mapping[str, str]],
) -> int:
    from ..backends import open_backend
    from ..executors.worker_process import Limits
    from ..run import Loop, Stop
    from ..tracking.console import ConsoleTracker
    from ..tracking.protocol import SweepInfo, Trackers
    from ..tracking.tensorboard import TensorBoardTracker
    from ..training.protocol import Setup

    history = record.trials()
    console = ConsoleTracker()
    board = TensorBoardTracker(directory.logs, console.note)
    if len(history) >= trials and all(t.state.finished for t in history):
        board.opened(SweepInfo(directory.name, record.sweep, trials, history))  # a kill may have kept its last lines
        board.closed("")
        click.echo(f"sweep '{directory.name}' already has {len(history)} of {trials} trials; {_next_steps(directory)}")
        return 0 if any(t.value is not None for t in history) else 1
    stop = Stop()
    with stop.listening():
        setup = Setup(record.sweep, record.info.data, options["limit_images"], options["trainer"])
        limits = Limits(options["max_trial_time"], options["stall_timeout"])
        executor = open_executor(setup, environments, directory.worker_logs, limits)  # workers import meanwhile
        tracker = Trackers([board, console])
        backend = None
        try:
            backend = open_backend(record.sweep, history, record.state())
            record.keep_state(backend.state())  # what it caught up on after a kill
            tracker.opened(SweepInfo(directory.name, record.sweep, trials, history, len(executor.slots)))
            loop = Loop(
                directory,
                record,
                backend,
                executor,
                tracker,
                trials,
                options["timeout"],
                stop,
                lambda: export(directory, record),
            )
            ending = loop.run()
        except BaseException:
            tracker.closed("stopped by an error; what was told is in the record")
            raise
        finally:
            executor.close()
            if backend is not None:
                backend.close()
        export(directory, record)
        return _close(directory, loop, ending, options)


def make_executor(setup: Setup, logs: Path, workers: int | None, most: int) -> Executor:
    """The executor for `workers` processes (None: what fits the machine, 0: this process), at most `most`."""
    from ..executors.devices import plan

    planned = plan(workers, None, None, most=most, trainer=setup.trainer, note=note)
    return open_executor(setup, [] if workers == 0 else planned, logs)


def open_executor(
    setup: Setup, environments: Sequence[Mapping[str, str]], logs: Path, limits: Limits | None = None
) -> Executor:
    """An executor with one worker process for each of `environments`, or without any, this process."""
    if not environments:
        from ..executors.in_process import InProcessExecutor

        return InProcessExecutor(setup)
    from ..executors.processes import ProcessExecutor

    return ProcessExecutor(setup, environments, logs, limits=limits, note=note)


def export(directory: SweepDir, record: Record) -> None:
    """Write what plain Optuna and Keras Tuner open. Only a convenience: trouble is said, never fatal."""
    import sqlite3

    from ..backends.exports import write_exports

    try:
        write_exports(directory.path, record.sweep, record.trials(), record.state())
    except (OSError, sqlite3.Error) as error:
        note(f"sweep: the exports could not be written ({printable(error)}); the record itself is whole")


def _next_steps(directory: SweepDir) -> str:
    name = directory.name
    return f"next:  sweep retrain {name}   sweep board {name}   sweep trials {name}"


def _close(directory: SweepDir, loop: Loop, ending: Ending, options: dict[str, Any]) -> int:
    from ..run import Ending

    again = "the same command continues"
    if ending is Ending.STOPPED:
        loop.tracker.closed(f"stopped; {again}")
        raise Interrupted(f"interrupted; nothing told is lost, {again}", loop.stop.number)
    tripped = loop.breaker.tripped
    if ending is Ending.BROKEN and tripped is not None:
        loop.tracker.closed("stopped: the first trials all failed in the same way")
        if tripped.frames:
            note(tripped.frames)
        raise Broken(f"every trial fails in the same way: {tripped.reason}; mend that, then run the same command again")
    if ending is Ending.PAUSED:
        loop.tracker.closed(f"paused; no trial has failed by it; {again}")
        raise StoreError(f"paused: {loop.reason}; mend that, then run the same command again")
    if ending is Ending.TIMEOUT:
        loop.tracker.closed(f"time is up; {again}; {_next_steps(directory)}")
    elif not loop.breaker.succeeded:
        loop.tracker.closed(f"no trial succeeded; see  sweep trials {directory.name}")
    else:
        loop.tracker.closed(_next_steps(directory))
    return 0 if loop.breaker.succeeded or ending is Ending.TIMEOUT else 1
