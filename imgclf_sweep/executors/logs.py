"""What workers print, in files that do not grow for ever."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LIMIT = 8 * 2**20  # bytes of a worker's log
KEPT = 2**20  # bytes that stay, as `NAME.1`, when it is begun again


def cap(path: Path) -> None:
    """Begin a log that grew beyond the limit again, keeping its end. Its writers append, so they go on at the start.

    What is printed between the two steps is lost: a log is no record. A disk that refuses is no reason to fail.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size <= LIMIT:
            return
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(-KEPT, os.SEEK_END)
            path.with_name(path.name + ".1").write_bytes(file.read(KEPT))
        os.truncate(path, 0)
