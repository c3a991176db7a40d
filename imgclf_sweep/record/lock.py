"""One writer a sweep: an advisory lock that the kernel frees the moment its owner is gone, however it died.

`flock` belongs to the open file, which Python does not pass on to programs it starts, so a worker that outlives its parent
holds nothing. The file's content only tells people who holds it; whether it is held is the kernel's to say.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import Held
from ..text import printable

PATIENCE = (
    0.3  # seconds; a reader's probe holds the lock for microseconds, and must not refuse a run that starts just then
)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; `pid` 0 when it has not said so yet. `since` is ISO 8601 in UTC."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        since = self.since
        with contextlib.suppress(ValueError):
            since = datetime.fromisoformat(since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {self.pid} on host {printable(self.host)} since {printable(since)}"


class Lock:
    """The lock of the sweep `name` in the file `path`, held from `acquire` to `release` or the end of this process."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._fd = -1

    def acquire(self) -> None:
        """Take it, creating its directory if need be.  Raises: Held at once if another process has it; OSError."""
        deadline = time.monotonic() + PATIENCE
        while self._fd < 0:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            except FileNotFoundError:  # its last owner failed to make a sweep and removed the directory just now
                if time.monotonic() > deadline:
                    raise
                continue
            try:
                if self._take(fd):
                    self._sign(fd)
                    self._fd, fd = fd, -1
                elif time.monotonic() > deadline:
                    raise Held(f"sweep '{self._name}' is being run by {_read(fd)}")
                else:
                    time.sleep(0.02)
            finally:
                if fd >= 0:
                    os.close(fd)

    def _take(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:  # a file that was removed after we opened it guards nothing any more
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _sign(self, fd: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), now))).encode() + b"\n", 0)

    def release(self, remove: bool = False) -> None:
        """Let go; `remove` deletes the file first. Calling it twice is allowed."""
        if self._fd < 0:
            return
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
        fcntl.flock(
            self._fd, fcntl.LOCK_UN
        )  # a program being started just now may still share the open file for a moment
        os.close(self._fd)
        self._fd = -1


def holder(path: Path) -> Holder | None:
    """Who holds the lock just now, or None. Writes nothing; works on a read-only directory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    except OSError:  # a file system without locks: then nobody can hold one
        return None
    finally:
        os.close(fd)
    return None


def _read(fd: int) -> Holder:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(os.pread(fd, 4096, 0))
        return Holder(int(data["pid"]), str(data["host"]), str(data["since"]))
    return Holder(0, "", "")
