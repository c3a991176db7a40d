"""One model's weights on disk: a `.weights.h5` file that is either whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data.files import sync

BEST = "best.weights.h5"


def save_weights(model: Any, path: Path) -> None:
    """Write the weights of the Keras model atomically to `path`, which ends in `.weights.h5` as Keras demands.

    The optimizer's state is left out: it belongs to the last epoch, not to the best, and triples the file with Adam.
    Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with _without_optimizer(model):
            model.save_weights(partial)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def load_weights(model: Any, path: Path | str) -> None:
    """Give a model of the same layers the weights that `save_weights` wrote.

    Raises: OSError for a missing or torn file, ValueError for the weights of another model.
    """
    with _without_optimizer(model):
        model.load_weights(path)


@contextlib.contextmanager
def _without_optimizer(model: Any) -> Iterator[None]:
    """Keras saves and wants back the state of a compiled model's optimizer, and has no option not to."""
    optimizer = model.optimizer
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer
