"""The copies for other programs, read by those programs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backends_driver import SPACE, Driver, a_sweep

from imgclf_sweep.backends.exports import write_exports
from imgclf_sweep.backends.keras_tuner_export import _exchange_at_once, write_keras
from imgclf_sweep.backends.optuna_export import exported, write_study
from imgclf_sweep.backends.optuna_study import readable
from imgclf_sweep.space import Params
from imgclf_sweep.sweep import Objective
from imgclf_sweep.trial import State, Suggestion, Trial


def best(trials: list[Trial], direction: str = "max") -> Trial:
    sign = 1 if direction == "max" else -1
    return max((t for t in trials if t.state is State.COMPLETE), key=lambda t: sign * (t.value or 0))


def driven(upto: int = 16, **changes: object) -> Driver:
    driver = Driver(a_sweep(epochs=9, seed=3, **changes))
    driver.run(upto)
    return driver


@pytest.mark.parametrize("backend", ["optuna", "keras-tuner", "random"])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_plain_optuna_opens_the_study(tmp_path: Path, backend: str, direction: str) -> None:
    import optuna

    driver = driven(30, backend=backend, objective=Objective("val_score", direction))
    answer = driver.ask()
    assert isinstance(answer, Suggestion)
    folder = tmp_path / "my-sweep"
    folder.mkdir()
    write_exports(folder, driver.sweep, driver.trials, driver.kept)
    study = optuna.load_study(study_name="my-sweep", storage=f"sqlite:///{folder / 'optuna.db'}")
    ours = best(driver.trials, direction)
    assert (study.best_trial.number, study.best_value) == (ours.number, ours.value)
    assert study.metric_names == ["val_score"]
    assert len(study.trials) == len(driver.trials)
    for theirs, trial in zip(study.trials, driver.trials, strict=True):
        assert theirs.number == theirs.user_attrs["number"] == trial.number
        state = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL", "RUNNING": "WAITING"}[trial.state]
        assert theirs.state.name == state
        if trial.state.finished:
            assert theirs.intermediate_values == trial.curve
            assert set(theirs.params) == set(trial.params)
            assert theirs.params["optimizer"] == trial.params["optimizer"]
            assert theirs.params["dropout"] == trial.params["dropout"]
            assert theirs.params["kernel"] == 3
            filters = trial.params["filters"]
            assert theirs.params["filters"] == (filters if isinstance(filters, int) else str(list(filters)))
            assert theirs.user_attrs.get("reason") == trial.reason
    assert {t.state for t in driver.trials} >= {State.COMPLETE, State.FAILED}
    study.sampler = optuna.samplers.TPESampler(seed=0)
    again = study.ask()
    assert again.number == driver.trials[-1].number  # what was open is what runs next
    assert again.suggest_categorical("optimizer", ["adam", "sgd", "rmsprop"]) == driver.trials[-1].params["optimizer"]
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("backend", ["optuna", "random"])
def test_our_rows_are_those_that_optuna_writes(tmp_path: Path, backend: str) -> None:
    """Trials are inserted in bulk. Optuna's own `add_trial` makes the same tables of them, but for numbers of rows."""
    import optuna

    driver = driven(24, backend=backend)
    driver.ask()
    trials = [dataclasses.replace(t, found={"new": 7.5}) if t.number == 3 else t for t in driver.trials]
    write_study(tmp_path / "ours.db", "s", driver.sweep, trials)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'theirs.db'}")
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.set_metric_names([driver.sweep.objective.metric])
    codes = {name: readable(parameter) for name, parameter in SPACE.items()}
    for trial in trials:
        study.add_trial(exported(trial, codes))
    assert {t.state for t in trials} >= {State.COMPLETE, State.FAILED, State.RUNNING}
    ours, theirs = contents(tmp_path / "ours.db"), contents(tmp_path / "theirs.db")
    assert set(ours) == set(theirs)
    for table in theirs:
        assert ours[table] == theirs[table], table


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table's rows, sorted, without the numbers that only count rows, and times as whether there is one."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for table in tables:
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for row in rows:
                for name in row:
                    if name.startswith("datetime") and row[name] is not None:
                        row[name] = len(row[name])
                    if name.endswith("_id") and name not in ("trial_id", "study_id"):
                        row[name] = None
            found[table] = sorted((tuple(row.items()) for row in rows), key=repr)
        return found


def test_a_study_without_a_trial(tmp_path: Path) -> None:
    import optuna

    write_exports(tmp_path, a_sweep(), [], {})
    assert optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'optuna.db'}").trials == []
    write_exports(tmp_path, a_sweep(backend="keras-tuner"), [], {})
    assert [p.name for p in tmp_path.iterdir()] == ["optuna.db"]


def build(hp: object) -> object:
    """A model that asks for what SPACE names."""
    import keras

    hp.Choice("optimizer", ["adam", "sgd", "rmsprop"])  # type: ignore[attr-defined]
    units = hp.Int("dense_units", 16, 128, step=16)  # type: ignore[attr-defined]
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(units)])
    model.compile(loss="mse")
    return model


def project(folder: Path) -> object:
    import keras_tuner

    objective = keras_tuner.Objective("val_accuracy", "max")
    return keras_tuner.RandomSearch(
        build, objective, max_trials=100, directory=folder, project_name="keras_tuner", overwrite=False
    )


@pytest.mark.parametrize("sampler", ["random", "bayesian", "hyperband"])
def test_a_plain_tuner_reloads_the_project(tmp_path: Path, sampler: str) -> None:
    driver = driven(14, backend="keras-tuner", sampler=sampler)
    ours = best(driver.trials)
    weights = tmp_path / "checkpoints" / str(ours.number)
    weights.mkdir(parents=True)
    build(ParamsOf(ours.params)).save_weights(weights / "best.weights.h5")  # type: ignore[attr-defined]
    write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
    tuner = project(tmp_path)
    oracle = tuner.oracle  # type: ignore[attr-defined]
    assert len(oracle.trials) == len(driver.trials)
    theirs = oracle.get_best_trials(1)[0]
    assert (int(theirs.trial_id), theirs.score) == (ours.number, ours.value)
    assert theirs.best_step + 1 == ours.epoch
    assert theirs.hyperparameters.get("dense_units") == ours.params["dense_units"]
    assert {t.status for t in oracle.trials.values()} == {"COMPLETED", "FAILED"}
    (model,) = tuner.get_best_models(1)  # type: ignore[attr-defined]
    assert model.layers[-1].units == ours.params["dense_units"]
    more = oracle.create_trial("tuner0")
    assert int(more.trial_id) == len(driver.trials)


class ParamsOf:
    """The least of a `HyperParameters`: fixed answers."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def Choice(self, name: str, *_: object, **__: object) -> object:
        return self._params[name]

    Int = Choice


def test_a_tuner_takes_up_what_was_open(tmp_path: Path) -> None:
    driver = driven(5, backend="keras-tuner")
    answer = driver.ask()
    assert isinstance(answer, Suggestion)
    write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
    trial = project(tmp_path).oracle.create_trial("tuner0")  # type: ignore[attr-defined]
    assert int(trial.trial_id) == answer.number
    assert trial.hyperparameters.values["learning_rate"] == answer.params["learning_rate"]


def test_writing_again_replaces_both(tmp_path: Path) -> None:
    import optuna

    driver = driven(4, backend="keras-tuner")
    for upto in (4, 9):
        driver.run(upto)
        write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
        assert (
            len(optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'optuna.db'}").trials)
            == upto
        )
        assert len(list((tmp_path / "keras_tuner").glob("trial_*/trial.json"))) == upto
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keras_tuner", "optuna.db"]


def test_a_grid_and_the_other_backends_write_no_project(tmp_path: Path) -> None:
    for changes in ({"backend": "keras-tuner", "sampler": "grid"}, {"backend": "optuna"}, {"backend": "random"}):
        driver = driven(2, **changes)
        write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
    assert [p.name for p in tmp_path.iterdir()] == ["optuna.db"]


def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x").touch()
    if not _exchange_at_once(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system cannot exchange two names at once")
    assert (tmp_path / "b" / "x").exists()
    assert not _exchange_at_once(tmp_path / "a", tmp_path / "missing")


CHILD = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from backends_driver import Driver, a_sweep
from imgclf_sweep.backends.exports import write_exports
import json
driver = Driver(a_sweep(epochs=9, seed=3, backend="random"))
driver.run(16)
kept = json.loads(sys.stdin.read())
sweep = a_sweep(epochs=9, seed=3, backend="keras-tuner")
print("ready", flush=True)
while True:
    write_exports(Path({folder!r}), sweep, driver.trials, kept)
"""


def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """The writer never imports Keras Tuner, and whenever it is killed both copies are whole."""
    import json

    import optuna

    driver = driven(16, backend="keras-tuner")
    write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
    here = Path(__file__).parent
    for wait in (0.05, 0.2, 0.43):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(here=str(here), folder=str(tmp_path))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=here.parent.parent,
        )
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps(driver.kept))
        child.stdin.close()
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        study = optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
        assert len(study.trials) == 16
        trials = sorted((tmp_path / "keras_tuner").glob("trial_*/trial.json"))
        assert len(trials) == 16
        for path in [*trials, tmp_path / "keras_tuner" / "oracle.json", tmp_path / "keras_tuner" / "tuner0.json"]:
            json.loads(path.read_text())
    write_exports(tmp_path, driver.sweep, driver.trials, driver.kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keras_tuner", "optuna.db"]


def test_a_name_in_the_record_that_the_space_no_longer_has_is_left_out(tmp_path: Path) -> None:
    import optuna

    driver = driven(3, backend="random")
    trials = [dataclasses.replace(t, params={**t.params, "gone": 1}, found={"new": 7}) for t in driver.trials]
    write_exports(tmp_path, driver.sweep, trials, {})
    study = optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert all(set(t.params) <= set(SPACE) for t in study.trials)
    assert study.trials[0].user_attrs["found"] == {"new": 7}


def test_plain_arrays_become_the_weights_file_that_keras_loads(tmp_path: Path) -> None:
    from imgclf_sweep.models.cnn import build_cnn
    from imgclf_sweep.training.weights import load_weights

    params = {"filters": [2, 3], "convs": [2, 1], "padding": "same", "batch_norm": [True, False], "dropout": 0.2}
    ours, theirs = (
        build_cnn(
            {**params, "dense_units": 4, "dense_batch_norm": True, "dense_dropout": 0.1}, (8, 8, 1), 10, "kl_divergence"
        )
        for _ in range(2)
    )
    write_keras(ours.get_weights(), tmp_path / "checkpoint.weights.h5")
    load_weights(theirs, tmp_path / "checkpoint.weights.h5")  # no optimizer is in it
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
