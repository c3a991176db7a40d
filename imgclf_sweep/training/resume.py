"""Going on where an earlier attempt of a job left off: a model's state as arrays and back, written after each epoch.

The state is every variable that a later epoch depends on: weights, the moving averages of normalisation, the states of the
layers' random generators (dropout, augmentation), and the optimizer's: its moments, its count of steps, which a schedule goes
by, and its learning rate. The order of the images needs none: it follows from the seed and the epoch.

What is in no variable is not kept: random numbers that a layer of a user's own takes from NumPy, from TensorFlow, or from
`keras.random` without a `SeedGenerator`. Such a trial is resumed too, with other random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .checkpoint import Checkpoint, Checkpoints, identity
from .course import Progress
from .protocol import Job, OnResume, Setup

BEST_ARRAYS = "best/"


class Keeper:
    """Keeps one job's state on disk as it is trained, and finds it again."""

    def __init__(self, setup: Setup, job: Job, on_resume: OnResume) -> None:
        self.on_resume = on_resume
        self._checkpoints = Checkpoints(Path(job.directory), identity(setup, job))
        self._epochs = job.suggestion.epochs

    def keep(self, model: keras.Model, progress: Progress, seconds: float) -> None:
        """Write the state after the epoch last measured; not after the last of all, when there is nothing to go on with.

        seconds: what the job has taken so far, earlier attempts included.   Raises: OSError.
        """
        epoch = progress.measurements[-1].epoch
        if epoch >= self._epochs:
            return
        arrays = state_of(model)
        if progress.best_epoch != epoch and progress.weights is not None:
            arrays |= {f"{BEST_ARRAYS}{i}": weight for i, weight in enumerate(progress.weights)}
        self._checkpoints.save(Checkpoint(epoch, progress.to_json(seconds), arrays))

    def find(self, model: keras.Model) -> Progress | None:
        """Give the model the state of the newest checkpoint that is whole; None, and the model as it was, where there is none."""
        found = self._checkpoints.newest()
        if found is None:
            return None
        best = [array for name, array in found.arrays.items() if name.startswith(BEST_ARRAYS)]
        try:
            give_state(model, {n: array for n, array in found.arrays.items() if not n.startswith(BEST_ARRAYS)})
        except ValueError as error:
            print(f"the checkpoint of epoch {found.epoch} is passed over: {error}")
            return None
        progress = Progress.from_json(found.progress)
        if progress.best_epoch is not None:
            progress.weights = best or model.get_weights()
        return progress


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Every variable of a compiled model and its optimizer, by its place among them."""
    return {name: keras.ops.convert_to_numpy(variable.value) for name, variable in _variables(model).items()}


def give_state(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the variables that `state_of` told of a model of the same layers, compiled in the same way.

    Raises: ValueError, with nothing changed, where they are of another model.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    shapes: Sequence[Any] = [(name, tuple(variable.shape)) for name, variable in variables.items()]
    if shapes != [(name, array.shape) for name, array in arrays.items()]:
        raise ValueError("its variables are not the model's")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _variables(model: keras.Model) -> dict[str, Any]:
    found = {f"model/{i}": variable for i, variable in enumerate(model.variables)}
    return found | {f"optimizer/{i}": variable for i, variable in enumerate(model.optimizer.variables)}
