"""The rules every executor keeps: it runs jobs in named slots and says what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..training.protocol import Job, Reply
from ..trial import Kind, Measurement, Outcome


@dataclass(frozen=True)
class Measured:
    """An epoch of the job in `slot` ended; it waits for a `reply`."""

    slot: str
    token: str
    measurement: Measurement


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


Event = Measured | Ended | Gone


class Executor(Protocol):
    """Slots are named "w0", "w1", ... A slot runs one job at a time. Called from one thread."""

    slots: Sequence[str]

    def start(self, slot: str, job: Job) -> None:
        """Hand a job to a free slot. The slot is busy until its `Ended` or `Gone` was returned by `wait`."""
        ...

    def pid(self, slot: str) -> int:
        """The process behind a slot."""
        ...

    def wait(self, timeout: float) -> list[Event]:
        """What happened, in order a slot; empty when nothing did for `timeout` seconds. Never raises
        for what a job does. Raises: StoreError when no job can ever run (the data is gone, workers die while starting)."""
        ...

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        """Answer a `Measured`: exactly once for each, unless the slot is gone."""
        ...

    def close(self) -> None:
        """End every worker and all it started. Calling it twice is allowed."""
        ...
