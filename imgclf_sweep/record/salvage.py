"""Reading a damaged database: every row that SQLite still gives, whatever lies in pages it cannot read.

A copy is read, never the file itself. What stops a query, a page that is damaged, is passed by: a table is read from both ends,
then row by row. A first page that is damaged is taken from a new database, whose tables lie at the same places. What comes out is
only believed where it has the types of its columns.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import schema

Row = tuple[Any, ...]

KEYS = {  # table -> its key, in its own order
    "sweep": ("one",),
    "trial": ("number",),
    "attempt": ("id",),
    "measurement": ("attempt", "epoch"),
    "metric_name": ("id",),
    "metric": ("attempt", "name", "epoch"),
    "backend_state": ("key",),
    "event": ("id",),
}
JSON = {  # columns that hold JSON
    "sweep": ("declaration", "versions"),
    "trial": ("params", "found"),
    "backend_state": ("json",),
    "event": ("data",),
}
PROBES = 100  # row numbers tried after the last one that was found
HEADER = b"SQLite format 3\0"


@dataclass
class Table:
    """The rows that could be read, by their key.  whole: whether that is surely all of them."""

    columns: tuple[str, ...]
    rows: dict[Row, Row]
    whole: bool

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, self.rows[key], strict=True)) for key in sorted(self.rows)]


def salvage(path: Path, work: Path) -> dict[str, Table]:
    """The tables of the database at `path`, and of the -wal file beside it, as far as they can be read.

    work: an empty directory for the copies.    Raises: OSError.
    """
    tables = _blank(work)
    if path.exists() and path.stat().st_size:
        for graft in (False, True):
            copy = work / f"copy{graft:d}.db"
            _copy(path, copy, work / "blank.db" if graft else None)
            connection = sqlite3.connect(copy, isolation_level=None)
            connection.text_factory = lambda data: data.decode(errors="replace")
            with contextlib.closing(connection):
                for name, table in tables.items():
                    whole = _read(connection, name, table, tables["attempt"])
                    table.whole = table.whole or whole
            if tables["sweep"].rows and all(table.whole for table in tables.values()):
                break
    return tables


def _blank(work: Path) -> dict[str, Table]:
    """A new database in `work`, and its tables, empty."""
    tables = {}
    with contextlib.closing(schema.create(work / "blank.db")) as connection:
        for name in KEYS:
            columns = tuple(row[1] for row in connection.execute(f"PRAGMA table_info({name})"))
            tables[name] = Table(columns, {}, False)
    return tables


def _copy(path: Path, copy: Path, blank: Path | None) -> None:
    """Copy the database and its -wal, with a header that lets SQLite open it; its first page from `blank` if that is given."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big") if data.startswith(HEADER) else 0
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1) or (blank is not None and size != 4096):
        size = 4096  # SQLite's default, with which the file was made
    said = int.from_bytes(data[28:32], "big") if data.startswith(HEADER) else 0
    if blank is not None:
        data[:size] = blank.read_bytes()[:size]
    pages = max(-(-len(data) // size), 1)
    if pages < said <= 4 * pages + 1000:  # cut short: empty pages stand for those that are gone
        pages = said
    data += bytes(pages * size - len(data))
    data[28:32] = pages.to_bytes(4, "big")
    data[32:40] = bytes(8)  # no free pages
    data[92:96] = data[24:28]  # the number of pages is valid
    copy.write_bytes(data)
    if schema.wal(path).exists():
        shutil.copyfile(schema.wal(path), schema.wal(copy))


def _read(connection: sqlite3.Connection, name: str, table: Table, attempts: Table) -> bool:
    """Read what can be read of a table. Whether all of it could."""
    order = KEYS[name]

    def take(where: str = "", values: Iterable[Any] = (), direction: str = "ASC") -> bool:
        by = ", ".join(f"{column} {direction}" for column in order)
        sql = f"SELECT {', '.join(table.columns)} FROM {name} {where} ORDER BY {by}"
        good = True
        try:
            for row in connection.execute(sql, tuple(values)):
                good = _believe(name, table, row) and good
        except (sqlite3.Error, OverflowError, ValueError):
            return False
        return good

    if take():
        return True
    take(direction="DESC")
    if order[0] == "attempt":
        for (attempt,) in attempts.rows:
            if not take("WHERE attempt = ?", (attempt,)):
                take("WHERE attempt = ?", (attempt,), "DESC")
    elif name not in ("sweep", "backend_state"):
        last = max((key[0] for key in table.rows), default=0)
        for number in range(last + PROBES):
            if (number,) not in table.rows:
                take(f"WHERE {order[0]} = ?", (number,))
    return False


TYPES = {"INTEGER": int, "REAL": (float, int), "TEXT": str}


def _believe(name: str, table: Table, row: Row) -> bool:
    """Keep a row if each value has the type of its column, and what should be JSON is; rows of a better copy stay."""
    for column, value in zip(table.columns, row, strict=True):
        kind, required = _DECLARED[name][column]
        if value is None:
            if required:
                return False
        elif not isinstance(value, TYPES[kind]):
            return False
        elif column in JSON.get(name, ()):
            try:
                json.loads(value)
            except ValueError:
                return False
    key = tuple(row[table.columns.index(column)] for column in KEYS[name])
    if isinstance(key[0], int) and not 0 <= key[0] < 10**9:
        return False
    table.rows.setdefault(key, row)
    return True


def _declared() -> dict[str, dict[str, tuple[str, bool]]]:
    """table -> column -> its type, and whether it must have a value."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema.TABLES)
        return {
            name: {row[1]: (row[2], bool(row[3] or row[5])) for row in connection.execute(f"PRAGMA table_info({name})")}
            for name in KEYS
        }


_DECLARED = _declared()
