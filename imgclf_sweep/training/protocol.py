"""What a trainer is given and what it gives back. Pure values that travel to workers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from ..space import frozen
from ..sweep import Sweep
from ..trial import Measurement, Outcome, Suggestion


class Reply(StrEnum):
    """The answer to a measurement: go on, stop for good (pruned), or stop because the trial is to run again later."""

    GO = "go"
    PRUNE = "prune"
    INTERRUPT = "interrupt"


@dataclass(frozen=True)
class Setup:
    """What a worker needs once.

    data: the prepared data set's directory under cache/, absolute, as all paths here: a sweep file may change the working
    directory.   limit_images: see `data.split`.
    trainer: "fit" (Keras), "compiled" (JAX), or "synthetic", the test double.   lanes: jobs that a worker trains side by side.
    """

    sweep: Sweep
    data: str
    limit_images: int | None = None
    trainer: str = "fit"
    lanes: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep.to_json(),
            "data": self.data,
            "limit_images": self.limit_images,
            "trainer": self.trainer,
            "lanes": self.lanes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setup:
        return cls(Sweep.from_json(data["sweep"]), data["data"], data["limit_images"], data["trainer"], data["lanes"])


@dataclass(frozen=True)
class Job:
    """One attempt of one trial.

    token: names the attempt; every message about it carries it.
    seed: of the weights, shuffling and dropout, below 2**32.
    directory: where this trial's weights are kept, absolute; the best epoch's are there when the trial ends (`weights.NAMES`).
    start_from: a weights file to start from (Hyperband's parent), or None.
    part: "train" holds the validation part out and measures on it; "all" trains on both and measures the training metrics
    only (`retrain`), where the last epoch counts as the best.
    """

    suggestion: Suggestion
    token: str
    seed: int
    directory: str
    start_from: str | None = None
    part: str = "train"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        suggestion = dict(data["suggestion"])
        suggestion["params"] = {name: frozen(value) for name, value in suggestion["params"].items()}
        return cls(**{**data, "suggestion": Suggestion(**suggestion)})


@dataclass(frozen=True)
class Compilations:
    """Programs that a trainer compiled, the seconds that took, and those it found compiled by an earlier process."""

    compiled: int = 0
    seconds: float = 0.0
    cached: int = 0

    def __add__(self, other: Compilations) -> Compilations:
        return Compilations(self.compiled + other.compiled, self.seconds + other.seconds, self.cached + other.cached)

    def words(self) -> str:
        """On a line; empty where there was nothing to compile."""
        if not (self.compiled or self.cached):
            return ""
        made = f"{self.compiled} program{'' if self.compiled == 1 else 's'} compiled in {self.seconds:.0f} s"
        return f"{made}, {self.cached} taken from the cache" if self.cached else made


OnResume = Callable[[Sequence[Measurement]], Reply]
"""Told once, before the first `on_epoch`, what earlier attempts have measured; answers as for the last of these epochs."""


class Trainer(Protocol):
    """Trains one job after another in one process, from one thread. Made once per process with a `Setup`.

    recycle_after: after so many jobs its process is better replaced, because the library under it leaks; None: never.
    """

    recycle_after: int | None

    def train(
        self, job: Job, on_epoch: Callable[[Measurement], Reply], on_resume: OnResume | None = None
    ) -> Outcome | None:
        """Train, calling `on_epoch` after each epoch with finite metrics, and obey its reply.

        With `on_resume`, a checkpoint is in the job's directory before `on_epoch` hears of an epoch (compiled, one of that epoch
        or at most half a second older), and an attempt goes on from the newest whole one of the same job; its epochs' numbers
        are then those of an attempt that was never interrupted. Where one is found `on_resume` is called and its reply obeyed;
        without it nothing is kept or looked for.

        Returns the outcome: COMPLETE; PRUNED after Reply.PRUNE; FAILED with kind and reason for whatever the job itself did
        wrong (it never raises for that); None after Reply.INTERRUPT. The best epoch's weights are on disk before it returns.
        """
        ...


@dataclass(frozen=True)
class Paused:
    """A job that stopped because it was told to interrupt; its checkpoint is on disk."""


class LaneTrainer(Protocol):
    """Trains up to `lanes` jobs side by side in one process, from one thread, in rounds: an epoch of every job, then an answer
    for each. Made once per process with a `Setup`. What one job does disturbs no other.

    What a `Trainer` promises of a job's numbers, outcome, best weights and checkpoints holds here too, but that a checkpoint may
    lie some epochs back, where writing one takes long beside an epoch.
    recycle_after: as for `Trainer`.   Each method raises SweepError or OSError for what is no job's fault; the lanes concerned,
    all of them after `epoch`, are free then.
    """

    lanes: int
    recycle_after: int | None

    def begin(self, lane: int, job: Job) -> Sequence[Measurement] | Outcome | None:
        """Give a free lane a job, which the next round trains. Returns what earlier attempts have measured where the job goes on
        from a checkpoint, which is then to be answered by `reply`; its outcome, FAILED, where it cannot begin; else None."""
        ...

    def epoch(self) -> Sequence[tuple[int, Measurement | Outcome]]:
        """Train the next epoch of every job. What each lane measured, in the order of lanes, which `reply` is to answer; or how
        its job failed: the lane is free then."""
        ...

    def reply(self, lane: int, reply: Reply) -> Outcome | Paused | None:
        """Answer what a lane measured. Returns how its job ended, if this ends it, by the reply or because it was its last
        epoch: the lane is free then."""
        ...
