"""One worker process as its executor sees it: what it does, when it was last heard, how much memory it has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..child import Child
from ..training.protocol import Job, Reply
from ..trial import Kind
from . import memory

BEAT_SECONDS = 5.0  # between the signs of life that a worker sends
START_SECONDS = 900.0  # for its imports, also from a slow network disk
HANGS = 20.0  # times the longest epoch of its job so far: no epoch takes that much longer than the others
PATIENCE = 2.0  # times the time a job may take, until its worker dies for it though other jobs are in there
GROWTH = 2.0  # times its memory after its first job: then it leaks, and is replaced


@dataclass(frozen=True)
class Limits:
    """How long a job may take in all, and how long its worker may be silent, in seconds; None: for ever.

    A worker says that it lives even while its training hangs. So `silence` also ends an epoch that takes longer than that, if
    it also takes `HANGS` times as long as any before in its job; of a first epoch nobody can tell.
    """

    trial: float | None = None
    silence: float | None = 600.0

    @property
    def beat(self) -> float:
        return BEAT_SECONDS if self.silence is None else min(BEAT_SECONDS, self.silence / 4)


@dataclass
class Held:
    """A job that a worker has.  began: when, of a ready worker.  epoch: the last it measured.  stopped: it took too long and was
    told to stop."""

    job: Job
    began: float | None
    epoch: int = 0
    stopped: bool = False


class Worker:
    """A process that is starting, warm (imports done, no task yet) or ready (it has its setup); ready, it may have jobs.

    With one slot it has one job at a time. With several it takes turns with us, see `rounds`: it is our turn from the start
    and from each of its messages until `go`, which is said when `unanswered` measurements are none.
    Its clock is ours, `time.monotonic()`: setting the machine's clock or summer time changes nothing.
    """

    def __init__(self, log: Path, env: Mapping[str, str], limits: Limits) -> None:
        with open(log, "ab") as output:
            self.child = Child("imgclf_sweep.executors.worker", output=output, env=env)
        self.log, self.env, self._limits = log, dict(env), limits
        self.name: str | None = None
        self.slots: Sequence[str] = ()
        self.jobs: dict[str, Held] = {}
        self.our_turn, self.unanswered = True, 0
        self.warm = self.ready = False
        self.alone = False  # it has more of a device than its slot's share, for one job
        self.recycle_after: int | None = None  # jobs, told by its trainer
        self.done = 0
        self.memory = self.memory_at_first = 0
        self._born = self._heard = time.monotonic()
        self._epoch_ended: float | None = None
        self._longest_epoch = 0.0

    @property
    def pid(self) -> int:
        return self.child.pid

    def send(self, message: Mapping[str, Any]) -> None:
        self.child.send({**message, "beat": self._limits.beat})

    def begin(self, slot: str, job: Job) -> None:
        self.jobs[slot] = Held(job, time.monotonic() if self.ready else None)
        self.child.send({"type": "job", "job": job.to_json()})

    def answer(self, slot: str, token: str, reply: Reply) -> None:
        """Among several jobs, one whose time is over is stopped here, between two epochs, and costs the others nothing."""
        held = self.jobs[slot]
        done = held.epoch >= held.job.suggestion.epochs
        if len(self.slots) > 1 and reply is Reply.GO and not done and self.is_late(held):
            held.stopped, reply = True, Reply.INTERRUPT
        self.unanswered -= 1
        self.child.send({"type": "reply", "token": token, "reply": reply.value})

    def go(self) -> None:
        """End our turn, if everything is said and there is something to do."""
        if len(self.slots) > 1 and self.our_turn and self.jobs and self.unanswered == 0:
            self.our_turn = False
            self.child.send({"type": "go"})

    def slot_of(self, token: object) -> str | None:
        """Where the job of this token is, if it has it."""
        return next((slot for slot, held in self.jobs.items() if held.job.token == token), None)

    def heard(self) -> None:
        self._heard = time.monotonic()

    def now_ready(self, recycle_after: int | None) -> None:
        self.ready, self.recycle_after = True, recycle_after
        for held in self.jobs.values():
            held.began = time.monotonic()

    def epoch_ended(self, seconds: float) -> None:
        """seconds: it took at least that long."""
        now = time.monotonic()
        before = self._epoch_ended or min((h.began for h in self.jobs.values() if h.began), default=now)
        self._longest_epoch, self._epoch_ended = max(self._longest_epoch, seconds, now - before), now

    def job_ended(self, slot: str) -> None:
        del self.jobs[slot]
        if not self.jobs:
            self._epoch_ended, self._longest_epoch = None, 0.0
        self.done += 1
        self.look()
        self.memory_at_first = self.memory_at_first or self.memory

    def look(self) -> None:
        """Note its memory. The last look before a sudden death tells what it died of."""
        self.memory = memory.resident(self.pid) or self.memory

    def forgive(self, seconds: float) -> None:
        """We were suspended or busy this long and could not hear it: that time does not count."""
        self._born += seconds
        self._heard += seconds
        for held in self.jobs.values():
            if held.began is not None:
                held.began += seconds
        if self._epoch_ended is not None:
            self._epoch_ended += seconds

    @property
    def leaks(self) -> bool:
        """Not said of several lanes: with each shape of trial they compile another program."""
        return len(self.slots) == 1 and self.memory > GROWTH * self.memory_at_first > 0

    @property
    def old(self) -> bool:
        return self.recycle_after is not None and self.done >= self.recycle_after

    def is_late(self, held: Held) -> bool:
        """Whether a job has had all the time that a job may take."""
        limit = self._limits.trial
        return limit is not None and held.began is not None and time.monotonic() - held.began > limit

    @property
    def late(self) -> str:
        """Why such a job was stopped."""
        return f"not done after {self._limits.trial:g} s (--max-trial-time)"

    def overdue(self) -> tuple[Kind, str] | None:
        """Why it must be killed, if it must."""
        now, limits = time.monotonic(), self._limits
        if limits.silence is not None and now - self._heard > limits.silence:
            return Kind.STALLED, f"nothing was heard of its worker for {limits.silence:g} s (--stall-timeout)"
        if limits.silence is not None and self._epoch_ended is not None:
            most, longest = max(limits.silence, HANGS * self._longest_epoch), self._longest_epoch
            if now - self._epoch_ended > most:
                told = f"its epoch had not ended after {most:.3g} s, and none before took more than {longest:.3g} s"
                return Kind.STALLED, f"{told} (--stall-timeout)"
        began = min((held.began for held in self.jobs.values() if held.began is not None), default=now)
        if limits.trial is not None and now - began > limits.trial * (PATIENCE if len(self.slots) > 1 else 1):
            return Kind.TIMEOUT, self.late
        if not (self.ready or self.warm) and now - self._born > START_SECONDS:
            return Kind.STALLED, f"its worker was not ready after {START_SECONDS:g} s"
        return None
