"""The study file that plain Optuna and its dashboard open. Optuna 5, whose tables are written to directly."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial
from sqlalchemy.pool import StaticPool

from ..sweep import Sweep
from ..trial import Trial
from .optuna_study import Coded, frozen_trial, readable


def write_study(path: Path, name: str, sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Write `trials` as the Optuna study `name` into the SQLite file `path`, replacing it whole.

    Optuna's trial numbers are ours. An open trial is there as WAITING with its parameters: whoever goes on with the study in
    Optuna runs it first. User attributes hold our number, seconds, best epoch and, for a failure, its reason.
    """
    connection = sqlite3.connect(":memory:", check_same_thread=False)  # in memory: a commit a row to disk takes minutes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _fill(connection, name, sweep, trials)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        target = sqlite3.connect(new)
        try:
            connection.backup(target)
        finally:
            target.close()
    finally:
        connection.close()
    _settle(new, path)


def _fill(connection: sqlite3.Connection, name: str, sweep: Sweep, trials: Sequence[Trial]) -> None:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(
        "sqlite:///:memory:", engine_kwargs={"creator": lambda: connection, "poolclass": StaticPool}
    )
    try:
        direction = "maximize" if sweep.objective.direction == "max" else "minimize"
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        study.set_metric_names([sweep.objective.metric])
        number = storage.get_study_id_from_name(name)
    finally:
        storage.remove_session()
        optuna.logging.set_verbosity(verbosity)
    shown = sweep.shown_space  # of values that a space allowed before it was changed, those of its present names
    space = shown.widened([{name: v for name, v in trial.params.items() if name in shown} for trial in trials])
    codes = {name: readable(parameter) for name, parameter in space.items()}
    _insert(connection, number, [exported(trial, codes) for trial in trials])


def exported(trial: Trial, codes: Mapping[str, Coded]) -> FrozenTrial:
    """A trial as the study file has it; one that is open waits there with its parameters."""
    if not trial.state.finished:
        params = {name: codes[name].encode(value) for name, value in trial.params.items() if name in codes}
        waiting = optuna.trial.TrialState.WAITING
        notes: dict[str, Any] = {"number": trial.number}
        return optuna.trial.create_trial(state=waiting, system_attrs={"fixed_params": params}, user_attrs=notes)
    notes = {"number": trial.number, "seconds": trial.seconds, "epoch": trial.epoch, "parent": trial.parent}
    notes |= {"reason": trial.reason, "found": dict(trial.found) or None}
    notes = {key: value for key, value in notes.items() if value is not None}
    return frozen_trial(trial, codes, steer=False, rungs={}, notes=notes)


TABLES = {  # what a trial is in Optuna's tables; their remaining columns number the rows by themselves
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_intermediate_values": "trial_id, step, intermediate_value, intermediate_value_type",
    "trial_user_attributes": "trial_id, key, value_json",
    "trial_system_attributes": "trial_id, key, value_json",
}


def _insert(connection: sqlite3.Connection, study: int, trials: Sequence[FrozenTrial]) -> None:
    """Put trials, numbered from 0 in this order, into the empty study `study`: the rows that Optuna's `add_trial` would make
    one query at a time, at 15 ms a trial. A contract test compares the two, table by table."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    texts: dict[int, str] = {}  # of distributions, which the trials share
    for number, trial in enumerate(trials):
        key = number + 1
        times = (_utc(trial.datetime_start), _utc(trial.datetime_complete))
        rows["trials"].append((key, number, study, trial.state.name, *times))
        if trial.value is not None:
            rows["trial_values"].append((key, 0, trial.value, "FINITE"))
        for name, value in trial.params.items():
            kind = trial.distributions[name]
            text = texts.get(id(kind)) or texts.setdefault(id(kind), distribution_to_json(kind))
            rows["trial_params"].append((key, name, kind.to_internal_repr(value), text))
        curve = trial.intermediate_values.items()
        rows["trial_intermediate_values"] += [(key, step, value, "FINITE") for step, value in curve]
        for table, notes in (("user", trial.user_attrs), ("system", trial.system_attrs)):
            rows[f"trial_{table}_attributes"] += [(key, name, json.dumps(value)) for name, value in notes.items()]
    for table, columns in TABLES.items():
        places = ", ".join("?" * len(columns.split(",")))
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows[table])
    connection.commit()


def _utc(local: datetime | None) -> str | None:
    """A time as Optuna's tables have it: in UTC, without saying so."""
    return None if local is None else local.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _settle(new: Path, path: Path) -> None:
    """Put the finished file `new` in the place of `path`, so that a power cut leaves one of the two whole."""
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
