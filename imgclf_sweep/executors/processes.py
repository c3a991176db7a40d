"""Worker processes on this machine: one a slot, kept warm, replaced when they die."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..child import Child, ProtocolError
from ..errors import StoreError
from ..text import printable
from ..training.protocol import Job, Reply, Setup
from ..trial import Kind
from .messages import measurement_from_json, outcome_from_json
from .protocol import Ended, Event, Gone, Measured

BROKEN_BY_ITSELF = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}
START_ATTEMPTS = 3  # a worker that dies this often before it is ready never will be


class _Slot:
    def __init__(self, name: str, env: Mapping[str, str], log: Path) -> None:
        self.name, self.env, self.log = name, env, log
        self.child: Child | None = None
        self.job: Job | None = None
        self.ready = False
        self.failed_starts = 0


class ProcessExecutor:
    """Implements `Executor` with spawned worker processes.

    environments: one dict of environment variables a worker (its devices, its share of threads); their number is the number
    of slots.   logs: the directory where what workers print goes, one file a slot.
    Raises (from `wait`): StoreError when a worker cannot be made to work at all: the data is gone, say.
    """

    def __init__(self, setup: Setup, environments: Sequence[Mapping[str, str]], logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._setup = setup.to_json()
        self._selector = selectors.DefaultSelector()
        self._slots = {f"w{i}": _Slot(f"w{i}", env, logs / f"w{i}.log") for i, env in enumerate(environments)}
        self.slots = tuple(self._slots)
        for slot in self._slots.values():
            self._spawn(slot)

    def _spawn(self, slot: _Slot) -> None:
        with open(slot.log, "ab") as output:
            slot.child = Child("imgclf_sweep.executors.worker", output=output, env=slot.env)
        slot.ready = False
        self._selector.register(slot.child, selectors.EVENT_READ, slot)
        slot.child.send({"type": "setup", "setup": self._setup})

    def start(self, slot: str, job: Job) -> None:
        place = self._slots[slot]
        assert place.job is None, f"{slot} is busy"
        place.job = job
        assert place.child is not None
        place.child.send({"type": "job", "job": job.to_json()})

    def pid(self, slot: str) -> int:
        child = self._slots[slot].child
        assert child is not None
        return child.pid

    def wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        deadline = time.monotonic() + timeout
        while not events and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                events += self._read(key.data)
        return events

    def _read(self, slot: _Slot) -> list[Event]:
        assert slot.child is not None
        events: list[Event] = []
        try:
            for message in slot.child.receive():
                event = self._understand(slot, message)
                if event is not None:
                    events.append(event)
        except ProtocolError as error:
            return [*events, *self._bury(slot, f"the worker broke the message protocol: {error}")]
        if slot.child.ended:
            events += self._bury(slot, None)
        return events

    def _understand(self, slot: _Slot, message: Mapping[str, Any]) -> Event | None:
        kind = message["type"]
        if kind == "ready":
            slot.ready, slot.failed_starts = True, 0
            return None
        if kind == "unusable":
            raise StoreError(f"worker {slot.name} cannot start: {printable(message.get('reason'))}")
        if slot.job is None or message.get("token") != slot.job.token:
            return None  # about a job that is no longer here
        if kind == "measured":
            return Measured(slot.name, slot.job.token, measurement_from_json(message["measurement"]))
        if kind == "ended":
            outcome = message.get("outcome")
            ended = Ended(slot.name, slot.job.token, None if outcome is None else outcome_from_json(outcome))
            slot.job = None
            return ended
        raise ProtocolError(f"a message of unknown type {printable(kind)}")

    def _bury(self, slot: _Slot, reason: str | None) -> list[Event]:
        """The worker is dead or must be: collect it, say what became of its job, and have the next one warm."""
        assert slot.child is not None
        self._selector.unregister(slot.child)
        status = slot.child.close(grace=0 if reason else 2)
        job, slot.job, slot.child = slot.job, None, None
        if not slot.ready:
            slot.failed_starts += 1
            if slot.failed_starts >= START_ATTEMPTS:
                raise StoreError(
                    f"worker {slot.name} dies while starting ({_describe(status)}); its output is in {printable(slot.log)}"
                )
        self._spawn(slot)
        if job is None:
            return []
        own_fault = reason is not None or status >= 0 or -status in BROKEN_BY_ITSELF
        kind = Kind.CRASH if own_fault else Kind.LOST
        return [Gone(slot.name, job.token, kind, reason or f"the worker {_describe(status)}")]

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        child = self._slots[slot].child
        if child is not None:
            child.send({"type": "reply", "token": token, "reply": reply.value})

    def close(self) -> None:
        for slot in self._slots.values():
            if slot.child is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(slot.child)
                slot.child.close()
                slot.child = slot.job = None
        self._selector.close()
        self._slots = {}


def _describe(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"
    return f"exited with status {status}"


def worker_environments(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """What each of `workers` processes sees: its own GPU in turn, or its share of the processor's threads."""
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)]
    if workers == 1:
        return [{}]
    share = str(max(1, (os.cpu_count() or 1) // workers))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS")
    return [dict.fromkeys(names, share) for _ in range(workers)]
