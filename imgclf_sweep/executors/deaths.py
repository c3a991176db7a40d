"""What the death of a worker process says about the jobs that it had."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Container, Iterator

from ..text import printable
from ..trial import Kind
from . import memory
from .protocol import Gone
from .worker_process import Worker

BROKEN_BY_ITSELF = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}
MEMORY_PART = 0.8  # of the memory limit; with that much in our hands, a SIGKILL from nowhere was for memory
NOBODY_KNOWS = {Kind.CRASH, Kind.STALLED}  # which job it was, if there were several


def explain(status: int, had: int, oom: bool) -> tuple[Kind, str]:
    """What a death that we did not cause tells.  status: as `subprocess` gives it.  had: bytes of memory that all workers had
    when last seen.  oom: the kernel has killed for want of memory since the last one died."""
    reason = f"the worker {describe(status)}"
    if status >= 0 or -status in BROKEN_BY_ITSELF:
        return Kind.CRASH, reason
    limit = memory.limit()
    if status == -signal.SIGKILL and (oom or (limit and had > MEMORY_PART * limit)):
        return Kind.OOM_HOST, f"{reason} for want of memory: the workers had {had / 1e9:.1f} GB"
    return Kind.LOST, reason


def gone(worker: Worker, late: Container[str], kind: Kind, reason: str) -> Iterator[Gone]:
    """What became of each job of a dead worker.  late: the slots of those that had taken too long when its death was decided.

    Where there were several, one that took too long is to blame for that, and nobody else. Any other death may have been the
    fault of each of them, or of none: they are lost, and go on; `policy` has a job that was lost again and again run alone.
    """
    several = len(worker.jobs) > 1
    for slot, held in worker.jobs.items():
        if kind is Kind.TIMEOUT and slot not in late:
            yield Gone(slot, held.job.token, Kind.PREEMPTED, "its worker was ended because of another trial in it")
        elif several and kind in NOBODY_KNOWS:
            yield Gone(slot, held.job.token, Kind.LOST, f"{reason}; it had {len(worker.jobs)} trials")
        else:
            yield Gone(slot, held.job.token, kind, reason)


def describe(status: int) -> str:
    """An exit status as `subprocess` gives it, in words."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"
    return f"exited with status {status}"


def no_process(error: OSError) -> str:
    """In words that no worker can be started."""
    return f"the system refuses another process ({printable(error.strerror or error)})"
