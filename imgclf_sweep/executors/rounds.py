"""A worker's side of training several jobs at a time: rounds, in which it and its parent take turns.

The parent's turn: it hands over jobs and answers, and says {"type": "go"}. The worker's turn: it begins the jobs and obeys the
answers; if that ends a job, or finds one half done, it says so; otherwise it trains an epoch of every job. Either way it sends
one message, {"type": "round", "messages": [...]}, of what a worker with one job would send one by one, and waits.

So the parent has heard everything before it asks for the next proposal, and what it has heard by then follows from the trials
and the number of lanes alone, never from how long anything took.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..child import Channel
from ..errors import SweepError
from ..training.failures import surroundings
from ..training.protocol import Job, LaneTrainer, Paused, Reply
from ..trial import Measurement, Outcome
from .messages import measurement_to_json, outcome_to_json


class Rounds:
    """Serves one parent with one trainer.   tell: called before each round is sent."""

    def __init__(self, channel: Channel, trainer: LaneTrainer, tell: Callable[[], None] = lambda: None) -> None:
        self._channel, self._trainer, self._tell = channel, trainer, tell
        self._jobs: dict[int, Job] = {}
        self._say: list[dict[str, Any]] = []

    def serve(self) -> None:
        """Take turns until the parent closes the pipe, which ends the process."""
        while True:
            self._obey()
            if not self._say:
                self._train()
            self._tell()
            self._channel.send(type="round", messages=self._say)
            self._say = []

    def _obey(self) -> None:
        """The parent's turn, up to its "go"."""
        while (command := self._channel.receive())["type"] != "go":
            if command["type"] == "job":
                self._begin(Job.from_json(command["job"]))
            elif command["type"] == "reply":
                self._reply(command["token"], Reply(command["reply"]))

    def _begin(self, job: Job) -> None:
        lane = next(lane for lane in range(self._trainer.lanes) if lane not in self._jobs)
        self._jobs[lane] = job
        with self._blamed([lane]):
            found = self._trainer.begin(lane, job)
            if isinstance(found, Outcome):
                self._ended(lane, found)
            elif found:
                self._told(lane, "resumed", measurements=[measurement_to_json(m) for m in found])

    def _reply(self, token: str, reply: Reply) -> None:
        lane = next((lane for lane, job in self._jobs.items() if job.token == token), None)
        if lane is None:
            return
        with self._blamed([lane]):
            ending = self._trainer.reply(lane, reply)
            if ending is not None:
                self._ended(lane, ending)

    def _train(self) -> None:
        with self._blamed(list(self._jobs)):
            for lane, found in self._trainer.epoch():
                if isinstance(found, Measurement):
                    self._told(lane, "measured", measurement=measurement_to_json(found))
                else:
                    self._ended(lane, found)

    @contextlib.contextmanager
    def _blamed(self, lanes: Sequence[int]) -> Iterator[None]:
        """What a trainer raises is no job's fault: the prepared data are gone, or the disk. The jobs of `lanes` end by it."""
        try:
            yield
        except (SweepError, OSError) as error:
            for lane in lanes:
                self._ended(lane, surroundings(error))

    def _ended(self, lane: int, ending: Outcome | Paused) -> None:
        self._told(lane, "ended", outcome=None if isinstance(ending, Paused) else outcome_to_json(ending))
        del self._jobs[lane]

    def _told(self, lane: int, kind: str, **more: Any) -> None:
        self._say.append({"type": kind, "token": self._jobs[lane].token, **more})
