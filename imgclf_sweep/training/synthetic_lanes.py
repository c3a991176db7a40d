"""Lanes that train nothing: the synthetic trainer's jobs side by side, each in a thread of its own, held to rounds.

Options of IMGCLF_SWEEP_SYNTHETIC beside those of `synthetic`:
  jitter   seconds; each epoch takes a random time up to that longer, which may change nothing but the time
"""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import SweepError
from ..trial import Measurement, Outcome
from .checkpoint import Checkpoints, identity
from .failures import surroundings
from .protocol import Job, Paused, Reply, Setup
from .synthetic import SyntheticTrainer


class SyntheticLanes:
    """Implements `LaneTrainer` on `SyntheticTrainer`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._trainer = SyntheticTrainer(setup)
        self._jitter = float(json.loads(os.environ.get("IMGCLF_SWEEP_SYNTHETIC", "{}")).get("jitter", 0))
        self._places: dict[int, _Place] = {}
        self.lanes = setup.lanes
        self.recycle_after = self._trainer.recycle_after

    def begin(self, lane: int, job: Job) -> Sequence[Measurement] | Outcome | None:
        place = self._places[lane] = _Place(self._trainer, job, self._jitter)
        if Checkpoints(Path(job.directory), identity(self._setup, job), lambda line: None).newest() is None:
            return None
        return place.earlier()

    def epoch(self) -> Sequence[tuple[int, Measurement | Outcome]]:
        for place in self._places.values():
            place.train()
        found = [(lane, self._places[lane].result()) for lane in sorted(self._places)]
        for lane, result in found:
            if isinstance(result, Outcome):
                del self._places[lane]
        return found

    def reply(self, lane: int, reply: Reply) -> Outcome | Paused | None:
        ending = self._places[lane].answer(reply)
        if ending is not None:
            del self._places[lane]
        return ending


class _Place:
    """A job in its thread, which waits wherever the rounds have it wait."""

    def __init__(self, trainer: SyntheticTrainer, job: Job, jitter: float) -> None:
        self._job, self._jitter = job, jitter
        self._heard: queue.Queue[Reply] = queue.Queue()
        self._said: queue.Queue[Sequence[Measurement] | Measurement | Outcome | None] = queue.Queue()
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, args=(trainer,), daemon=True)
        self._epoch = 0

    def earlier(self) -> Sequence[Measurement]:
        self._thread.start()
        found = self._said.get()
        assert isinstance(found, Sequence)
        self._epoch = found[-1].epoch
        return found

    def train(self) -> None:
        if self._thread.is_alive():
            self._go.release()
        else:
            self._thread.start()

    def result(self) -> Measurement | Outcome:
        found = self._said.get()
        assert isinstance(found, Measurement | Outcome)
        if isinstance(found, Measurement):
            self._epoch = found.epoch
        return found

    def answer(self, reply: Reply) -> Outcome | Paused | None:
        self._heard.put(reply)
        if reply is Reply.GO and self._epoch < self._job.suggestion.epochs:
            return None
        ending = self._said.get()
        assert ending is None or isinstance(ending, Outcome)
        return Paused() if ending is None else ending

    def _work(self, trainer: SyntheticTrainer) -> None:
        try:
            self._said.put(trainer.train(self._job, self._on_epoch, self._on_resume))
        except (SweepError, OSError) as error:
            self._said.put(surroundings(error))

    def _on_resume(self, measurements: Sequence[Measurement]) -> Reply:
        self._said.put(tuple(measurements))
        return self._wait()

    def _on_epoch(self, measurement: Measurement) -> Reply:
        self._said.put(measurement)
        return self._wait()

    def _wait(self) -> Reply:
        """The answer, and after it the next round."""
        reply = self._heard.get()
        if reply is Reply.GO and self._epoch < self._job.suggestion.epochs:
            self._go.acquire()
            time.sleep(random.random() * self._jitter)
        return reply
