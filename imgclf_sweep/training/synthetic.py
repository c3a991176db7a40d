"""A trainer that trains nothing: the reference for the protocol and the double that fault tests drive a real sweep with.

Its measurements are a fixed function of the parameters and the epoch, so two runs of one sweep can be compared trial by trial.
The environment variable IMGCLF_SWEEP_SYNTHETIC may hold a JSON object: `delay`, seconds an epoch takes (default 0); `faults`, from
a trial's number (as text) to [what, epoch, times]: what goes wrong in that epoch ("raise", "diverge", "exit", "kill", "segv",
"rubbish"), in how many of its attempts.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..trial import Kind, Measurement, Outcome, State
from .protocol import Job, Reply, Setup


class SyntheticTrainer:
    """Implements `Trainer` without a model or data; see the module's text."""

    def __init__(self, setup: Setup) -> None:
        self._objective = setup.sweep.objective
        options = json.loads(os.environ.get("IMGCLF_SWEEP_SYNTHETIC", "{}"))
        self._delay = float(options.get("delay", 0))
        self._faults = options.get("faults", {})

    def train(self, job: Job, on_epoch: Callable[[Measurement], Reply]) -> Outcome | None:
        started = time.monotonic()
        best: float | None = None
        best_epoch, trained = 0, 0
        for epoch in range(job.suggestion.initial_epoch + 1, job.suggestion.epochs + 1):
            time.sleep(self._delay)
            failed = self._fault(job, epoch)
            seconds = time.monotonic() - started
            if failed is not None:
                return Outcome(State.FAILED, epochs=trained, seconds=seconds, kind=failed[0], reason=failed[1])
            metrics = measure(job.suggestion.params, epoch)
            value = metrics[self._objective.metric]
            trained += 1
            if self._objective.better(value, best):
                best, best_epoch = value, epoch
            reply = on_epoch(Measurement(epoch, metrics, self._delay))
            if reply is Reply.INTERRUPT:
                return None
            if reply is Reply.PRUNE:
                return Outcome(State.PRUNED, best, best_epoch, trained, seconds, reason="stopped by the pruner")
        return Outcome(State.COMPLETE, best, best_epoch, trained, time.monotonic() - started)

    def _fault(self, job: Job, epoch: int) -> tuple[Kind, str] | None:
        what, when, times = self._faults.get(str(job.suggestion.number), ("none", 0, 0))
        if epoch != when:
            return None
        counter = Path(job.directory) / "faults"  # a file, because the process that counts may not survive
        counter.parent.mkdir(parents=True, exist_ok=True)
        done = len(counter.read_text()) if counter.exists() else 0
        if done >= times:
            return None
        counter.write_text("x" * (done + 1))
        if what == "raise":
            return Kind.ERROR, "RuntimeError: asked to fail"
        if what == "diverge":
            return Kind.DIVERGED, f"val_loss is nan in epoch {epoch}"
        if what == "rubbish":
            os.write(int(sys.argv[1]), b"this is not a message\n")
            time.sleep(60)
        if what == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGSEGV if what == "segv" else signal.SIGKILL)
        return None


def measure(params: Mapping[str, object], epoch: int) -> dict[str, float]:
    """The metrics of an epoch: a saturating curve whose height, in [0.3, 0.9], is a hash of the parameters."""
    digest = hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).digest()
    height = 0.3 + 0.6 * int.from_bytes(digest[:4], "big") / 2**32
    accuracy = height * (1 - math.exp(-epoch / 2))
    return {"accuracy": accuracy, "val_accuracy": accuracy * 0.95, "loss": 1 - accuracy, "val_loss": 1.1 - accuracy}
