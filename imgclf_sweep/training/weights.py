"""One model's weights on disk: a file that is either whole or not there.

`.weights.h5` is Keras's own. `.weights.npz` is NumPy's archive of plain arrays in the order of the model's `get_weights()`: what
trains without Keras writes that, and `load_weights` gives either to a Keras model.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import sync

BEST = "best.weights.h5"
BEST_ARRAYS = "best.weights.npz"
NAMES = (BEST, BEST_ARRAYS)  # every name that a trial's best weights may have
PARTIAL = re.compile(r"\.\d+\.(" + "|".join(map(re.escape, NAMES)) + ")")  # written by that process, whole or not


def save_weights(model: Any, path: Path) -> None:
    """Write the weights of the Keras model atomically to `path`, which ends in `.weights.h5` as Keras demands.

    The optimizer's state is left out: it belongs to the last epoch, not to the best, and triples the file with Adam.
    Raises: OSError.
    """
    with whole(path) as partial, _without_optimizer(model):
        model.save_weights(partial)


def save_arrays(weights: Sequence[np.ndarray], path: Path) -> None:
    """Write a model's weights, in the order of its `get_weights()`, atomically to `path`, an `.npz`.  Raises: OSError."""
    with whole(path) as partial:
        np.savez(partial, *weights)


def load_arrays(path: Path | str) -> list[np.ndarray]:
    """What `save_arrays` wrote.  Raises: OSError for a missing or torn file, or one of something else."""
    _check_there(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[f"arr_{i}"] for i in range(len(archive.files))]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"{path} is torn or holds no weights: {error}") from error


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to inside the block that takes the place of `path` at its end, if that is reached, and that of best weights
    under another name.  Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        for name in NAMES if path.name in NAMES else ():
            if name != path.name:
                path.with_name(name).unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a write that fails does not say where
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def best_weights(directory: Path) -> list[Path]:
    """The files in a trial's directory that hold its best weights; none where it has none, or is not there."""
    return [path for name in NAMES if (path := directory / name).is_file()]


def weights_of(directory: Path) -> Path:
    """The file with a trial's best weights; where there is none, one that is not there."""
    return next(iter(best_weights(directory)), directory / BEST)


def drop_weights(directory: Path) -> None:
    """Remove a trial's best weights. What cannot be removed is left."""
    for path in best_weights(directory):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()  # if nothing else is in it


def drop_partial(directory: Path) -> None:
    """Remove what a killed process had half written there. Nobody may be writing there now."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if PARTIAL.fullmatch(path.name):
                path.unlink()


def load_weights(model: Any, path: Path | str) -> None:
    """Give a model of the same layers the weights that `save_weights` or `save_arrays` wrote.

    Raises: OSError for a missing or torn file, ValueError for the weights of another model.
    """
    _check_there(path)
    if Path(path).suffix == ".npz":
        model.set_weights(load_arrays(path))
        return
    with _without_optimizer(model):
        model.load_weights(path)


def _check_there(path: Path | str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"the weights to start from are gone: {path}")


@contextlib.contextmanager
def _without_optimizer(model: Any) -> Iterator[None]:
    """Keras saves and wants back the state of a compiled model's optimizer, and has no option not to."""
    optimizer = model.optimizer
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer
