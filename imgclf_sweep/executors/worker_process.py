"""One worker process as its executor sees it: what it does, when it was last heard, how much memory it has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..child import Child
from ..training.protocol import Job
from ..trial import Kind
from . import memory

BEAT_SECONDS = 5.0  # between the signs of life that a worker sends
START_SECONDS = 900.0  # for its imports, also from a slow network disk
GROWTH = 2.0  # times its memory after its first job: then it leaks, and is replaced


@dataclass(frozen=True)
class Limits:
    """How long a job may take in all, and how long its worker may be silent, in seconds; None: for ever."""

    trial: float | None = None
    silence: float | None = 600.0

    @property
    def beat(self) -> float:
        return BEAT_SECONDS if self.silence is None else min(BEAT_SECONDS, self.silence / 4)


class Worker:
    """A process that is starting, warm (imports done, no task yet) or ready (it has its setup); ready, it may have a job.

    Its clock is ours, `time.monotonic()`: setting the machine's clock or summer time changes nothing.
    """

    def __init__(self, log: Path, env: Mapping[str, str], limits: Limits) -> None:
        with open(log, "ab") as output:
            self.child = Child("imgclf_sweep.executors.worker", output=output, env=env)
        self.log, self.env, self._limits = log, dict(env), limits
        self.slot: str | None = None
        self.job: Job | None = None
        self.warm = self.ready = False
        self.alone = False  # it has more of a device than its slot's share, for one job
        self.recycle_after: int | None = None  # jobs, told by its trainer
        self.done = 0
        self.memory = self.memory_at_first = 0
        self._born = self._heard = time.monotonic()
        self._began: float | None = None

    @property
    def pid(self) -> int:
        return self.child.pid

    def send(self, message: Mapping[str, Any]) -> None:
        self.child.send({**message, "beat": self._limits.beat})

    def begin(self, job: Job) -> None:
        self.job = job
        self._began = time.monotonic() if self.ready else None
        self.child.send({"type": "job", "job": job.to_json()})

    def heard(self) -> None:
        self._heard = time.monotonic()

    def now_ready(self, recycle_after: int | None) -> None:
        self.ready, self.recycle_after = True, recycle_after
        if self.job is not None:
            self._began = time.monotonic()

    def job_ended(self) -> None:
        self.job = self._began = None
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
        if self._began is not None:
            self._began += seconds

    @property
    def leaks(self) -> bool:
        return self.memory > GROWTH * self.memory_at_first > 0

    @property
    def old(self) -> bool:
        return self.recycle_after is not None and self.done >= self.recycle_after

    def overdue(self) -> tuple[Kind, str] | None:
        """Why it must be killed, if it must."""
        now, limits = time.monotonic(), self._limits
        if limits.silence is not None and now - self._heard > limits.silence:
            return Kind.STALLED, f"nothing was heard of its worker for {limits.silence:g} s (--stall-timeout)"
        if limits.trial is not None and self._began is not None and now - self._began > limits.trial:
            return Kind.TIMEOUT, f"not done after {limits.trial:g} s (--max-trial-time)"
        if not (self.ready or self.warm) and now - self._born > START_SECONDS:
            return Kind.STALLED, f"its worker was not ready after {START_SECONDS:g} s"
        return None
