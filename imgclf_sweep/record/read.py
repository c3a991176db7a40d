"""Reading a record while its writer runs, or long after; from a copy, or a directory that may not be written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from . import migrate, schema
from .layout import SweepDir
from .lock import Holder, holder
from .rows import View

T = TypeVar("T")

TRIES = 10  # a writer that comes and goes between two looks is rare enough once


class Reader(View):
    """A record for reading. It takes no lock, executes no sweep file, changes nothing, and does not hold up a writer. Nothing
    stays open between calls.

    SQLite needs two files beside the database to read one that may be in use, and makes them where they are missing. So a
    record that nobody has open is read as a file that does not change, and read again should that turn out wrong.

    Raises: StoreError, now or at any call, for a record that cannot be read.
    """

    def __init__(self, directory: SweepDir) -> None:
        schema.verify(directory.database, thorough=False)
        super().__init__(directory)

    def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        path = self.directory.database
        with schema.storing(path), schema.understanding(path):
            for _ in range(TRIES):
                before = _signature(path)
                if schema.wal(path).exists():
                    break
                try:
                    answer = _answer(path, ask, immutable=True)
                except Exception:
                    if _signature(path) == before:
                        raise
                else:
                    if _signature(path) == before:
                        return answer
            return _read_beside_a_writer(path, ask)

    def holder(self) -> Holder | None:
        """Who is running the sweep just now, or None."""
        return holder(self.directory.lock)

    def close(self) -> None:
        """There is nothing to close; a reader may be used like the writer all the same."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_beside_a_writer(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    try:
        return _answer(path, ask, immutable=False)
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            raise
    # A writer was killed here, and we may not make the file that reading its last commits needs: read what was before them.
    return _answer(path, ask, immutable=True)


def _answer(path: Path, ask: Callable[[sqlite3.Connection], T], immutable: bool) -> T:
    """All of `ask`'s queries on one state of the database."""
    with contextlib.closing(schema.connect_reading(path, immutable)) as connection:
        connection.execute("BEGIN")
        present = migrate.readable(connection)
        try:
            return ask(present)
        finally:
            if present is not connection:
                present.close()


def _signature(path: Path) -> tuple[object, ...]:
    """What changes when anybody has the database open for writing, or had."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, schema.wal(path).exists()
