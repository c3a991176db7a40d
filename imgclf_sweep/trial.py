"""One trial's life as plain values: a `Suggestion`, a `Measurement` an epoch, one `Outcome`; and a `Trial` read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .space import Params, Value


class State(StrEnum):
    """Where a trial stands.  QUEUED -> RUNNING -> COMPLETE | PRUNED | FAILED;  RUNNING -> QUEUED when an attempt was lost."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        return self in (State.COMPLETE, State.PRUNED, State.FAILED)


class Kind(StrEnum):
    """Why an attempt ended other than well. What follows from each is said in one place, `policy`."""

    PREEMPTED = "preempted"  # we stopped it (a signal, a time limit): the same number runs again
    LOST = "lost"  # its worker is gone, killed from outside: run again, a bounded number of times
    ENVIRONMENT = "environment"  # the disk is full, the data are gone: no trial's fault
    DIVERGED = "diverged"  # a loss or objective that is not finite
    OUT_OF_MEMORY = "out of memory"  # of the device, as the tensor library says it
    OOM_HOST = "out of memory (host)"  # the machine's: killed for it
    TIMEOUT = "timeout"  # it took longer than a trial may
    STALLED = "timeout (stalled)"  # nothing was heard of its worker for too long
    BUILD = "build error"  # the model could not be built or compiled, or its first batch failed
    CRASH = "crash"  # the worker died by itself (SIGSEGV, SIGABRT, exit)
    ERROR = "error"  # any other exception while training


@dataclass(frozen=True)
class Suggestion:
    """What to try: number from 0, active params, and epochs `initial_epoch` (trained already) to `epochs` (the total).

    `parent` is the number of the trial from whose best-epoch weights this one starts (Hyperband promotions), else None.
    """

    number: int
    params: Params
    epochs: int
    initial_epoch: int = 0
    parent: int | None = None


@dataclass(frozen=True)
class Measurement:
    """What one epoch gave: `epoch` counts from 1, `metrics` are finite floats by Keras's names (`val_accuracy`, `loss`)."""

    epoch: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: told exactly once.

    `value` is the best objective over the trained epochs and `epoch` the epoch (from 1) that had it; both None if FAILED, or
    if nothing was measured. `epochs` counts the epochs trained. `kind` and `reason` say why a trial failed; for PRUNED `reason`
    says who stopped it. `found` holds hyperparameters that a `build(hp)` first asked for in this trial: they took their
    defaults and were not searched. `frames` is the traceback through the user's own code, several lines, where a failure has one.
    """

    state: State
    value: float | None = None
    epoch: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    kind: Kind | None = None
    reason: str | None = None
    found: Mapping[str, Value] = field(default_factory=dict)
    frames: str | None = None


@dataclass(frozen=True)
class Trial:
    """One trial as the record holds it. `curve` is the objective by epoch (from 1) of the attempt that counts.

    `value`, `epoch`: as in `Outcome` for COMPLETE and PRUNED, else None. `attempts` counts the times it was started.
    """

    number: int
    state: State
    params: Params
    epochs_planned: int
    initial_epoch: int = 0
    parent: int | None = None
    value: float | None = None
    epoch: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    kind: Kind | None = None
    reason: str | None = None
    found: Mapping[str, Value] = field(default_factory=dict)
    attempts: int = 0
    curve: Mapping[int, float] = field(default_factory=dict)

    @property
    def suggestion(self) -> Suggestion:
        return Suggestion(self.number, self.params, self.epochs_planned, self.initial_epoch, self.parent)

    @property
    def outcome(self) -> Outcome:
        """The outcome of a finished trial. Raises: ValueError for one that is not."""
        if not self.state.finished:
            raise ValueError(f"trial {self.number} is {self.state}")
        return Outcome(
            self.state, self.value, self.epoch, self.epochs, self.seconds, self.kind, self.reason, self.found
        )

    def to_json(self) -> dict[str, object]:
        """The object that `sweep trials --json` prints."""
        keys = ("number", "state", "params", "value", "epoch", "epochs", "seconds", "reason")
        return {k: str(self.state) if k == "state" else getattr(self, k) for k in keys}
