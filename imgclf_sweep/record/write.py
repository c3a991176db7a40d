"""The one writer of a record. Whoever has a `Record` open holds the sweep; everybody else reads."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import BadInput
from ..sweep import Sweep
from ..text import printable
from ..trial import Kind, Measurement, Outcome, State, Suggestion
from . import backup, opening, schema
from .info import changes
from .layout import SweepDir
from .lock import Lock
from .migrate import migrate
from .opening import Images
from .rows import View

T = TypeVar("T")

OWNER_GONE = "the run that had started it ended without finishing it"


class Record(View):
    """A sweep's record, open for writing. Used from one thread; a context manager that closes it.

    Every method commits before it returns, or joins the `transaction` around it. A commit survives `kill -9`; outcomes and events
    wait for the disk as well, starts and epochs do not (`transaction`). What SQLite and the disk refuse is raised as StoreError;
    the record is then as it was before.
    """

    def __init__(self, directory: SweepDir, lock: Lock) -> None:
        """For `open` and `reopen`, which know that the lock is held and the database is whole."""
        self._lock = lock
        self.notes: list[str] = []  # what the user should hear about how it was opened
        self._since_backup = 0
        self._durable = True  # as `connect` makes it
        with schema.storing(directory.database):
            self._connection = schema.connect(directory.database)
        try:
            super().__init__(directory)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def open(
        cls,
        directory: SweepDir,
        sweep: Sweep,
        *,
        trials: int,
        limit_images: int | None,
        data: Images,
        trainer: str = "fit",
        allow_change: bool = False,
    ) -> Record:
        """Create the record, or continue one with the same declaration; `trials`, the number aimed at, may differ.

        allow_change: accept what may differ without making past and future values incomparable (`info.CHANGEABLE`).

        Raises: BadInput with what differs; Held; StoreError. Nothing half-made stays behind.
        """
        with opening.held(directory) as lock:
            new = not os.path.lexists(directory.database)
            if new:
                opening.create(directory, sweep, trials=trials, limit_images=limit_images, data=data, trainer=trainer)
            record = cls._attach(directory, lock)
            try:
                with record.transaction():
                    if not new:
                        here = {"limit_images": limit_images, "fingerprint": data.fingerprint, "trainer": trainer}
                        record._note_changes(sweep, changes(record.info, record.sweep, sweep, allow_change, **here))
                    record._take_over(sweep, trials, data)
                opening.write_declaration(record.directory, record.info, record.sweep)
            except BaseException:
                record._connection.close()
                raise
        return record

    @classmethod
    def reopen(cls, directory: SweepDir) -> Record:
        """Open an existing record with its own declaration.  Raises: BadInput if there is none; Held; StoreError."""
        if not directory.exists():
            raise BadInput(f"there is no sweep in {printable(directory.path)}")
        with opening.held(directory) as lock:
            record = cls._attach(directory, lock)
            try:
                record._take_over(record.sweep, record.info.trials, None)
            except BaseException:
                record._connection.close()
                raise
        return record

    @classmethod
    def _attach(cls, directory: SweepDir, lock: Lock) -> Record:
        schema.verify(directory.database, thorough=True)
        migrated = migrate(directory)
        record = cls(directory, lock)
        if migrated:
            old, kept = migrated
            record.event("migrated", before=old, now=schema.VERSION, backup=kept.name)
            record.notes.append(
                f"the record was brought from format {old} to {schema.VERSION}; as it was it lies in {printable(kept)}"
            )
        return record

    def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        with schema.storing(self.directory.database), schema.understanding(self.directory.database):
            return ask(self._connection)

    def _note_changes(self, sweep: Sweep, changed: list[str]) -> None:
        if changed:
            old = self.sweep.space  # known configurations outside it were never learned of
            outside = sum(old.contains(t.params) and not sweep.space.contains(t.params) for t in self.trials())
            self.event("changed", differences=changed, trials_outside=outside)
            self.notes.append(f"going on with another declaration, as allowed: {'; '.join(changed)}")
            if outside:
                lie, them = ("1 trial lies", "it") if outside == 1 else (f"{outside} trials lie", "them")
                self.notes.append(f"{lie} outside the new space: kept, but the search does not learn of {them}")

    def _take_over(self, sweep: Sweep, trials: int, data: Images | None) -> None:
        """Commit what may change on continuing, and requeue what a dead owner had running: we hold the lock, so it is dead."""
        with self.transaction():
            self._connection.execute(
                "UPDATE sweep SET declaration = ?, trials = ?, data = ?",
                (json.dumps(sweep.to_json()), trials, self.info.data if data is None else str(data.path)),
            )
            for number, token in self._connection.execute(
                "SELECT number, token FROM trial WHERE state = 'RUNNING'"
            ).fetchall():
                self._end_attempt(token, Kind.LOST, OWNER_GONE)
                self._connection.execute("UPDATE trial SET state = 'QUEUED', token = NULL WHERE number = ?", (number,))
                self.event("requeued", number=number, kind=Kind.LOST, reason=OWNER_GONE)
            self.event("opened", pid=os.getpid(), host=socket.gethostname(), trials=trials, versions=opening.versions())
        self._refresh()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing: what is written inside is committed at the end, or undone if an exception leaves the block.

        Inside another it joins that: undone alone if its own block raises, committed with the outer one, durable if that is.

        durable: wait until it is on the disk. Otherwise it survives a kill all the same, but the loss of power only from the
        next durable commit on, which takes it along: for what a trial that runs again writes again.
        """
        connection = self._connection
        begin, commit, undo = "BEGIN IMMEDIATE", "COMMIT", ["ROLLBACK"]
        if connection.in_transaction:
            begin, commit, undo = "SAVEPOINT inner", "RELEASE inner", ["ROLLBACK TO inner", "RELEASE inner"]
        with schema.storing_rows(self.directory.database):
            if durable is not self._durable and not connection.in_transaction:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            connection.execute(begin)
            try:
                yield
                connection.execute(commit)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # SQLite has undone it all by itself after some disk errors
                    for statement in undo:
                        connection.execute(statement)
                raise
        if self._since_backup >= backup.EVERY and not connection.in_transaction:
            self._back_up()

    def _back_up(self) -> None:
        """A copy of all that is committed. Where it cannot be made the sweep goes on: the record itself is whole."""
        self._since_backup = 0
        query = "SELECT COUNT(*) FROM trial WHERE state IN ('COMPLETE', 'PRUNED', 'FAILED')"
        try:
            (finished,) = self._connection.execute(query).fetchone()
            backup.rotate(self._connection, self.directory, finished)
        except (OSError, sqlite3.Error) as error:
            self.event("backup failed", reason=str(error))

    def propose(self, suggestion: Suggestion) -> None:
        """Keep a new trial as QUEUED.  Raises: ValueError if the number is taken."""
        s = suggestion
        with self.transaction():
            if self._connection.execute("SELECT 1 FROM trial WHERE number = ?", (s.number,)).fetchone():
                raise ValueError(f"trial {s.number} was proposed before")
            self._connection.execute(
                "INSERT INTO trial (number, state, params, epochs_planned, initial_epoch, parent) VALUES (?, ?, ?, ?, ?, ?)",
                (s.number, State.QUEUED, _json(s.params), s.epochs, s.initial_epoch, s.parent),
            )

    def start(self, number: int, worker: str, pid: int) -> str:
        """Begin an attempt of a QUEUED trial: RUNNING. Returns its token.  Raises: ValueError if it is not QUEUED."""
        token = secrets.token_hex(8)
        with self.transaction(durable=False):  # lost, the trial is QUEUED as it would be anyway
            row = self._connection.execute("SELECT state, attempts FROM trial WHERE number = ?", (number,)).fetchone()
            if row is None or row[0] != State.QUEUED:
                raise ValueError(f"trial {number} is {row[0] if row else 'unknown'}, not QUEUED")
            n = row[1] + 1
            self._connection.execute(
                "INSERT INTO attempt (trial, n, token, worker, pid, host, started) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, n, token, worker, pid, socket.gethostname(), time.time()),
            )
            self._connection.execute(
                "UPDATE trial SET state = 'RUNNING', token = ?, attempts = ? WHERE number = ?", (token, n, number)
            )
        return token

    def measured(self, number: int, token: str, measurement: Measurement) -> bool:
        """Keep an epoch of the live attempt. False, and a "late" event, when the token is not the live one's.

        Raises: ValueError for a value that is not finite or an epoch that this attempt has measured before.
        """
        m = measurement
        with self.transaction(durable=False):
            if not self._live(number, token, "measurement"):
                return False
            if not all(math.isfinite(value) for value in m.metrics.values()):
                raise ValueError(f"trial {number}, epoch {m.epoch}: a metric is not finite")
            (attempt,) = self._connection.execute("SELECT id FROM attempt WHERE token = ?", (token,)).fetchone()
            try:
                self._connection.execute("INSERT INTO measurement VALUES (?, ?, ?)", (attempt, m.epoch, m.seconds))
            except sqlite3.IntegrityError:
                raise ValueError(f"trial {number}: epoch {m.epoch} was measured before") from None
            names = [(name,) for name in m.metrics]
            self._connection.executemany("INSERT INTO metric_name (name) VALUES (?) ON CONFLICT DO NOTHING", names)
            self._connection.executemany(
                "INSERT INTO metric SELECT ?, id, ?, ? FROM metric_name WHERE name = ?",
                [(attempt, m.epoch, float(value), name) for name, value in m.metrics.items()],
            )
        return True

    def resumed(self, number: int, token: str, measurements: Sequence[Measurement]) -> bool:
        """The live attempt goes on from a checkpoint: the epochs that earlier ones measured up to it become its own too, so that
        its curve is whole. False, and a "late" event, when the token is not the live one's."""
        with self.transaction(durable=False):
            if not self._live(number, token, "resumption"):
                return False
            for measurement in measurements:
                self.measured(number, token, measurement)
            self.event("resumed", number=number, epoch=measurements[-1].epoch)
        return True

    def finish(self, number: int, token: str, outcome: Outcome) -> bool:
        """Keep how the live attempt, and with it the trial, ended. False, and a "late" event, when the token is not live.

        Raises: ValueError for an outcome that is not final, or COMPLETE without a finite value.
        """
        o = outcome
        if not o.state.finished:
            raise ValueError(f"trial {number} cannot end as {o.state}")
        value, epoch = (None, None) if o.state is State.FAILED else (o.value, o.epoch)
        if (o.state is State.COMPLETE and (value is None or epoch is None)) or (
            value is not None and not math.isfinite(value)
        ):
            raise ValueError(f"trial {number} cannot be {o.state} with value {value} at epoch {epoch}")
        with self.transaction():
            if not self._live(number, token, "outcome"):
                return False
            self._end_attempt(token, o.state if o.kind is None else o.kind, o.reason)
            self._connection.execute(
                "UPDATE trial SET state = ?, value = ?, epoch = ?, epochs = ?, seconds = ?, kind = ?, reason = ?, found = ?, "
                "token = NULL WHERE number = ?",
                (o.state, value, epoch, o.epochs, o.seconds, o.kind, o.reason, _json(o.found), number),
            )
            self._since_backup += 1
        return True

    def requeue(self, number: int, token: str, kind: Kind, reason: str) -> bool:
        """The live attempt is over and the trial is to run again: QUEUED. False, and a "late" event, when it is not live."""
        with self.transaction():
            if not self._live(number, token, "interruption"):
                return False
            self._end_attempt(token, kind, reason)
            self._connection.execute("UPDATE trial SET state = 'QUEUED', token = NULL WHERE number = ?", (number,))
            self.event("requeued", number=number, kind=kind, reason=reason)
        return True

    def _live(self, number: int, token: str, what: str) -> bool:
        """Whether `token` is the live attempt's. A message from any other is dropped, and said so."""
        row = self._connection.execute("SELECT token FROM trial WHERE number = ?", (number,)).fetchone()
        if row is not None and row[0] == token:
            return True
        self.event("late", number=number, token=token, what=what)
        return False

    def _end_attempt(self, token: str, ending: str, reason: str | None) -> None:
        self._connection.execute(
            "UPDATE attempt SET ended = ?, ending = ?, reason = ? WHERE token = ?", (time.time(), ending, reason, token)
        )

    def keep_state(self, state: Mapping[str, str]) -> None:
        """Keep entries of the search backend's state, key -> JSON text, over those of the same key."""
        if state:
            with self.transaction():
                self._connection.executemany(
                    "INSERT INTO backend_state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET json = excluded.json",
                    list(state.items()),
                )

    def event(self, kind: str, /, **data: Any) -> None:
        """Note that something happened. `data` must be JSON."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO event (time, kind, data) VALUES (?, ?, ?)", (time.time(), kind, _json(data))
            )

    def close(self) -> None:
        """Let the sweep go. Calling it twice is allowed; anything else after it is an error."""
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _json(value: Any) -> str:
    """JSON text of a mapping; NaN is not JSON and is refused with ValueError."""
    return json.dumps(value if isinstance(value, dict) else dict(value), allow_nan=False)
