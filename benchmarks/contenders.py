"""What our users would otherwise run, each as its own documentation shows it: one process, one trial after another.

    python -m benchmarks.contenders plain|keras-tuner|optuna TASK.json          started by `benchmarks.compare`

plain          a loop over configurations, logged as TensorBoard's HParams tutorial does: its `TensorBoard` and `KerasCallback`
keras-tuner    a `Tuner` over a random oracle, with a `TensorBoard` callback given to `search`, from which it logs HParams itself
optuna         `study.optimize` with a `TensorBoard` callback in the objective, the study in memory

All are given the same configurations in the same order: Keras Tuner's oracle and Optuna's queue hand them out, so what their
samplers take for a proposal (milliseconds) is not counted. Weights are kept as each does by default: Keras Tuner writes every
trial's best, the other two keep none. The last line printed is a JSON list: each trial's best val_accuracy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


@dataclass(frozen=True)
class Task:
    """Images float32 (N, H, W, 1) in [0, 1] with labels int64 (N,), what to train on them, and where logs may go."""

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray
    configurations: list[dict[str, Any]]
    space: Mapping[str, Any]
    epochs: int
    batch: int
    out: Path

    @classmethod
    def read(cls, file: Path) -> Task:
        told = json.loads(file.read_text())
        with np.load(told["images"]) as images:
            x, held_x = (images[name].astype(np.float32) / 255 for name in ("x", "held_x"))
            labels = images["y"], images["held_y"]
        rest = {name: told[name] for name in ("configurations", "space", "epochs", "batch")}
        return cls(x, labels[0], held_x, labels[1], **rest, out=Path(told["out"]))

    def fit(self, model: Any, callbacks: list[Any]) -> float:
        """Train; the best val_accuracy over the epochs."""
        held = self.held_x, self.held_y
        history = model.fit(
            self.x, self.y, self.batch, self.epochs, verbose=0, validation_data=held, callbacks=callbacks
        )
        return max(history.history["val_accuracy"])


def network(params: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    """The network of the "cnn" family for these six knobs, as one writes it in Keras."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(
                params["filters"],
                params["kernel_size"],
                activation="relu",
                kernel_regularizer=keras.regularizers.L1L2(params["l1l2"]),
            ),
            layers.MaxPooling2D(params["pool_size"]),
            layers.Dropout(params["dropout"]),
            layers.Flatten(),
            layers.Dense(params["dense_units"], activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=params["optimizer"], loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plain(task: Task) -> list[float]:
    import keras
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    known = {name: hp.HParam(name) for name in task.configurations[0]}
    with tf.summary.create_file_writer(str(task.out / "logs")).as_default():
        hp.hparams_config(hparams=list(known.values()), metrics=[hp.Metric("epoch_accuracy", "validation")])
    found = []
    for number, params in enumerate(task.configurations):
        keras.backend.clear_session()
        logs = str(task.out / "logs" / f"run-{number}")
        hparams = {known[name]: value for name, value in params.items()}
        callbacks = [keras.callbacks.TensorBoard(logs), hp.KerasCallback(logs, hparams)]
        found.append(task.fit(network(params, task.x.shape[1:]), callbacks))
    return found


def keras_tuner(task: Task) -> list[float]:
    import keras
    import keras_tuner
    from keras_tuner.oracles import RandomSearchOracle

    class Listed(RandomSearchOracle):
        def populate_space(self, trial_id: str) -> dict[str, Any]:
            return {"status": "RUNNING", "values": dict(task.configurations[int(trial_id)])}

    def build(hp: Any) -> Any:
        return network({name: _of_tuner(hp, name, declared) for name, declared in task.space.items()}, task.x.shape[1:])

    oracle = Listed(keras_tuner.Objective("val_accuracy", "max"), max_trials=len(task.configurations), seed=SEED)
    tuner = keras_tuner.Tuner(oracle, build, directory=str(task.out), project_name="tuner")
    logs = keras.callbacks.TensorBoard(str(task.out / "logs"))
    held = task.held_x, task.held_y
    tuner.search(task.x, task.y, task.batch, task.epochs, verbose=0, validation_data=held, callbacks=[logs])
    return [trial.score for trial in oracle.trials.values()]


def _of_tuner(hp: Any, name: str, declared: Mapping[str, Any]) -> Any:
    if "values" in declared:
        return hp.Choice(name, declared["values"])
    return hp.Float(name, declared["low"], declared["high"], sampling="log" if declared["log"] else "linear")


def optuna(task: Task) -> list[float]:
    import keras
    import optuna as library

    def objective(trial: Any) -> float:
        keras.backend.clear_session()
        params = {name: _of_optuna(trial, name, declared) for name, declared in task.space.items()}
        logs = keras.callbacks.TensorBoard(str(task.out / "logs" / str(trial.number)))
        return task.fit(network(params, task.x.shape[1:]), [logs])

    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(direction="maximize", sampler=library.samplers.TPESampler(seed=SEED))
    for params in task.configurations:
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=len(task.configurations))
    return [trial.value for trial in study.trials]


def _of_optuna(trial: Any, name: str, declared: Mapping[str, Any]) -> Any:
    if "values" in declared:
        return trial.suggest_categorical(name, declared["values"])
    return trial.suggest_float(name, declared["low"], declared["high"], log=declared["log"])


CONTENDERS = {"plain": plain, "keras-tuner": keras_tuner, "optuna": optuna}


def main() -> None:
    name, file = sys.argv[1:]
    print(json.dumps([float(value) for value in CONTENDERS[name](Task.read(Path(file)))]))


if __name__ == "__main__":
    main()
