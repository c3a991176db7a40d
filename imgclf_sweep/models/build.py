"""One model for one trial, of either kind. Keras is imported when something is built."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..space import Params, Value
from ..sweep import LOSSES, BuildFunction, Sweep
from ..sweepfile import digest, execute
from ..text import printable

if TYPE_CHECKING:
    import keras

    from .transfer import Frozen


@dataclass(frozen=True)
class Built:
    """A compiled model (N, H, W, C) -> (N, outputs), weights not yet trained.

    found: what a `build(hp)` asked for beside the trial's params, at its default.
    sparse_labels: whether its loss wants class numbers (N,) rather than one-hot rows (N, outputs).
    frozen: the model in two parts, where the first always makes the same features of an image, so that they can be kept.
    """

    model: keras.Model
    found: Mapping[str, Value] = field(default_factory=dict)
    sparse_labels: bool = True
    frozen: Frozen | None = None


class Builder:
    """Builds the models of one sweep. A user's `build(hp)` is read once, by executing its sweep file: only in a worker.

    pretrained: False leaves weights that would be downloaded or read out: to count parameters, say.
    """

    def __init__(self, sweep: Sweep, *, pretrained: bool = True) -> None:
        self._sweep = sweep
        self._pretrained = pretrained
        self._function: Callable[[Any], Any] | None = None

    def build(self, params: Params, shape: tuple[int, int, int], classes: int) -> Built:
        """The model of `params` for images of `shape` (H, W, C) in `classes` classes.

        Raises: BadInput where these make no model, or the user's function is gone or changed.
        """
        if isinstance(self._sweep.model, str):
            return self._of_family(self._sweep.model, params, shape, classes)
        from .hypermodel import build_hypermodel, check_model, sparse_labels

        model, found = build_hypermodel(self._users(), params)
        check_model(model, shape)
        outputs = model.output_shape[-1]
        if outputs < classes and (outputs, classes) != (1, 2):
            raise BadInput(f"build(hp): its model tells {outputs} classes apart, the data set has {classes}")
        return Built(model, found, sparse_labels(model))

    def _of_family(self, family: str, params: Params, shape: tuple[int, int, int], classes: int) -> Built:
        loss = self._sweep.loss
        if family == "transfer":
            from .transfer import build_transfer

            model, frozen = build_transfer(params, shape, classes, loss, pretrained=self._pretrained)
            return Built(model, {}, _sparse(model), frozen)
        from .cnn import build_cnn

        model = build_cnn(params, shape, classes, loss)
        return Built(model, {}, _sparse(model))

    def _users(self) -> Callable[[Any], Any]:
        if self._function is None:
            model = self._sweep.model
            self._function = _read(model) if isinstance(model, BuildFunction) else model
        return self._function


def _sparse(model: keras.Model) -> bool:
    """Whether a family's model wants class numbers: its loss is a name of LOSSES, or an object that smooths one-hot labels."""
    return isinstance(model.loss, str) and LOSSES[model.loss]


def _read(declared: BuildFunction) -> Callable[[Any], Any]:
    """The function that a sweep file declares now.  Raises: BadInput if it is not what it was when the sweep was made."""
    path = Path(declared.file)
    if not path.is_file():
        raise BadInput(f"{printable(path)}, which has this sweep's {printable(declared.name)}(hp), is gone")
    function = execute(path).model
    if not callable(function) or digest(path, function) != declared.digest:
        raise BadInput(f"{printable(path)}: {printable(declared.name)}(hp) has changed since this sweep began")
    return function


def summary_lines(model: keras.Model) -> list[str]:
    """Keras's table of a model's layers."""
    lines: list[str] = []
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "120"  # the table, a little wider than its `line_length`, would be cut off at 80 columns
    try:
        model.summary(line_length=100, print_fn=lambda text, *_, **__: lines.extend(text.splitlines()))
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return [line.rstrip() for line in lines]


def count_parameters(model: keras.Model) -> tuple[int, int]:
    """(all, trainable) parameters of a built model."""
    return model.count_params(), sum(math.prod(weight.shape) for weight in model.trainable_weights)
