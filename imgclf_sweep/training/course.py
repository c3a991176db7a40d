"""One attempt's way through its epochs, whatever trains it: what was measured, the best epoch, and how it ended.

Pure values: no tensor library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..sweep import Objective
from ..text import listed
from ..trial import Kind, Measurement, Outcome, State
from .protocol import OnResume, Reply

LOSSES = ("loss", "val_loss")


@dataclass
class Progress:
    """What has been measured of a job, over all its attempts.

    last: the last epoch with a finite objective, and that.   best, best_epoch, weights: the best epoch so far.
    seconds: spent in earlier attempts on the epochs measured.
    """

    measurements: list[Measurement] = field(default_factory=list)
    last: tuple[int, float] | None = None
    best: float | None = None
    best_epoch: int | None = None
    weights: list[np.ndarray] | None = None
    seconds: float = 0.0

    def to_json(self, seconds: float) -> dict[str, Any]:
        return {
            "measurements": [[m.epoch, dict(m.metrics), m.seconds] for m in self.measurements],
            "last": self.last,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        """Without the weights."""
        measurements = [Measurement(epoch, metrics, seconds) for epoch, metrics, seconds in data["measurements"]]
        last = None if data["last"] is None else (data["last"][0], data["last"][1])
        return cls(measurements, last, data["best"], data["best_epoch"], None, data["seconds"])


class Course:
    """Hears each epoch's numbers, keeps count of the best, and says how the attempt ended.

    last_counts: the last epoch is the best one (there is no validation part to choose by).
    broken: the coordinator's end failed, not the trial.   began: an image was trained on; a failure before is the model's.
    """

    def __init__(self, objective: Objective, last_counts: bool) -> None:
        self._objective = objective
        self._last_counts = last_counts
        self._metric = objective.metric.removeprefix("val_") if last_counts else objective.metric
        self.progress = Progress()
        self.began = False
        self.broken = False
        self.failure: tuple[Kind, str] | None = None
        self.frames: str | None = None  # of the user's code, where it raised
        self.reply = Reply.GO
        self.epochs = 0

    def resume(self, found: Progress, on_resume: OnResume) -> None:
        """Go on from what an earlier attempt measured."""
        self.progress, self.epochs = found, len(found.measurements)
        self.reply = self._told(lambda: on_resume(found.measurements))

    def heard(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> Measurement | None:
        """Take in an epoch (from 1) and its numbers; None where they are the trial's end: `failure` says why.

        Where `progress.best_epoch` is `epoch` afterwards, its weights are the best: the caller puts them in `progress.weights`.
        """
        self.began = True
        self.epochs += 1
        self.failure = self._problem(epoch, metrics)
        if self.failure is not None:
            return None
        self._rank(epoch, metrics.get(self._metric))
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.progress.measurements.append(Measurement(epoch, finite, seconds))
        return self.progress.measurements[-1]

    def tell(self, on_epoch: Callable[[Measurement], Reply], measurement: Measurement) -> None:
        """Report an epoch and take the reply."""
        self.reply = self._told(lambda: on_epoch(measurement))

    def _told(self, ask: Callable[[], Reply]) -> Reply:
        try:
            return ask()
        except BaseException:
            self.broken = True
            raise

    def _problem(self, epoch: int, metrics: Mapping[str, float]) -> tuple[Kind, str] | None:
        for name in (*LOSSES, self._metric):
            if name in metrics and not math.isfinite(metrics[name]):
                before = self.progress.last
                last = f"; {self._metric} was {before[1]:.6g} in epoch {before[0]}" if before else ""
                return Kind.DIVERGED, f"{name} is {metrics[name]} in epoch {epoch}{last}"
        if self._metric not in metrics and not self._last_counts:
            return Kind.ERROR, f"objective '{self._metric}' is not measured; this model measures: {listed(metrics)}"
        return None

    def _rank(self, epoch: int, value: float | None) -> None:
        progress = self.progress
        if value is not None:
            progress.last = (epoch, value)
        if self._last_counts or (value is not None and self._objective.better(value, progress.best)):
            progress.best, progress.best_epoch = value, epoch

    def outcome(self, seconds: float, found: Mapping[str, Any]) -> Outcome:
        """How the trial ended, from all that was heard."""
        if self.failure is None and self.progress.best_epoch is None:
            self.failure = (Kind.ERROR, "no epoch was trained")
        if self.failure is not None:
            kind, reason = self.failure
            ended = State.FAILED, None, None, self.epochs, seconds
            return Outcome(*ended, kind=kind, reason=reason, found=found, frames=self.frames)
        pruned = self.reply is Reply.PRUNE
        return Outcome(
            State.PRUNED if pruned else State.COMPLETE,
            value=self.progress.best,
            epoch=self.progress.best_epoch,
            epochs=self.epochs,
            seconds=seconds,
            reason="stopped by the pruner" if pruned else None,
            found=found,
        )
