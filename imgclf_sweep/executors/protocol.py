"""The rules every executor keeps: it runs jobs in named slots and says what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..training.protocol import Compilations, Job, Reply
from ..trial import Kind, Measurement, Outcome


@dataclass(frozen=True)
class Measured:
    """An epoch of the job in `slot` ended; it waits for a `reply`."""

    slot: str
    token: str
    measurement: Measurement


@dataclass(frozen=True)
class Resumed:
    """The job in `slot` goes on from a checkpoint; earlier attempts have measured these epochs of it, at least one. It waits
    for a `reply`, as to the last of them. It comes before any `Measured` of its attempt, if at all."""

    slot: str
    token: str
    measurements: Sequence[Measurement]


@dataclass(frozen=True)
class Ended:
    """The job in `slot` is over. `outcome` is None when it stopped because it was told to interrupt."""

    slot: str
    token: str
    outcome: Outcome | None


@dataclass(frozen=True)
class Gone:
    """The worker in `slot` is gone with its job unfinished. The slot is usable again."""

    slot: str
    token: str
    kind: Kind
    reason: str


Event = Measured | Resumed | Ended | Gone


class Executor(Protocol):
    """Slots are named "w0", "w1", ... A slot runs one job at a time. Called from one thread."""

    slots: Sequence[str]

    def start(self, slot: str, job: Job) -> None:
        """Hand a job to a free slot. The slot is busy until its `Ended` or `Gone` was returned by `wait`."""
        ...

    def pid(self, slot: str) -> int:
        """The process behind a slot, that its next job will run in."""
        ...

    def neighbours(self, slot: str) -> Sequence[str]:
        """The other slots that share its device: what they take of its memory is missing here."""
        ...

    def alone(self, slot: str) -> None:
        """The next job of this slot is to have the machine for itself: idle workers end, and its own has the whole device.
        Called when nothing runs, before `pid` and `start`."""
        ...

    def wait(self, timeout: float) -> list[Event]:
        """What happened, in order a slot; empty when nothing did for `timeout` seconds. Never raises
        for what a job does. Raises: StoreError when no job can ever run (the data is gone, workers die while starting)."""
        ...

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        """Answer a `Measured` or `Resumed`: exactly once for each, unless the slot is gone."""
        ...

    @property
    def compilations(self) -> Compilations:
        """What its trainers have compiled, all together, as far as they have told."""
        ...

    def close(self) -> None:
        """End every worker and all it started. Calling it twice is allowed."""
        ...
