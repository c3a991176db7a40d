"""Every trial of a sweep in TensorBoard's HParams dashboard, written by the coordinator without TensorFlow.

    logs/<sweep>/_sweep/events.out.tfevents.*    the columns, then sweep/... scalars at step = trial number
    logs/<sweep>/<id>/events.out.tfevents.*      a trial: id and parameters, epochs, status; one more file a restart

What the dashboard makes of it decides the form: the first start, end and configuration record of a run win for ever,
so a running or interrupted trial has no status; the last value of a tag is shown, so `objective` is the running best.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..sweep import Objective
from ..trial import Measurement, Outcome, State, Suggestion, Trial
from .columns import EPOCHS_RUN, OBJECTIVE, PRUNED, TRIAL_SECONDS, cells, columns_of, metric_tag, metric_tags
from .events import Run, RunWriter, experiment
from .protocol import SweepInfo

SWEEP_RUN = "_sweep"
NAME_LIMIT = 16  # characters of a sweep's name in an id; a longer name is cut and a digest makes it unique again


def trial_id(sweep: str, number: int) -> str:
    """A trial's name in TensorBoard: short, zero-padded, its own among all sweeps under one root.

    >>> trial_id("digits", 7)
    'digits-0007'
    """
    if len(sweep) > NAME_LIMIT:
        sweep = f"{sweep[:9]}-{hashlib.sha256(sweep.encode()).hexdigest()[:6]}"
    return f"{sweep}-{number:04d}"


def _to_stderr(line: str) -> None:
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr)


class TensorBoardTracker:
    """Writes `logdir` (logs/<sweep>). Keeps open: a file for each running trial and the sweep's own.

    A disk that cannot be written never stops a sweep: the run concerned is left as it is, `warn` is told once, and the
    next `opened` completes it from the record.
    """

    def __init__(self, logdir: Path, warn: Callable[[str], None] = _to_stderr) -> None:
        self._logdir = logdir
        self._warn = warn
        self._warned = False
        self._open: dict[int, tuple[RunWriter, int]] = {}  # the writer and the last step written
        self._waiting: set[int] = set()  # started again, and not known yet from which epoch
        self._lost: set[int] = set()  # could not be written; left to the next opening
        self._progress: _Progress | None = None

    def opened(self, info: SweepInfo) -> None:
        self._name, self._objective = info.name, info.sweep.objective
        self._columns = columns_of(info.sweep)
        with self._guarded():
            self._set_aside(info)
            self._open_sweep(info)
        for trial in info.history:
            if trial.state.finished:
                with self._guarded():
                    self._complete(trial)
                self._count(trial.number, trial.outcome)

    def started(self, suggestion: Suggestion, attempt: int) -> None:
        with self._guarded(suggestion.number):
            directory = self._directory(suggestion.number)
            if attempt == 1 and directory.is_dir():  # of a proposal that the record lost with the power
                shutil.rmtree(directory)
            if Run.read(directory).files:
                self._waiting.add(suggestion.number)
            else:
                self._begin(suggestion, 0)

    def _begin(self, suggestion: Suggestion, step: int) -> None:
        """Open the trial's file; what its earlier ones have from `step` on no longer counts."""
        number = suggestion.number
        self._waiting.discard(number)
        directory = self._directory(number)
        run = Run.read(directory)
        writer = RunWriter(directory, step=step)
        self._open[number] = writer, suggestion.initial_epoch
        if not run.started:
            writer.start(directory.name, cells(self._columns, suggestion.params), time.time())

    def resumed(self, suggestion: Suggestion, measurements: Sequence[Measurement]) -> None:
        """Go on in the curve that is there, and make up what it lacks: we may have been killed before it was written."""
        number = suggestion.number
        with self._guarded(number):
            metric = self._objective.metric
            best = _running_best({m.epoch: m.metrics[metric] for m in measurements}, self._objective)
            there = {} if number in self._open else Run.read(self._directory(number)).curve(OBJECTIVE)
            last = measurements[-1].epoch
            first = min((e for e, value in best.items() if not _close(value, there.get(e))), default=last + 1)
            if number in self._waiting:
                self._begin(suggestion, first)
            for measurement in measurements:
                if measurement.epoch >= first:
                    self.measured(suggestion, measurement, best[measurement.epoch])
            if number in self._open:
                self._open[number] = self._open[number][0], last

    def measured(self, suggestion: Suggestion, measurement: Measurement, best: float) -> None:
        if suggestion.number in self._waiting:
            with self._guarded(suggestion.number):
                self._begin(suggestion, suggestion.initial_epoch + 1)
        if suggestion.number not in self._open:
            return
        with self._guarded(suggestion.number):
            writer, _ = self._open[suggestion.number]
            values = {metric_tag(name): value for name, value in measurement.metrics.items()}
            writer.scalars(measurement.epoch, {OBJECTIVE: best, **values})
            self._open[suggestion.number] = writer, measurement.epoch

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None:
        if suggestion.number not in self._open and suggestion.number not in self._lost:
            self.started(suggestion, attempt=2)  # it ended between attempts
        with self._guarded(suggestion.number):
            if suggestion.number in self._waiting:
                self._begin(suggestion, suggestion.initial_epoch + 1)
            if suggestion.number in self._open:
                writer, step = self._open.pop(suggestion.number)
                _finish(writer, step, outcome)
        self._count(suggestion.number, outcome)

    def interrupted(self, suggestion: Suggestion, reason: str) -> None:
        self._waiting.discard(suggestion.number)  # nothing came of it: what is there stays
        with self._guarded():
            if suggestion.number in self._open:
                self._open.pop(suggestion.number)[0].close()

    def note(self, line: str) -> None:
        pass

    def tick(self) -> None:
        pass

    def closed(self, ending: str) -> None:
        for writer, _ in self._open.values():
            with suppress(OSError):
                writer.close()
        self._open.clear()
        if self._progress:
            self._progress.close()

    def _directory(self, number: int) -> Path:
        return self._logdir / trial_id(self._name, number)

    @contextmanager
    def _guarded(self, number: int | None = None) -> Iterator[None]:
        """Keep a failing disk from the sweep. A trial that could not be written is left alone: it may be torn."""
        try:
            yield
        except OSError as error:
            if number is not None:
                self._lost.add(number)
                self._waiting.discard(number)
                if number in self._open:
                    with suppress(OSError):
                        self._open.pop(number)[0].close()
            if not self._warned:
                self._warned = True
                self._warn(
                    f"TensorBoard logs cannot be written ({error}); the sweep goes on and completes them when continued"
                )

    def _set_aside(self, info: SweepInfo) -> None:
        """Logs of an earlier sweep of this name, whose record is gone, would mix with ours: rename their directory."""
        if any(trial.attempts or trial.state.finished for trial in info.history) or not self._logdir.is_dir():
            return
        first = trial_id(self._name, 0).rpartition("-")[0] + "-"
        if not any(path.name.startswith(first) for path in self._logdir.iterdir()):
            return
        count = 1
        while (aside := self._logdir.with_name(f"{self._logdir.name}.old-{count}")).exists():
            count += 1
        self._logdir.rename(aside)
        self._warn(f"TensorBoard logs of an earlier sweep '{info.name}' were moved to {aside}")

    def _open_sweep(self, info: SweepInfo) -> None:
        """The sweep's own run, with the columns as its first record; written once, before any trial."""
        directory = self._logdir / SWEEP_RUN
        what = f"{self._objective.metric} ({self._objective.direction})"
        told = {OBJECTIVE: f"best {what} up to this epoch", PRUNED: "1 for a trial stopped early by the pruner"}
        wanted = experiment(self._columns, metric_tags(info.sweep), told)
        run = Run.read(directory)
        config = run.experiment()
        if config is not None and not any(t.attempts or t.state.finished for t in info.history):
            wanted.time_created_secs = config.time_created_secs
            if config != wanted:  # of an earlier sweep that never started a trial
                shutil.rmtree(directory)
                run, config = Run(), None
        written = max(run.curve("sweep/trials_finished"), default=-1)
        writer = RunWriter(directory, append=run.whole, step=written + 1)
        if config is None:
            writer.config(wanted)
        self._progress = _Progress(writer, self._objective, written)

    def _count(self, number: int, outcome: Outcome) -> None:
        with self._guarded():
            if self._progress:
                self._progress.add(number, outcome)

    def _complete(self, trial: Trial) -> None:
        """Make up what a finished trial's run lacks: we were killed between commit and write, or the logs were deleted.

        The record holds the objective of each epoch; the other metrics of an epoch that was never written are lost.
        """
        directory = self._directory(trial.number)
        run = Run.read(directory)
        if run.ended:
            return
        best = _running_best(trial.curve, self._objective)
        there = run.curve(OBJECTIVE)
        wrong = [e for e in {*best, *there} if not _close(best.get(e), there.get(e))]
        first = min(wrong, default=max(best, default=trial.initial_epoch) + 1)
        superseding = any(step >= first for step in there)
        step = 0 if not run.files else first
        writer = RunWriter(directory, step=step, append=None if superseding else run.whole)
        if not run.started:
            writer.start(directory.name, cells(self._columns, trial.params), time.time() - trial.seconds)
        own = metric_tag(self._objective.metric)
        for epoch in sorted(best):
            if epoch >= first:
                writer.scalars(epoch, {OBJECTIVE: best[epoch], own: trial.curve[epoch]})
        _finish(writer, max(best, default=trial.initial_epoch), trial.outcome)


class _Progress:
    """The sweep's own scalars, one point a trial in order of number, so that steps rise whoever ends first."""

    def __init__(self, writer: RunWriter, objective: Objective, written: int) -> None:
        self._writer: RunWriter | None = writer
        self._objective = objective
        self._written = written
        self._waiting: dict[int, Outcome] = {}
        self._next = 0
        self._best: float | None = None
        self._counts = dict.fromkeys((State.COMPLETE, State.PRUNED, State.FAILED), 0)

    def add(self, number: int, outcome: Outcome) -> None:
        """A trial ended. Raises: OSError, once; nothing more is written then."""
        self._waiting[number] = outcome
        while self._next in self._waiting:
            ended = self._waiting.pop(self._next)
            self._counts[ended.state] += 1
            if (
                ended.state is State.COMPLETE
                and ended.value is not None
                and self._objective.better(ended.value, self._best)
            ):
                self._best = ended.value
            if self._writer and self._next > self._written:
                self._write(self._writer)
            self._next += 1

    def _write(self, writer: RunWriter) -> None:
        values = {
            "sweep/trials_finished": float(sum(self._counts.values())),
            "sweep/trials_failed": float(self._counts[State.FAILED]),
            "sweep/trials_pruned": float(self._counts[State.PRUNED]),
        }
        if self._best is not None:
            values["sweep/best_objective"] = self._best
        try:
            writer.scalars(self._next, values)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._writer:
            with suppress(OSError):
                self._writer.close()
            self._writer = None


def _finish(writer: RunWriter, step: int, outcome: Outcome) -> None:
    """The last records. A failed trial has no value, hence no last numbers either: it stays out of the plots."""
    if outcome.state is not State.FAILED:
        pruned = float(outcome.state is State.PRUNED)
        writer.scalars(step, {EPOCHS_RUN: float(outcome.epochs), TRIAL_SECONDS: outcome.seconds, PRUNED: pruned})
    writer.end(good=outcome.state is not State.FAILED)


def _running_best(curve: object, objective: Objective) -> dict[int, float]:
    out: dict[int, float] = {}
    best: float | None = None
    for epoch, value in sorted(curve.items()):  # type: ignore[attr-defined]
        best = value if objective.better(value, best) else best
        out[epoch] = best  # type: ignore[assignment]
    return out


def _close(a: float | None, b: float | None) -> bool:
    """Whether the file's float32 stands for the record's double."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-37)
