"""Reading the tables as values. Queries only; `Record` and `Reader` share them as `View`."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..space import frozen
from ..sweep import Objective, Sweep
from ..trial import Kind, State, Trial
from .info import Info
from .layout import SweepDir

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened, in order of `id`.  time: seconds since 1970."""

    id: int
    time: float
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One start of a trial; `n` counts from 1.  started, ended: seconds since 1970.  ending: the trial's final state, or the
    kind of interruption; None while it runs."""

    n: int
    worker: str
    pid: int
    host: str
    started: float
    ended: float | None
    ending: str | None
    reason: str | None


class View(ABC):
    """What can be read of a sweep. Each call sees one moment: everything committed before it, nothing half."""

    def __init__(self, directory: SweepDir) -> None:
        self.directory = directory
        self._refresh()

    def _refresh(self) -> None:
        self.info, self.sweep = self._read(lambda connection: about(connection, self.directory.name))

    @abstractmethod
    def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of `ask` from one consistent state of the database.  Raises: StoreError."""

    def trials(self) -> list[Trial]:
        """Every trial in order of number. A running one has `epochs` measured so far."""
        return self._read(lambda connection: trials(connection, self.sweep.objective.metric))

    def trial(self, number: int) -> Trial:
        """One trial.  Raises: KeyError where there is no such number."""
        found = self._read(lambda connection: trials(connection, self.sweep.objective.metric, number))
        if not found:
            raise KeyError(number)
        return found[0]

    def best(self) -> Trial | None:
        """The best COMPLETE trial, the lower number among equals; None if there is none."""
        return best(self.trials(), self.sweep.objective)

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, oldest first; only of one kind if it is given."""
        return self._read(lambda connection: events(connection, kind))

    def attempts(self, number: int) -> list[Attempt]:
        """Every start of a trial, in order."""
        return self._read(lambda connection: attempts(connection, number))

    def metrics(self, number: int) -> list[dict[str, float]]:
        """A trial's epochs in order, of its last attempt: `{"epoch": 1, "val_accuracy": 0.5, ...}`."""
        return self._read(lambda connection: metrics(connection, number))

    def epoch_seconds(self) -> dict[int, dict[int, float]]:
        """What each measured epoch took: trial -> epoch -> seconds, of the last attempt that measured it."""
        return self._read(epoch_seconds)

    def state(self) -> dict[str, str]:
        """What the search backend asked to be kept: key -> JSON text."""
        return self._read(lambda connection: dict(connection.execute("SELECT key, json FROM backend_state")))


def about(connection: sqlite3.Connection, name: str) -> tuple[Info, Sweep]:
    """The one row of the sweep, and its declaration with the number of trials aimed at now."""
    row = connection.execute(
        "SELECT id, created, trials, data, fingerprint, limit_images, trainer, versions, declaration FROM sweep"
    ).fetchone()
    if row is None:
        raise ValueError("it has no sweep in it")
    sweep_id, created, target, data, fingerprint, limit_images, trainer, versions, declaration = row
    info = Info(sweep_id, name, created, target, data, fingerprint, limit_images, trainer, json.loads(versions))
    return info, Sweep.from_json(json.loads(declaration)).replaced(trials=target)


def values(text: str) -> dict[str, Any]:
    """Parameter values from JSON, lists back as tuples."""
    return {name: frozen(value) for name, value in json.loads(text).items()}


TRIAL = (
    "SELECT number, state, params, epochs_planned, initial_epoch, parent, value, epoch, epochs, seconds, kind, reason, found, "
    "attempts FROM trial"
)
CURVE = (  # trial and attempt are few beside metric: begin with them
    "SELECT t.number, m.epoch, m.value FROM trial t CROSS JOIN attempt a ON a.trial = t.number AND a.n = t.attempts "
    "CROSS JOIN metric m ON m.attempt = a.id AND m.name = (SELECT id FROM metric_name WHERE name = ?)"
)


def trials(connection: sqlite3.Connection, metric: str, number: int | None = None) -> list[Trial]:
    """All trials, or the one with this number, with their curves of `metric`."""
    only, which = ("", ()) if number is None else (" WHERE number = ?", (number,))
    curves: dict[int, dict[int, float]] = {}
    for trial, epoch, value in connection.execute(CURVE + only, (metric, *which)):
        curves.setdefault(trial, {})[epoch] = value
    return [_trial(row, curves.get(row[0], {})) for row in connection.execute(f"{TRIAL}{only} ORDER BY number", which)]


def _trial(row: tuple[Any, ...], curve: dict[int, float]) -> Trial:
    number, state, params, planned, initial, parent, value, epoch, epochs, seconds, kind, reason, found, started = row
    return Trial(
        number=number,
        state=State(state),
        params=values(params),
        epochs_planned=planned,
        initial_epoch=initial,
        parent=parent,
        value=value,
        epoch=epoch,
        epochs=len(curve) if state == State.RUNNING else epochs,
        seconds=seconds,
        kind=None if kind is None else Kind(kind),
        reason=reason,
        found=values(found),
        attempts=started,
        curve=curve,
    )


def best(found: Iterable[Trial], objective: Objective) -> Trial | None:
    """The best COMPLETE trial by the objective, the lower number among equals; None if there is none."""
    winner: Trial | None = None
    for trial in sorted(found, key=lambda t: t.number):
        if trial.state is not State.COMPLETE or trial.value is None:
            continue
        if winner is None or objective.better(trial.value, winner.value):
            winner = trial
    return winner


def epoch_seconds(connection: sqlite3.Connection) -> dict[int, dict[int, float]]:
    found: dict[int, tuple[int, dict[int, float]]] = {}
    rows = connection.execute(
        "SELECT a.trial, a.n, m.epoch, m.seconds FROM attempt a CROSS JOIN measurement m ON m.attempt = a.id "
        "ORDER BY a.trial, a.n"
    )
    for number, n, epoch, seconds in rows:
        if (
            number not in found or found[number][0] != n
        ):  # a later attempt repeats what still counts of the earlier ones
            found[number] = n, {}
        found[number][1][epoch] = seconds
    return {number: epochs for number, (_, epochs) in found.items()}


def events(connection: sqlite3.Connection, kind: str | None) -> list[Event]:
    only, which = ("", ()) if kind is None else (" WHERE kind = ?", (kind,))
    rows = connection.execute(f"SELECT id, time, kind, data FROM event{only} ORDER BY id", which)
    return [Event(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def attempts(connection: sqlite3.Connection, number: int) -> list[Attempt]:
    rows = connection.execute(
        "SELECT n, worker, pid, host, started, ended, ending, reason FROM attempt WHERE trial = ? ORDER BY n", (number,)
    )
    return [Attempt(*row) for row in rows]


def metrics(connection: sqlite3.Connection, number: int) -> list[dict[str, float]]:
    rows = connection.execute(
        "SELECT m.epoch, n.name, m.value FROM trial t JOIN attempt a ON a.trial = t.number AND a.n = t.attempts "
        "JOIN metric m ON m.attempt = a.id JOIN metric_name n ON n.id = m.name WHERE t.number = ? ORDER BY m.epoch, n.id",
        (number,),
    )
    epochs: dict[int, dict[str, float]] = {}
    for epoch, name, value in rows:
        epochs.setdefault(epoch, {"epoch": epoch})[name] = value
    return list(epochs.values())
