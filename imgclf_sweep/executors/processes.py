"""Worker processes on this machine: one a slot, kept warm, replaced when they die, leak or hang; one more stands ready."""

from __future__ import annotations

import contextlib
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..child import ProtocolError
from ..errors import StoreError
from ..text import printable
from ..training.protocol import Job, Reply, Setup
from ..trial import Kind
from . import logs as files
from . import memory
from .devices import SHARES
from .messages import measurement_from_json, measurements_from_json, outcome_from_json
from .protocol import Ended, Event, Gone, Measured, Resumed
from .worker_process import Limits, Worker

BROKEN_BY_ITSELF = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}
START_ATTEMPTS = 3  # a worker that dies this often before it is ready never will be
LOOK_SECONDS = 0.25  # between looks at the workers' memory, logs and limits
SLEPT_SECONDS = 2.0  # a longer gap between two looks means that we were suspended or busy: nobody is judged by it
MEMORY_PART = 0.8  # of the memory limit; with that much in our hands, a SIGKILL from nowhere was for memory


class ProcessExecutor:
    """Implements `Executor` with spawned worker processes.

    environments: one dict of environment variables a worker (its devices, its share of threads); their number is the number
    of slots, unless the system refuses so many processes: then `note` is told.   logs: the directory where what workers print
    goes, one file a slot.
    Raises: StoreError where no worker process can be made at all; from `wait`, when a worker cannot be made to work: the data
    is gone, say.
    """

    def __init__(
        self,
        setup: Setup,
        environments: Sequence[Mapping[str, str]],
        logs: Path,
        *,
        limits: Limits | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._setup, self._logs = setup, logs
        self._limits = limits or Limits()
        self._common = dict(environments[0].items() & set.intersection(*(set(e.items()) for e in environments)))
        self._environments = {f"w{i}": env for i, env in enumerate(environments)}
        self._workers: dict[str, Worker] = {}
        self._spare: Worker | None = None
        self._failed_starts = 0
        self._looked = time.monotonic()
        self._kills = memory.oom_kills()
        self._jobs = 0
        try:
            self._selector = selectors.DefaultSelector()
            for slot in self._environments:
                self._employ(slot)
        except OSError as error:
            if not self._workers:
                raise StoreError(_no_process(error)) from error
            note(f"{len(self._workers)} instead of {len(environments)} workers: {_no_process(error)}")
        self.slots: Sequence[str] = tuple(self._workers)

    # -- workers -----------------------------------------------------------------------------------------------------

    def _employ(self, slot: str, whole: bool = False) -> Worker:
        """A worker for this slot, at work on its setup: the spare one if there is one. whole: not held to its share of a GPU."""
        env = {k: v for k, v in self._environments[slot].items() if not (whole and k in SHARES)}
        worker, self._spare = self._spare, None
        if worker is None or not worker.env.items() <= env.items():
            self._dismiss(worker)
            worker = self._spawn(self._log(slot), env)
        worker.slot, worker.log, worker.alone = slot, self._log(slot), whole and env != self._environments[slot]
        worker.send({"type": "setup", "setup": self._setup.to_json(), "env": env, "log": str(worker.log)})
        self._workers[slot] = worker
        return worker

    def _spawn(self, log: Path, env: Mapping[str, str]) -> Worker:
        worker = Worker(log, env, self._limits)
        self._selector.register(worker.child, selectors.EVENT_READ, worker)
        return worker

    def _log(self, slot: str) -> Path:
        return self._logs / f"{slot}.log"

    def _dismiss(self, worker: Worker | None, grace: float = 0) -> int:
        """End a worker and all it started; returns its exit status.   grace: seconds to die by itself, if it is dying."""
        if worker is None:
            return 0
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.child)
        if worker is self._spare:
            self._spare = None
        elif worker.slot is not None:
            self._workers.pop(worker.slot, None)
        return worker.child.close(grace)

    def _keep_a_spare(self) -> None:
        """One process more, its imports done, so that a replacement costs no 10 s.

        It has no images yet: measured on two busy cores, its imports took 10.8 s and scaling CIFAR-10 4.8 s, but the scaled
        images would hold 614 MB all the time. It starts with the second job, when the workers no longer compete with it for
        the processor, and only where memory is plenty.
        """
        if self._spare is not None or self._jobs < 2 or not all(w.ready for w in self._workers.values()):
            return
        free = memory.free()
        if free is not None and free < 2 * max(w.memory for w in self._workers.values()):
            return
        with contextlib.suppress(OSError):  # it is a convenience
            self._spare = self._spawn(self._logs / "spare.log", self._common)
            self._spare.send({"type": "warm", "trainer": self._setup.trainer})

    # -- the protocol ------------------------------------------------------------------------------------------------

    def start(self, slot: str, job: Job) -> None:
        worker = self._worker(slot)
        assert worker.job is None, f"{slot} is busy"
        self._jobs += 1
        worker.begin(job)
        self._keep_a_spare()

    def pid(self, slot: str) -> int:
        return self._worker(slot).pid

    def _worker(self, slot: str) -> Worker:
        worker = self._workers.get(slot)
        return worker if worker is not None else self._replace(slot)

    def _replace(self, slot: str) -> Worker:
        try:
            return self._employ(slot)
        except OSError as error:
            raise StoreError(_no_process(error)) from error

    def neighbours(self, slot: str) -> Sequence[str]:
        device = self._environments[slot].get("CUDA_VISIBLE_DEVICES")
        same = [s for s in self.slots if self._environments[s].get("CUDA_VISIBLE_DEVICES") == device]
        return [s for s in same if s != slot]

    def alone(self, slot: str) -> None:
        for worker in [self._spare, *self._workers.values()]:
            if worker is not None and worker.slot != slot:
                self._dismiss(worker)
        if set(SHARES) & set(self._environments[slot]):
            self._dismiss(self._workers.get(slot))
            self._employ(slot, whole=True)

    def wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            for key, _ in self._selector.select(min(left, LOOK_SECONDS)):
                events += self._read(key.data)
            events += self._look_after()
            if events or time.monotonic() >= deadline:
                return events

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        worker = self._workers.get(slot)
        if worker is not None:
            worker.child.send({"type": "reply", "token": token, "reply": reply.value})

    def close(self) -> None:
        for worker in [self._spare, *self._workers.values()]:
            if worker is not None:
                self._dismiss(worker)
                files.cap(worker.log)
        self._selector.close()

    # -- what workers say --------------------------------------------------------------------------------------------

    def _read(self, worker: Worker) -> list[Event]:
        events: list[Event] = []
        try:
            for message in worker.child.receive():
                worker.heard()
                events += self._understand(worker, message)
        except ProtocolError as error:
            return [*events, *self._bury(worker, (Kind.CRASH, f"the worker broke the message protocol: {error}"))]
        if worker.child.ended:
            events += self._bury(worker, None)
        return events

    def _understand(self, worker: Worker, message: Mapping[str, Any]) -> Iterator[Event]:
        kind, slot, token = message["type"], worker.slot, message.get("token")
        if kind == "warm":
            worker.warm = True
        elif kind == "ready":
            worker.now_ready(message.get("recycle_after"))
            self._failed_starts = 0
        elif kind == "unusable":
            raise StoreError(f"worker {slot} cannot start: {printable(message.get('reason'))}")
        elif kind == "measured" and slot is not None:
            yield Measured(slot, str(token), measurement_from_json(message.get("measurement")))
        elif kind == "resumed" and slot is not None:
            yield Resumed(slot, str(token), measurements_from_json(message.get("measurements")))
        elif kind == "ended" and slot is not None:
            outcome = message.get("outcome")
            yield Ended(slot, str(token), None if outcome is None else outcome_from_json(outcome))
            if worker.job is not None and worker.job.token == token:
                worker.job_ended()
                self._renew(worker)
        elif kind != "beat":
            raise ProtocolError(f"a message of unknown type {printable(kind)}")

    def _renew(self, worker: Worker) -> None:
        """Between two jobs: replace a worker that leaks, and an old one as soon as that costs no time."""
        ready = self._spare is not None and self._spare.warm
        if worker.leaks or worker.alone or (worker.old and ready):
            assert worker.slot is not None
            self._dismiss(worker)
            self._replace(worker.slot)

    # -- what they do not say ----------------------------------------------------------------------------------------

    def _look_after(self) -> list[Event]:
        now = time.monotonic()
        gap, everyone = now - self._looked, [w for w in (self._spare, *self._workers.values()) if w is not None]
        if gap < LOOK_SECONDS:
            return []
        self._looked = now
        events: list[Event] = []
        for worker in everyone:
            if gap > SLEPT_SECONDS:
                worker.forgive(gap)
            worker.look()
            files.cap(worker.log)
            overdue = worker.overdue()
            if overdue is not None:
                events += self._bury(worker, overdue)
        return events

    def _bury(self, worker: Worker, why: tuple[Kind, str] | None) -> list[Event]:
        """The worker is dead or, if we say why, must be: collect it, say what became of its job, and have the next one."""
        everyone = sum(w.memory for w in self._workers.values())
        was_spare = worker is self._spare
        status = self._dismiss(worker, grace=0 if why else 2)
        if not (worker.ready or worker.warm):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise StoreError(
                    f"worker {worker.slot or 'to spare'} dies while starting ({describe(status)}); "
                    f"its output is in {printable(worker.log)}"
                )
        if was_spare:
            return []
        assert worker.slot is not None
        self._replace(worker.slot)
        if worker.job is None:
            return []
        kind, reason = why or self._explain(status, everyone)
        return [Gone(worker.slot, worker.job.token, kind, reason)]

    def _explain(self, status: int, had: int) -> tuple[Kind, str]:
        """What a death that we did not cause tells.  had: bytes of memory that all workers had when last seen."""
        reason = f"the worker {describe(status)}"
        if status >= 0 or -status in BROKEN_BY_ITSELF:
            return Kind.CRASH, reason
        kills, self._kills = self._kills, memory.oom_kills()
        limit = memory.limit()
        if status == -signal.SIGKILL and (self._kills > kills or (limit and had > MEMORY_PART * limit)):
            return Kind.OOM_HOST, f"{reason} for want of memory: the workers had {had / 1e9:.1f} GB"
        return Kind.LOST, reason


def describe(status: int) -> str:
    """An exit status as `subprocess` gives it, in words."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"
    return f"exited with status {status}"


def _no_process(error: OSError) -> str:
    return f"the system refuses another process ({printable(error.strerror or error)})"
