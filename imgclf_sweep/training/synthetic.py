"""A trainer that trains nothing: the reference for the protocol and the double that fault tests drive a real sweep with.

Its measurements are a fixed function of the parameters and the epoch, so two runs of one sweep can be compared trial by trial.
The environment variable IMGCLF_SWEEP_SYNTHETIC may hold a JSON object:
  delay          seconds an epoch takes (default 0)
  delay_by       a parameter: an epoch takes so many times its value
  faults         from a trial's number (as text) or "*" to [what, epoch, times]: what of `synthetic_faults` happens in that epoch,
                 in how many of its attempts
  wall           [parameter, limit]: trials get better towards the limit, and beyond it each fails
  recycle_after  as in `Trainer`
  leak           bytes that stay with the process after each job
  weights        bytes of a checkpoint, and of the best weights, which are else not written; a trial that starts from another's
                 then fails without them
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..trial import Kind, Measurement, Outcome, State
from .checkpoint import Checkpoint, Checkpoints, identity
from .protocol import Job, OnResume, Reply, Setup
from .synthetic_faults import FAULTS
from .weights import BEST, whole


class SyntheticTrainer:
    """Implements `Trainer` without a model or data; see the module's text."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._objective = setup.sweep.objective
        options = json.loads(os.environ.get("IMGCLF_SWEEP_SYNTHETIC", "{}"))
        self._delay, self._delay_by = float(options.get("delay", 0)), options.get("delay_by")
        self._faults = options.get("faults", {})
        self._wall = options.get("wall")
        self.recycle_after: int | None = options.get("recycle_after")
        self._leak = int(options.get("leak", 0))
        self._leaked: list[bytearray] = []
        self._weights = np.zeros(int(options.get("weights", 0)), np.uint8)

    def train(
        self, job: Job, on_epoch: Callable[[Measurement], Reply], on_resume: OnResume | None = None
    ) -> Outcome | None:
        started = time.monotonic()
        kept = Checkpoints(Path(job.directory), identity(self._setup, job))
        self._leaked.append(bytearray(b"x") * self._leak)
        delay = self._delay * float(str(job.suggestion.params.get(self._delay_by, 1)))
        best: float | None = None
        best_epoch, trained, reply = 0, 0, Reply.GO
        measured, before = self._earlier(kept) if on_resume is not None else ([], 0.0)
        for m in measured:
            value, trained = m.metrics[self._objective.metric], trained + 1
            if self._objective.better(value, best):
                best, best_epoch = value, m.epoch
        if on_resume is not None and measured:
            reply = on_resume(measured)
        started -= before
        if self._weights.size and job.start_from is not None and not Path(job.start_from).is_file():
            return Outcome(
                State.FAILED, kind=Kind.BUILD, reason=f"the weights to start from are gone: {job.start_from}"
            )
        for epoch in range(job.suggestion.initial_epoch + trained + 1, job.suggestion.epochs + 1):
            if reply is not Reply.GO:
                break
            time.sleep(delay)
            failed = self._fault(job, epoch)
            seconds = time.monotonic() - started
            if failed is not None:
                return Outcome(State.FAILED, epochs=trained, seconds=seconds, kind=failed[0], reason=failed[1])
            metrics = self._measure(job.suggestion.params, epoch)
            value = metrics[self._objective.metric]
            trained += 1
            if self._objective.better(value, best):
                best, best_epoch = value, epoch
            measured.append(Measurement(epoch, metrics, delay))
            if on_resume is not None and epoch < job.suggestion.epochs:
                rows = [[m.epoch, dict(m.metrics), m.seconds] for m in measured]
                kept.save(Checkpoint(epoch, {"measurements": rows, "seconds": seconds}, {"x": self._weights}))
            reply = on_epoch(measured[-1])
        seconds = time.monotonic() - started
        if reply is Reply.INTERRUPT:
            return None
        if self._weights.size:
            with whole(Path(job.directory) / BEST) as file:
                file.write_bytes(self._weights.tobytes())
        if reply is Reply.PRUNE:
            return Outcome(State.PRUNED, best, best_epoch, trained, seconds, reason="stopped by the pruner")
        return Outcome(State.COMPLETE, best, best_epoch, trained, seconds)

    def _earlier(self, kept: Checkpoints) -> tuple[list[Measurement], float]:
        """What earlier attempts have measured, and how long they took for it."""
        found = kept.newest()
        if found is None:
            return [], 0.0
        rows = found.progress["measurements"]
        return [Measurement(epoch, metrics, seconds) for epoch, metrics, seconds in rows], found.progress["seconds"]

    def _fault(self, job: Job, epoch: int) -> tuple[Kind, str] | None:
        if self._wall is not None and job.suggestion.params[self._wall[0]] > self._wall[1]:
            return Kind.BUILD, f"ValueError: {self._wall[0]} {job.suggestion.params[self._wall[0]]} is too much"
        what, when, times = self._faults.get(str(job.suggestion.number)) or self._faults.get("*") or ("none", 0, 0)
        if epoch != when:
            return None
        counter = Path(job.directory) / "faults"  # a file, because the process that counts may not survive
        counter.parent.mkdir(parents=True, exist_ok=True)
        done = len(counter.read_text()) if counter.exists() else 0
        if done >= times:
            return None
        counter.write_text("x" * (done + 1))
        return FAULTS[what](epoch)

    def _measure(self, params: Mapping[str, object], epoch: int) -> dict[str, float]:
        if self._wall is None:
            return measure(params, epoch)
        name, limit = self._wall
        return curve(0.9 - abs(limit - float(str(params[name]))), epoch)


def measure(params: Mapping[str, object], epoch: int) -> dict[str, float]:
    """The metrics of an epoch: a saturating curve whose height, in [0.3, 0.9], is a hash of the parameters."""
    digest = hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).digest()
    return curve(0.3 + 0.6 * int.from_bytes(digest[:4], "big") / 2**32, epoch)


def curve(height: float, epoch: int) -> dict[str, float]:
    """What is measured on the way to an accuracy of `height`."""
    accuracy = height * (1 - math.exp(-epoch / 2))
    return {"accuracy": accuracy, "val_accuracy": accuracy * 0.95, "loss": 1 - accuracy, "val_loss": 1.1 - accuracy}
