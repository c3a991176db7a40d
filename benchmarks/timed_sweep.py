"""`sweep run` with a clock in it, started by `benchmarks.overhead`: where each trial's time goes, as the sweep grows.

    python -m benchmarks.timed_sweep TIMES.json run FILE --trainer synthetic ...

TIMES.json: "ends", for each trial that ended, in that order, since the first was asked for: seconds, of them those spent inside
the search library, and seconds of the processor that this process took; "memory", bytes resident after every 100th.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imgclf_sweep.backends
from imgclf_sweep.cli import main

TIMED = ("ask", "adopt", "report", "tell", "needed", "state")


class Timed:
    """A backend whose calls are timed; all else is the backend's own."""

    def __init__(self, backend: Any, times: dict[str, Any]) -> None:
        self._backend, self._times, self._spent = backend, times, 0.0
        self._began: float | None = None
        for name in TIMED:
            setattr(self, name, self._timing(name, getattr(backend, name)))

    def _timing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            if self._began is None and name in ("ask", "adopt"):
                self._began = started
            try:
                return call(*args)
            finally:
                now = time.perf_counter()
                self._spent += now - started
                if name == "tell" and self._began is not None:
                    self._note(now - self._began, time.process_time())

        return timed

    def _note(self, now: float, processor: float) -> None:
        ends = self._times["ends"]
        ends.append((now, self._spent, processor))
        if len(ends) % 100 == 0:
            self._times["memory"].append(resident(os.getpid()))

    def close(self) -> None:
        self._backend.close()


def resident(pid: int) -> int:
    """Bytes of a process in memory (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(file: Path, arguments: list[str]) -> None:
    """Run the command line; write the times whatever becomes of it."""
    times: dict[str, Any] = {"ends": [], "memory": []}
    really = imgclf_sweep.backends.open_backend
    imgclf_sweep.backends.open_backend = lambda *args: Timed(really(*args), times)  # type: ignore[assignment]
    sys.argv = ["sweep", *arguments]
    try:
        main()
    finally:
        file.write_text(json.dumps(times))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
