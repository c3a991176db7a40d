"""One slot in this very process, for debugging: a breakpoint in a model or a `print` works. A crash takes the sweep along."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence

from ..training.protocol import Compilations, Job, Reply, Setup, Trainer
from ..trial import Measurement
from .protocol import Ended, Event, Measured, Resumed


class InProcessExecutor:
    """Implements `Executor` with one thread. The trainer, and with it the tensor library, is loaded by the first job."""

    def __init__(self, setup: Setup) -> None:
        self.slots: Sequence[str] = ("w0",)
        self._setup = setup
        self._trainer: Trainer | None = None
        self._events: queue.Queue[Event | BaseException] = queue.Queue()
        self._replies: queue.Queue[Reply] = queue.Queue()
        self._thread: threading.Thread | None = None

    def start(self, slot: str, job: Job) -> None:
        self._thread = threading.Thread(target=self._work, args=(slot, job), daemon=True, name=slot)
        self._thread.start()

    def _work(self, slot: str, job: Job) -> None:
        try:
            if self._trainer is None:
                from ..training import open_trainer

                self._trainer = open_trainer(self._setup)

            def on_epoch(measurement: Measurement) -> Reply:
                self._events.put(Measured(slot, job.token, measurement))
                return self._replies.get()

            def on_resume(measurements: Sequence[Measurement]) -> Reply:
                self._events.put(Resumed(slot, job.token, tuple(measurements)))
                return self._replies.get()

            self._events.put(Ended(slot, job.token, self._trainer.train(job, on_epoch, on_resume)))
        except BaseException as error:  # handed to the caller's thread, where it can be seen
            self._events.put(error)

    def pid(self, slot: str) -> int:
        return os.getpid()

    def neighbours(self, slot: str) -> Sequence[str]:
        return ()

    def alone(self, slot: str) -> None:
        """It always is."""

    def wait(self, timeout: float) -> list[Event]:
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return []
        if isinstance(event, BaseException):
            raise event
        return [event]

    def reply(self, slot: str, token: str, reply: Reply) -> None:
        self._replies.put(reply)

    @property
    def compilations(self) -> Compilations:
        return getattr(self._trainer, "compilations", Compilations())

    def close(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._replies.put(Reply.INTERRUPT)
            self._thread.join(timeout=1)
