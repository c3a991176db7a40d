"""The database of a record: its tables, how it is opened, and its errors in plain words.

WAL and synchronous=FULL: a commit that returned is on disk and survives `kill -9`, and as far as the disk honours fsync the
loss of power; the writer sets NORMAL for starts and epochs, which the next outcome takes to the disk. Readers see the last commit
and never block the writer. Everything that is not a number is text or JSON.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ..errors import BadInput, StoreError
from ..text import printable

APPLICATION_ID = 0x696D6373  # "imcs", in the file's header: this SQLite file is a record of ours
VERSION = 1  # of the tables below, in the header's user_version
BUSY_MS = 30_000

MIGRATIONS: dict[int, str] = {}
"""From a format to the SQL that makes the next one of it. Format 1 is the first that was ever released."""

TABLES = """
CREATE TABLE sweep (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT NOT NULL,
    created      TEXT NOT NULL,                     -- ISO 8601, UTC
    declaration  TEXT NOT NULL,                     -- JSON of Sweep.to_json
    trials       INTEGER NOT NULL,                  -- the number aimed at, in all
    data         TEXT NOT NULL,                     -- the prepared data set's directory
    fingerprint  TEXT NOT NULL,                     -- of its images
    limit_images INTEGER,
    trainer      TEXT NOT NULL,
    versions     TEXT NOT NULL                      -- JSON: package -> version when it was created
);
CREATE TABLE trial (
    number         INTEGER PRIMARY KEY,
    state          TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAILED')),
    params         TEXT NOT NULL,                   -- JSON; tuples as lists
    epochs_planned INTEGER NOT NULL,
    initial_epoch  INTEGER NOT NULL,
    parent         INTEGER REFERENCES trial (number),
    value          REAL,
    epoch          INTEGER,
    epochs         INTEGER NOT NULL DEFAULT 0,
    seconds        REAL NOT NULL DEFAULT 0,
    kind           TEXT,
    reason         TEXT,
    found          TEXT NOT NULL DEFAULT '{}',      -- JSON
    attempts       INTEGER NOT NULL DEFAULT 0,
    token          TEXT,                            -- of the live attempt
    CHECK ((state = 'RUNNING') = (token IS NOT NULL)),
    CHECK (state <> 'COMPLETE' OR (value IS NOT NULL AND epoch IS NOT NULL))
);
CREATE TABLE attempt (
    id      INTEGER PRIMARY KEY,
    trial   INTEGER NOT NULL REFERENCES trial (number),
    n       INTEGER NOT NULL,                       -- from 1
    token   TEXT NOT NULL UNIQUE,
    worker  TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    host    TEXT NOT NULL,
    started REAL NOT NULL,                          -- seconds since 1970
    ended   REAL,
    ending  TEXT,                                   -- the trial's final state, or the kind of interruption
    reason  TEXT,
    UNIQUE (trial, n)
);
CREATE TABLE measurement (
    attempt INTEGER NOT NULL REFERENCES attempt (id),
    epoch   INTEGER NOT NULL,                       -- from 1
    seconds REAL NOT NULL,
    PRIMARY KEY (attempt, epoch)
) WITHOUT ROWID;
CREATE TABLE metric_name (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE metric (                               -- in the order of the key, so that a metric's curve lies together
    attempt INTEGER NOT NULL REFERENCES attempt (id),
    name    INTEGER NOT NULL REFERENCES metric_name (id),
    epoch   INTEGER NOT NULL,
    value   REAL NOT NULL,
    PRIMARY KEY (attempt, name, epoch)
) WITHOUT ROWID;
CREATE TABLE backend_state (
    key  TEXT PRIMARY KEY,
    json TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE event (
    id   INTEGER PRIMARY KEY,
    time REAL NOT NULL,                             -- seconds since 1970
    kind TEXT NOT NULL,
    data TEXT NOT NULL                              -- JSON
);
"""


def create(path: Path) -> sqlite3.Connection:
    """A new database with empty tables, for its maker to fill, close and rename. Raises: sqlite3.Error, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.executescript(f"BEGIN; {TABLES} COMMIT;")
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """The writer's connection. The caller holds the lock and has called `verify`. Raises: sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_reading(path: Path, immutable: bool) -> sqlite3.Connection:
    """A reader's connection. `immutable` creates no file beside it and needs no lock, but sees only what lies in the file
    itself: right when there is no -wal file, that is, when nobody has it open and it was closed well. Raises: sqlite3.Error."""
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def wal(path: Path) -> Path:
    """SQLite's file of commits that are not in the database file yet."""
    return path.with_name(path.name + "-wal")


def shm(path: Path) -> Path:
    """SQLite's index of that file."""
    return path.with_name(path.name + "-shm")


def verify(path: Path, thorough: bool) -> None:
    """Refuse what is not a whole record of this version, leaving the files as they are. `thorough` looks at every page.

    Raises: StoreError.
    """
    with storing(path):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StoreError(f"{printable(path)} is not a regular file")
        with open(path, "rb") as file:
            head = file.read(100)
    if not head:
        raise StoreError(f"{printable(path)} is empty: {REMEDY}")
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        raise StoreError(f"{printable(path)} is damaged, or not a SQLite database: {REMEDY}")
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise StoreError(
            f"{printable(path)} is a SQLite database of another program: nothing was changed; move it away, or give another "
            "--name"
        )
    version = int.from_bytes(head[60:64], "big")
    if version > VERSION:
        raise StoreError(
            f"{printable(path)} was written by a newer version of this program: its format is {version}, "
            f"this program knows {VERSION}; nothing was changed"
        )
    if any(step not in MIGRATIONS for step in range(version, VERSION)):
        raise StoreError(f"{printable(path)} has the unknown format {version}; this program knows {VERSION}")
    if thorough:
        _check_pages(path)


def _check_pages(path: Path) -> None:
    # A connection that may write would tidy up when closed, even a damaged file: look with one that cannot.
    with storing(path):
        connection = connect_reading(path, immutable=not wal(path).exists())
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    if found != "ok":
        raise StoreError(f"{printable(path)} is damaged ({printable(found.splitlines()[-1])}): {REMEDY}")


REMEDY = "nothing was changed; `sweep repair` with the sweep's name saves what can still be read"


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into a StoreError that names `path` in plain words."""
    try:
        with storing_rows(path):
            yield
    except OSError as error:
        raise StoreError(plain_os(error, path)) from error


@contextlib.contextmanager
def storing_rows(path: Path) -> Iterator[None]:
    """The same for SQLite alone, around a caller's code whose own OSErrors are not about the record.

    Mistakes of ours (a violated constraint, a closed connection) pass as they are.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise StoreError(_plain(error, path)) from error


@contextlib.contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Turn a failure to make sense of what was read (text that is not JSON, an unknown state) into a StoreError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, BadInput) as error:
        raise StoreError(
            f"{printable(path)} is damaged ({type(error).__name__}: {printable(error)}): {REMEDY}"
        ) from error


FULL = "what was committed is safe: make room, then run the same command again"


def _plain(error: sqlite3.Error, path: Path) -> str:
    where, name = printable(path), getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_FULL":
        return f"disk full at {where}: {FULL}"
    if name.startswith("SQLITE_IOERR"):
        if name in ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"):
            return f"disk full, over its quota or size limit, or failing at {where} ({name}): {FULL}"
        return f"the disk failed to read or write {where} ({name})"
    if name.startswith("SQLITE_READONLY"):
        return f"{where} cannot be written: it, or its directory, is read-only or belongs to somebody else"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{where} cannot be opened: is it there, and may you read and write its directory?"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{where} is kept locked by another program"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"{where} is damaged ({printable(error)}): {REMEDY}"
    return f"{where} cannot be used ({printable(error)})"


def plain_os(error: OSError, path: Path) -> str:
    """An OSError about `path` or a file beside it, as one line."""
    where = printable(error.filename if isinstance(error.filename, str) else path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"disk full at {where}: {FULL}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where} cannot be written: it, or its directory, is read-only or belongs to somebody else"
    return f"{where} cannot be used: {printable(error.strerror or error)}"
