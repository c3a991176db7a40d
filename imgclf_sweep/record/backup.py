"""Copies of the database while it is in use, by SQLite's backup API: whole, and of one moment."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from .layout import SweepDir, sync_directory

EVERY = 50  # finished trials between two backups; copying 5,000 trials takes a tenth of a second
KEEP = 2
NAME = re.compile(r"trials-(\d{6})\.db")


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """Write what `connection` has committed to the file `target`, whole or not at all.  Raises: OSError, sqlite3.Error."""
    target.parent.mkdir(exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    try:
        new.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(new)) as database:
            connection.backup(database)
            database.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, target)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def rotate(connection: sqlite3.Connection, directory: SweepDir, finished: int) -> None:
    """Back up after so many finished trials, and remove all such copies but the newest.  Raises: OSError, sqlite3.Error."""
    copy(connection, directory.backups / f"trials-{finished:06d}.db")
    for old in backups(directory)[KEEP:]:
        old.unlink(missing_ok=True)


def backups(directory: SweepDir) -> list[Path]:
    """The copies made as the sweep ran, the newest first."""
    with contextlib.suppress(OSError):
        names = sorted((name for name in os.listdir(directory.backups) if NAME.fullmatch(name)), reverse=True)
        return [directory.backups / name for name in names]
    return []
