"""How a run ends: the endings there are, and the signals that ask for one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType

from .errors import Interrupted


class Ending(StrEnum):
    """Why a run is over."""

    DONE = "done"  # as many trials as asked for
    EXHAUSTED = "exhausted"  # the search has nothing left to try
    TIMEOUT = "timeout"
    STOPPED = "stopped"  # by a signal
    BROKEN = "broken"  # the first trials all failed in the same way
    PAUSED = "paused"  # the disk is full or the data are gone: no trial can be trained now


@dataclass
class Stop:
    """Set by signals: the first asks for an orderly end, the second for an immediate one. 0 = none yet."""

    signals: int = 0
    number: int = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """While inside, SIGINT, SIGTERM, SIGHUP and SIGUSR1 only set this; one that was ignored (`nohup`) still is."""

        def hear(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            self.number = number

        with _handled(hear, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            yield self


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """While inside, SIGINT, SIGTERM and SIGHUP end what is going on.  Raises: Interrupted, once everything inside is closed."""

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    heard: list[int] = []
    try:
        with _handled(hear, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues", heard[0] if heard else signal.SIGINT) from None


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *names: signal.Signals) -> Iterator[None]:
    """Signals that were ignored before stay so: who started us does not want them to end anything."""
    before = {name: signal.signal(name, handler) for name in names if signal.getsignal(name) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(name, old)
