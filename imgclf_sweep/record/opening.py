"""Taking hold of a sweep's directory and making a new record in it, so that a failure or a kill leaves nothing half-made.

The database is filled under another name and renamed: from then on the sweep exists. What a kill leaves before that (an empty
directory, a lock file, the other name) is no sweep to anybody, and the next opening tidies it up.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import secrets
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadInput
from ..sweep import Sweep
from ..text import listed, printable
from . import schema
from .info import Info
from .layout import SweepDir, sync_directory, write_whole
from .lock import Lock

PACKAGES = (
    "imgclf-sweep", "keras", "tensorflow", "tensorflow-cpu", "jax", "keras-tuner", "optuna", "tensorboard",
    "numpy", "scikit-learn", "opencv-python-headless", "opencv-python",
)  # fmt: skip


class Images(Protocol):
    """What the record keeps of a prepared data set: its directory, and the fingerprint of its images."""

    @property
    def path(self) -> Path: ...

    @property
    def fingerprint(self) -> str: ...


@contextlib.contextmanager
def held(directory: SweepDir) -> Iterator[Lock]:
    """Hold the sweep's lock; it stays held after the block. Where the block raises, it is let go, and what was made for a
    sweep that did not exist before is removed.

    Raises: BadInput where something else lies in the place; Held; StoreError.
    """
    _check_place(directory)
    made = _missing(directory.path)
    lock = Lock(directory.lock, directory.name)
    try:
        with schema.storing(directory.lock):
            lock.acquire()
        new = not os.path.lexists(directory.database)
    except BaseException:
        _remove(made)
        raise
    try:
        yield lock
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                _tidy(directory)
                for path in (schema.wal(directory.database), schema.shm(directory.database), directory.declaration):
                    path.unlink(missing_ok=True)
                directory.database.unlink(missing_ok=True)
        lock.release(remove=new)
        _remove(made)
        raise


def _check_place(directory: SweepDir) -> None:
    """Refuse a directory that holds something other than a sweep: nothing of a user's is mixed with ours."""
    try:
        names = set(os.listdir(directory.path))
    except NotADirectoryError:
        raise BadInput(f"{printable(directory.path)} is a file: give another --name") from None
    except OSError:  # it is not there, or may not be read: then opening says so
        return
    ours = {path.name for path in (directory.lock, *_unfinished(directory))}
    if names - ours and not os.path.lexists(directory.database):
        raise BadInput(
            f"{printable(directory.path)} holds {listed(sorted(names - ours), 3)} but no {directory.database.name}: "
            "move that away, or give another --name"
        )


def _missing(path: Path) -> list[Path]:
    """The directories from `path` upwards that do not exist yet."""
    return [p for p in (path, *path.parents) if not os.path.lexists(p)]


def _remove(directories: list[Path]) -> None:
    """Remove those that are empty, innermost first."""
    with contextlib.suppress(OSError):
        for path in directories:
            path.rmdir()


def _unfinished(directory: SweepDir) -> list[Path]:
    """The new database before it has its name, and what SQLite keeps beside it."""
    new = f"{directory.database.name}.new"
    return [directory.path / f"{new}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]


def _tidy(directory: SweepDir) -> None:
    for path in _unfinished(directory):
        path.unlink(missing_ok=True)


def create(
    directory: SweepDir, sweep: Sweep, *, trials: int, limit_images: int | None, data: Images, trainer: str
) -> None:
    """Make the database, whole or not at all. The caller holds the lock.  Raises: StoreError."""
    new = _unfinished(directory)[0]
    row = (
        secrets.token_hex(8),
        datetime.now(UTC).isoformat(timespec="microseconds"),
        json.dumps(sweep.to_json()),
        trials,
        str(data.path),
        data.fingerprint,
        limit_images,
        trainer,
        json.dumps(versions()),
    )
    with schema.storing(directory.database):
        _tidy(directory)
        with contextlib.closing(schema.create(new)) as connection:
            connection.execute("INSERT INTO sweep VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        os.replace(new, directory.database)
        sync_directory(directory.path)


def write_declaration(directory: SweepDir, info: Info, sweep: Sweep) -> None:
    """Write sweep.json where it is missing or says something else.  Raises: StoreError."""
    content: dict[str, Any] = {
        "id": info.id,
        "name": info.name,
        "created": info.created,
        "trials": info.trials,
        "seed": sweep.seed,
        "limit_images": info.limit_images,
        "trainer": info.trainer,
        "data": info.data,
        "fingerprint": info.fingerprint,
        "versions": info.versions,
        "machine": {"host": socket.gethostname(), "platform": platform.platform(), "cpus": os.cpu_count()},
        "declaration": sweep.to_json(),
    }
    text = json.dumps(content, indent=2).encode() + b"\n"
    with schema.storing(directory.declaration):
        if not directory.declaration.is_file() or directory.declaration.read_bytes() != text:
            write_whole(directory.declaration, text)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that are installed, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
