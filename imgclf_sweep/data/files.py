"""Making files and directories that many processes may want at once: locks, syncing, leaving nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, making its folder if need be; `waiting` is called if another process holds it.

    The file is there only while somebody wants the lock, and ours no longer counts if the last holder has removed it.
    Raises: OSError.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "ab")  # noqa: SIM115 - closed below
        except FileNotFoundError:  # the folder was taken back in between
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def missing_parents(directory: Path) -> list[Path]:
    """`directory` and its parents that do not exist yet, innermost first."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def remove_empty(directories: list[Path]) -> None:
    """Take back directories made in vain; one that is in use by now stays."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def write_json(path: Path, data: Any) -> None:
    """Write and sync a JSON file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
