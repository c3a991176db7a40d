"""A small sweep with one trial of every fate, told to a tracker as a run would tell it, and what a record would hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace, Sweep, datasets
from imgclf_sweep.tracking.protocol import SweepInfo, Tracker
from imgclf_sweep.trial import Kind, Measurement, State, Suggestion, Trial

EPOCHS = 4

SPACE = SearchSpace(
    filters=Choice([16, 32, (64, 32)]),
    kernel_size=Choice([(3, 3), (5, 3)]),
    learning_rate=Float(1e-4, 1e-1, log=True),
    dropout=Float(0.0, 0.5),
    dense_units=Int(16, 256, step=16),
    batch_norm=Choice([False, True]),
    optimizer=Choice(["adam", "sgd"]),
    momentum=Float(0.0, 0.9, when={"optimizer": "sgd"}),
    pool_size=Fixed(2),
)


def make_sweep(**changes: object) -> Sweep:
    return Sweep(dataset=datasets.digits(), space=SPACE, epochs=EPOCHS, trials=8, seed=3).replaced(**changes)


def params_of(number: int) -> dict[str, object]:
    sgd = number % 2 == 1
    out = {
        "filters": (16, 32, (64, 32))[number % 3],
        "kernel_size": ((3, 3), (5, 3))[number % 2],
        "learning_rate": 10.0 ** -(1 + number % 4),
        "dropout": 0.05 * number,
        "dense_units": 16 * (number + 1),
        "batch_norm": number % 2 == 0,
        "optimizer": "sgd" if sgd else "adam",
        "momentum": 0.1 * number,
        "pool_size": 2,
    }
    return {name: value for name, value in out.items() if name != "momentum" or sgd}


def value_of(number: int, epoch: int, attempt: int = 1) -> float:
    """Rises, then falls in the last epoch, so that the best value is not the last; a restarted attempt differs."""
    return 0.5 + 0.04 * number + 0.03 * epoch - 0.1 * (epoch == EPOCHS) + 0.001 * (attempt - 1)


def metrics_of(number: int, epoch: int, attempt: int = 1) -> dict[str, float]:
    value = value_of(number, epoch, attempt)
    return {"accuracy": value + 0.01, "loss": 1.2 - value, "val_accuracy": value, "val_loss": 1.3 - value}


def suggestion_of(number: int) -> Suggestion:
    return Suggestion(number, params_of(number), EPOCHS)


def finished(number: int, epochs: int, state: State, attempts: int = 1, reason: str | None = None) -> Trial:
    """The record's view of a trial whose last attempt measured `epochs` epochs."""
    curve = {epoch: value_of(number, epoch, attempts) for epoch in range(1, epochs + 1)}
    best = max(curve, key=lambda e: curve[e]) if curve and state is not State.FAILED else None
    return Trial(
        number,
        state,
        params_of(number),
        EPOCHS,
        value=None if best is None else curve[best],
        epoch=best,
        epochs=epochs,
        seconds=1.5 + number,
        kind=Kind.DIVERGED if state is State.FAILED else None,
        reason=reason,
        attempts=attempts,
        curve=curve,
    )


def attempt(tracker: Tracker, number: int, epochs: int, count: int = 1) -> None:
    """Start an attempt and measure its first `epochs` epochs."""
    suggestion = suggestion_of(number)
    tracker.started(suggestion, count)
    best = 0.0
    for epoch in range(1, epochs + 1):
        best = max(best, value_of(number, epoch, count))
        tracker.measured(suggestion, Measurement(epoch, metrics_of(number, epoch, count), 0.3), best)


def end(tracker: Tracker, trial: Trial) -> None:
    tracker.ended(trial.suggestion, trial.outcome)


def play(tracker: Tracker, make_tracker: object = None) -> list[Trial]:
    """Two runs of one sweep: the first is killed (never `closed`) with trial 5 running, the second continues it.

    0, 1, 6 complete (1 ends after 2); 2 pruned; 3 failed after an epoch; 4 failed before training; 5 lost with the first run
    and run again; 7 still running. `make_tracker()` gives the second run's tracker; default: the first goes on.
    """
    sweep = make_sweep()
    done = [
        finished(0, 4, State.COMPLETE),
        finished(1, 4, State.COMPLETE),
        finished(2, 2, State.PRUNED, reason="median"),
        finished(3, 1, State.FAILED, reason="val_loss is not finite"),
        finished(4, 0, State.FAILED, reason="input too small"),
    ]
    tracker.opened(SweepInfo("synth", sweep, 8, [], workers=2))
    attempt(tracker, 0, 4)
    end(tracker, done[0])
    attempt(tracker, 1, 4)
    attempt(tracker, 2, 2)
    end(tracker, done[2])
    end(tracker, done[1])
    attempt(tracker, 3, 1)
    end(tracker, done[3])
    attempt(tracker, 4, 0)
    end(tracker, done[4])
    attempt(tracker, 5, 3)
    queued = replace(finished(5, 0, State.COMPLETE), state=State.QUEUED, value=None, epoch=None, seconds=0.0)
    second = make_tracker() if callable(make_tracker) else tracker
    if second is tracker:
        tracker.interrupted(suggestion_of(5), "stopped")
    else:
        second.opened(SweepInfo("synth", sweep, 8, [*done, queued], workers=2))
    return [*done, *_second_run(second)]


def _second_run(tracker: Tracker) -> Sequence[Trial]:
    five, six = finished(5, 4, State.COMPLETE, attempts=2), finished(6, 4, State.COMPLETE)
    attempt(tracker, 5, 4, count=2)
    end(tracker, five)
    attempt(tracker, 6, 4)
    end(tracker, six)
    attempt(tracker, 7, 2)
    running = replace(finished(7, 2, State.COMPLETE), state=State.RUNNING, value=None, epoch=None)
    return [five, six, running]
