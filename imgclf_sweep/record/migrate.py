"""A record written by an older version of this program: made the present format, step by step, after a backup."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from . import backup, schema
from .layout import SweepDir


def migrate(directory: SweepDir) -> tuple[int, Path] | None:
    """Bring a whole record to the present format. The caller holds the lock.

    Returns the format it had and where the copy of it lies; None where nothing was to do.
    Raises: StoreError; the record is then in its old format still.
    """
    path = directory.database
    with schema.storing(path), contextlib.closing(schema.connect(path)) as connection:
        old = _version(connection)
        if old == schema.VERSION:
            return None
        kept = directory.backups / f"format-{old}.db"
        backup.copy(connection, kept)
        connection.execute("PRAGMA foreign_keys = OFF")  # tables are made anew and renamed
        _apply(connection, old)
        return old, kept


def readable(connection: sqlite3.Connection) -> sqlite3.Connection:
    """`connection` itself, or a migrated copy in memory where the record is of an older format: a reader writes nothing."""
    old = _version(connection)
    if old == schema.VERSION:
        return connection
    memory = sqlite3.connect(":memory:", isolation_level=None)
    connection.backup(memory)
    _apply(memory, old)
    return memory


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _apply(connection: sqlite3.Connection, old: int) -> None:
    """All steps, or none."""
    steps = " ".join(f"{schema.MIGRATIONS[version]};" for version in range(old, schema.VERSION))
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {schema.VERSION};")
        if connection.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.OperationalError(f"after migrating from format {old} its tables do not agree")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
