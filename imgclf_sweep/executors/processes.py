"""Worker processes on this machine: kept warm, replaced when they die, leak or hang; one more stands ready.

A worker has one slot, "w0", or, where it trains several jobs side by side, one for each: "w0.0", "w0.1", ...
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..child import ProtocolError
from ..errors import StoreError
from ..text import printable
from ..training.protocol import Compilations, Job, Reply, Setup
from ..trial import Kind
from . import deaths, memory
from . import logs as files
from .deaths import describe, no_process
from .devices import SHARES
from .messages import compilations_from_json, measurements_from_json, messages_from_json, outcome_from_json
from .protocol import Ended, Event, Gone, Measured, Resumed
from .worker_process import Limits, Worker

START_ATTEMPTS = 3  # a worker that dies this often before it is ready never will be
LOOK_SECONDS = 0.25  # between looks at the workers' memory, logs and limits
SLEPT_SECONDS = 2.0  # a longer gap between two looks means that we were suspended or busy: nobody is judged by it


class ProcessExecutor:
    """Implements `Executor` with spawned worker processes.

    environments: one dict of environment variables a worker (its devices, its share of threads); their number is the number
    of workers, unless the system refuses so many processes: then `note` is told.   logs: the directory where what workers print
    goes, one file a worker.
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
        self._slots = {name: _slots(name, setup.lanes) for name in self._environments}
        self._workers: dict[str, Worker] = {}
        self._spare: Worker | None = None
        self._failed_starts = 0
        self._looked = time.monotonic()
        self._kills = memory.oom_kills()
        self._jobs = 0
        self._compiled: dict[int, Compilations] = {}  # by the worker's process
        try:
            self._selector = selectors.DefaultSelector()
            for name in self._environments:
                self._employ(name)
        except OSError as error:
            if not self._workers:
                raise StoreError(no_process(error)) from error
            note(f"{len(self._workers)} instead of {len(environments)} workers: {no_process(error)}")
        self.slots: Sequence[str] = [self._slots[name][lane] for lane in range(setup.lanes) for name in self._workers]

    # -- workers -----------------------------------------------------------------------------------------------------

    def _employ(self, name: str, whole: bool = False) -> Worker:
        """A worker of this name, at work on its setup: the spare one if there is one. whole: not held to its share of a GPU."""
        env = {k: v for k, v in self._environments[name].items() if not (whole and k in SHARES)}
        worker, self._spare = self._spare, None
        if worker is None or not worker.env.items() <= env.items():
            self._dismiss(worker)
            worker = self._spawn(self._log(name), env)
        worker.name, worker.slots, worker.log = name, self._slots[name], self._log(name)
        worker.alone = whole and env != self._environments[name]
        worker.send({"type": "setup", "setup": self._setup.to_json(), "env": env, "log": str(worker.log)})
        self._workers[name] = worker
        return worker

    def _spawn(self, log: Path, env: Mapping[str, str]) -> Worker:
        worker = Worker(log, env, self._limits)
        self._selector.register(worker.child, selectors.EVENT_READ, worker)
        return worker

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _dismiss(self, worker: Worker | None, grace: float = 0) -> int:
        """End a worker and all it started; returns its exit status.   grace: seconds to die by itself, if it is dying."""
        if worker is None:
            return 0
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.child)
        if worker is self._spare:
            self._spare = None
        elif worker.name is not None:
            self._workers.pop(worker.name, None)
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
        assert slot not in worker.jobs, f"{slot} is busy"
        self._jobs += 1
        worker.begin(slot, job)
        self._keep_a_spare()

    def pid(self, slot: str) -> int:
        return self._worker(slot).pid

    def _worker(self, slot: str) -> Worker:
        worker = self._workers.get(_name(slot))
        return worker if worker is not None else self._replace(_name(slot))

    def _replace(self, name: str, whole: bool = False) -> Worker:
        try:
            return self._employ(name, whole)
        except OSError as error:
            raise StoreError(no_process(error)) from error

    def neighbours(self, slot: str) -> Sequence[str]:
        device = {name: env.get("CUDA_VISIBLE_DEVICES") for name, env in self._environments.items()}
        return [s for s in self.slots if s != slot and device[_name(s)] == device[_name(slot)]]

    def alone(self, slot: str) -> None:
        name = _name(slot)
        for worker in [self._spare, *self._workers.values()]:
            if worker is not None and worker.name != name:
                self._dismiss(worker)
        if set(SHARES) & set(self._environments[name]):
            self._dismiss(self._workers.get(name))
            self._replace(name, whole=True)

    def wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        deadline = time.monotonic() + timeout
        for worker in self._workers.values():  # all that was heard is answered, and free slots have new jobs
            worker.go()
        while True:
            left = max(0.0, deadline - time.monotonic())
            for key, _ in self._selector.select(min(left, LOOK_SECONDS)):
                events += self._read(key.data)
            events += self._look_after()
            if events or time.monotonic() >= deadline:
                return events

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        worker = self._workers.get(_name(slot))
        if worker is not None and worker.slot_of(token) == slot:  # else it died, and its replacement asked nothing
            worker.answer(slot, token, reply)

    @property
    def compilations(self) -> Compilations:
        return sum(self._compiled.values(), Compilations())

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
        kind = message["type"]
        if kind == "warm":
            worker.warm = True
        elif kind == "ready":
            worker.now_ready(message.get("recycle_after"))
            self._failed_starts = 0
        elif kind == "unusable":
            raise StoreError(f"worker {worker.name} cannot start: {printable(message.get('reason'))}")
        elif kind == "compiled":
            self._compiled[worker.pid] = compilations_from_json(message)
        elif kind == "round" and not worker.our_turn:
            worker.our_turn = True
            for each in messages_from_json(message.get("messages")):
                yield from self._heard(worker, each)
        elif kind != "beat":
            yield from self._heard(worker, message)

    def _heard(self, worker: Worker, message: Mapping[str, Any]) -> Iterator[Event]:
        """What became of a job."""
        kind, token = message["type"], str(message.get("token"))
        if kind not in ("measured", "resumed", "ended") or worker.name is None:
            raise ProtocolError(f"a message of unknown type {printable(kind)}")
        held_in = worker.slot_of(token)
        slot = held_in or worker.slots[0]  # of a job that it does not have: whoever asked for events knows what to do
        if kind == "ended":
            outcome = message.get("outcome")
            stopped = held_in is not None and worker.jobs[held_in].stopped
            if stopped and outcome is None:
                yield Gone(slot, token, Kind.TIMEOUT, worker.late)
            else:
                yield Ended(slot, token, None if outcome is None else outcome_from_json(outcome))
            if held_in is not None:
                worker.job_ended(held_in)
                self._renew(worker)
            return
        measurements = measurements_from_json(
            message.get("measurements") if kind == "resumed" else [message.get("measurement")]
        )
        if held_in is not None:
            worker.unanswered += 1
            worker.jobs[held_in].epoch = measurements[-1].epoch
        worker.epoch_ended(max(m.seconds for m in measurements))
        yield Resumed(slot, token, measurements) if kind == "resumed" else Measured(slot, token, measurements[0])

    def _renew(self, worker: Worker) -> None:
        """Between two jobs: replace a worker that leaks, and an old one as soon as that costs no time."""
        ready = self._spare is not None and self._spare.warm
        if not worker.jobs and (worker.leaks or worker.alone or (worker.old and ready)):
            assert worker.name is not None
            self._dismiss(worker)
            self._replace(worker.name)

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
        late = {slot for slot, held in worker.jobs.items() if worker.is_late(held)}
        was_spare = worker is self._spare
        status = self._dismiss(worker, grace=0 if why else 2)
        if not (worker.ready or worker.warm):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise StoreError(
                    f"worker {worker.name or 'to spare'} dies while starting ({describe(status)}); "
                    f"its output is in {printable(worker.log)}"
                )
        if was_spare:
            return []
        assert worker.name is not None
        self._replace(worker.name)
        if not worker.jobs:
            return []
        if why is None:
            kills, self._kills = self._kills, memory.oom_kills()
            why = deaths.explain(status, everyone, oom=self._kills > kills)
        return list(deaths.gone(worker, late, *why))


def _slots(name: str, lanes: int) -> tuple[str, ...]:
    return (name,) if lanes == 1 else tuple(f"{name}.{lane}" for lane in range(lanes))


def _name(slot: str) -> str:
    """The worker that has a slot."""
    return slot.split(".")[0]
