"""`sweep repair`: a new record of what can be read of a damaged one, of its backups, and of sweep.json.

The damaged file stays beside it under another name. Numbers have no gaps: a trial of which nothing is left is FAILED, and one
whose result is lost runs again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput, StoreError
from ..sweep import Sweep
from ..text import listed, printable
from ..trial import Kind, State
from . import backup, rows, schema
from .layout import SweepDir, sync_directory
from .lock import Lock
from .salvage import HEADER, Row, Table, salvage

GONE = "lost with the damaged part of the record"
ORDER = ("sweep", "trial", "attempt", "metric_name", "measurement", "metric", "backend_state", "event")

Tables = dict[str, Table]


@dataclass(frozen=True)
class Repaired:
    """saved: what there is, in words.   lost: what there was, a line each.   kept: the damaged file, None if there was none."""

    saved: str
    lost: list[str]
    kept: Path | None


def repair(directory: SweepDir) -> Repaired | None:
    """Replace a damaged record by what is left of it; None, and nothing is changed, where it is whole.

    Raises: BadInput where there is no sweep; Held while it runs; StoreError where nothing can be saved.
    """
    if not directory.path.is_dir() or not (os.path.lexists(directory.database) or backup.backups(directory)):
        raise BadInput(f"there is no sweep '{directory.name}' in {printable(directory.root / 'sweeps')}")
    lock = Lock(directory.lock, directory.name)
    with schema.storing(directory.lock):
        lock.acquire()
    try:
        with schema.storing(directory.database):
            return None if _is_whole(directory) else _rebuild(directory)
    finally:
        lock.release()


def _is_whole(directory: SweepDir) -> bool:
    try:
        schema.verify(directory.database, thorough=True)
    except StoreError:
        if os.path.lexists(directory.database) and _is_not_ours_to_repair(directory):
            raise
        return False
    connection = schema.connect_reading(directory.database, immutable=not schema.wal(directory.database).exists())
    with contextlib.closing(connection):
        try:
            _, sweep = rows.about(connection, directory.name)
            rows.trials(connection, sweep.objective.metric)
            rows.events(connection, None)
        except Exception:  # whatever makes no sense to a reader is damage
            return False
        return True


def _is_not_ours_to_repair(directory: SweepDir) -> bool:
    """Whether it is no file, a record of another format, or another program's database; a header may be damaged, too."""
    if directory.database.is_symlink() or not directory.database.is_file():
        return True
    with open(directory.database, "rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(HEADER):
        return False
    if int.from_bytes(head[68:72], "big") == schema.APPLICATION_ID:
        return int.from_bytes(head[60:64], "big") != schema.VERSION
    return not directory.declaration.is_file()


def _rebuild(directory: SweepDir) -> Repaired:
    work = directory.path / ".repair"
    shutil.rmtree(work, ignore_errors=True)
    try:
        (work / "0").mkdir(parents=True)
        tables = salvage(directory.database, work / "0")
        damaged = {name: len(table.rows) for name, table in tables.items()}
        for number, path in enumerate(backup.backups(directory), start=1):
            (work / str(number)).mkdir()
            _fill_up(tables, salvage(path, work / str(number)))
        _fill_in_declaration(directory, tables["sweep"])
        lost = _make_consistent(tables)
        more = sum(len(table.rows) for table in tables.values()) - sum(damaged.values())
        _write(work / "new.db", tables)
        with contextlib.closing(schema.connect_reading(work / "new.db", immutable=True)) as connection:
            _, sweep = rows.about(connection, directory.name)
            trials = rows.trials(connection, sweep.objective.metric)
        lost += _search_state(tables, sweep)
        kept = _swap(directory, work / "new.db")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    finished = sum(t.state.finished and t.reason != GONE for t in trials)
    epochs = len(tables["measurement"].rows)
    saved = f"{len(trials)} trials, {finished} of them finished, with {epochs} measured epochs"
    return Repaired(saved + (f" ({more} rows from backups and sweep.json)" if more > 0 else ""), lost, kept)


def _fill_up(tables: Tables, older: Tables) -> None:
    """Add the rows that a backup has and the damaged file has lost; nothing is ever deleted from a record."""
    for name, table in tables.items():
        if not table.whole:
            for key, row in older[name].rows.items():
                table.rows.setdefault(key, row)


def _fill_in_declaration(directory: SweepDir, table: Table) -> None:
    """The one row of `sweep`, from sweep.json where it is lost.  Raises: StoreError."""
    if table.rows:
        return
    try:
        said = json.loads(directory.declaration.read_bytes())
        Sweep.from_json(said["declaration"])
        values = {
            **said,
            "one": 1,
            "declaration": json.dumps(said["declaration"]),
            "versions": json.dumps(said["versions"]),
        }
        table.rows[(1,)] = tuple(values[column] for column in table.columns)
    except (OSError, ValueError, LookupError, TypeError, BadInput) as error:
        raise StoreError(
            f"nothing can be saved: neither {printable(directory.database)}, nor a backup, nor {directory.declaration.name} "
            f"tells what the sweep is ({printable(error)}); nothing was changed"
        ) from None


def _make_consistent(tables: Tables) -> list[str]:
    """Make the rows agree with each other, and say what that costs."""
    trials = {row["number"]: row for row in tables["trial"].dicts()}
    attempts = tables["attempt"].dicts()
    started: dict[int, list[dict[str, Any]]] = {}
    for attempt in attempts:
        started.setdefault(attempt["trial"], []).append(attempt)
    top = max([*trials, *started], default=-1)
    empty, again = [], []
    for number in range(top + 1):
        row = trials.get(number)
        if row is None:
            empty.append(number)
            row = trials[number] = _placeholder(tables["trial"].columns, number)
        tries = started.get(number, [])
        row["attempts"] = max([row["attempts"], *(a["n"] for a in tries)])
        if row["state"] == State.RUNNING and row["token"] not in [a["token"] for a in tries]:
            row["state"], row["token"] = State.QUEUED.value, None
        if row["state"] == State.QUEUED and any(a["ending"] in tuple(State) for a in tries):
            again.append(number)
        if row["parent"] is not None and not 0 <= row["parent"] < number:
            row["parent"] = None
    columns = tables["trial"].columns
    tables["trial"].rows = {(n,): tuple(trials[n][c] for c in columns) for n in sorted(trials)}
    lost = [f"trial {listed(empty)}, wholly: FAILED now, with no parameters"] if empty else []
    lost += [f"the result of trial {listed(again)}: it runs again"] if again else []
    return lost + _drop_orphans(tables)


def _placeholder(columns: tuple[str, ...], number: int) -> dict[str, Any]:
    known = {
        "number": number,
        "state": State.FAILED.value,
        "params": "{}",
        "found": "{}",
        "kind": Kind.LOST.value,
        "reason": GONE,
    }
    zero = dict.fromkeys(("epochs_planned", "initial_epoch", "epochs", "seconds", "attempts"), 0)
    return {column: {**zero, **known}.get(column) for column in columns}


def _drop_orphans(tables: Tables) -> list[str]:
    """Measurements without an attempt or a name belong to nothing any more."""
    attempts, names = set(tables["attempt"].rows), set(tables["metric_name"].rows)
    before = len(tables["metric"].rows) + len(tables["measurement"].rows)
    for name in ("measurement", "metric"):
        table = tables[name]
        table.rows = {key: row for key, row in table.rows.items() if (key[0],) in attempts}
    metric = tables["metric"]
    metric.rows = {key: row for key, row in metric.rows.items() if (key[1],) in names}
    dropped = before - len(metric.rows) - len(tables["measurement"].rows)
    lost = [f"{dropped} measured values whose trial or name is lost"] if dropped else []
    part = [name for name in ("attempt", "measurement", "metric", "event") if not tables[name].whole]
    words = {"attempt": "attempts", "measurement": "epochs", "metric": "curves", "event": "events"}
    return lost + ([f"perhaps some {', '.join(words[name] for name in part)}: their pages are damaged"] if part else [])


def _search_state(tables: Tables, sweep: Sweep) -> list[str]:
    if tables["backend_state"].whole or sweep.backend != "keras-tuner" or sweep.sampler_name == "grid":
        return []
    return ["part of the oracle's state: the trials can be read and retrained, but the search may not go on"]


def _write(path: Path, tables: Tables) -> None:
    with contextlib.closing(schema.create(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("BEGIN")
        for name in ORDER:
            table = tables[name]
            marks = ", ".join("?" * len(table.columns))
            sql = f"INSERT INTO {name} ({', '.join(table.columns)}) VALUES ({marks})"
            for key in sorted(table.rows):
                _insert(connection, sql, table.rows[key])
        data = json.dumps({"rows": {name: len(table.rows) for name, table in tables.items()}})
        connection.execute("INSERT INTO event (time, kind, data) VALUES (?, 'repaired', ?)", (time.time(), data))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(connection: sqlite3.Connection, sql: str, row: Row) -> None:
    with contextlib.suppress(sqlite3.IntegrityError):  # a row that breaks the tables' rules is damage too
        connection.execute(sql, row)


def _swap(directory: SweepDir, new: Path) -> Path | None:
    """Put the new database in place; the damaged one gets another name, and so does its -wal, which SQLite would otherwise
    apply to the new one, even where the database itself was gone."""
    database, kept = directory.database, None
    aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    if os.path.lexists(database):
        kept = aside
        try:
            os.link(database, kept)
        except OSError:  # a file system without hard links
            shutil.copyfile(database, kept)
    if schema.wal(database).exists():
        os.rename(schema.wal(database), schema.wal(aside))
    schema.shm(database).unlink(missing_ok=True)
    os.replace(new, database)
    sync_directory(directory.path)
    return kept
