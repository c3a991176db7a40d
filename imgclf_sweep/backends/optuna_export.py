"""The study file that plain Optuna and its dashboard open."""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
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
        shown = sweep.shown_space  # of values that a space allowed before it was changed, those of its present names
        space = shown.widened([{name: v for name, v in trial.params.items() if name in shown} for trial in trials])
        codes = {name: readable(parameter) for name, parameter in space.items()}
        for trial in trials:
            _add(study, trial, codes)
    finally:
        storage.remove_session()
        optuna.logging.set_verbosity(verbosity)


def _add(study: optuna.Study, trial: Trial, codes: dict[str, Coded]) -> None:
    if not trial.state.finished:
        params = {name: codes[name].encode(value) for name, value in trial.params.items() if name in codes}
        study.enqueue_trial(params, user_attrs={"number": trial.number})
        return
    notes = {"number": trial.number, "seconds": trial.seconds, "epoch": trial.epoch, "parent": trial.parent}
    notes |= {"reason": trial.reason, "found": dict(trial.found) or None}
    notes = {key: value for key, value in notes.items() if value is not None}
    study.add_trial(frozen_trial(trial, codes, steer=False, rungs={}, notes=notes))


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
