"""The knobs that every family has: the optimizer's, the number of outputs, and augmentation. Pure values; no Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BadInput
from ..space import Value
from ..text import printable
from .family import Knob, Rule, number, whole

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "ftrl", "lion", "adafactor")
"""Keras's own names of the optimizers that `keras.optimizers.get` makes with nothing but a learning rate."""

WITH_MOMENTUM = ("sgd", "rmsprop")

WITH_SMOOTHING = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
)
"""The losses that have label smoothing; the sparse one by way of the categorical one, as Keras smooths no class numbers."""

RATE = (number(lambda v: 0 <= v < 1), "a number of at least 0 and below 1")
FLAG = (lambda v: isinstance(v, bool), "True or False")
CLASSES = Knob(None, whole(2), "a whole number of at least 2")
LABEL_SMOOTHING = Knob(0.0, *RATE)

AUGMENTATION: Mapping[str, Knob] = {
    "rotation": Knob(0.0, number(lambda v: 0 <= v <= 180), "a number of degrees from 0 to 180"),
    "width_shift": Knob(0.0, *RATE),
    "height_shift": Knob(0.0, *RATE),
    "horizontal_flip": Knob(False, *FLAG),
    "shear": Knob(0.0, number(lambda v: 0 <= v <= 1), "a number from 0 to 1"),
    "zoom": Knob(0.0, *RATE),
}
"""How far images are changed at random while training, drawn anew for each image of each batch; 0 and False leave it out.

rotation: degrees either way.  width_shift, height_shift: parts of the image's side either way.  shear: what a row moves
against the next, either way.  zoom: parts of the image's side in or out, width and height apart.
"""


@dataclass(frozen=True)
class Augmentation:
    """The values of the AUGMENTATION knobs."""

    rotation: float
    width_shift: float
    height_shift: float
    horizontal_flip: bool
    shear: float
    zoom: float

    @property
    def augmented(self) -> bool:
        """Whether any of them changes an image."""
        return any(getattr(self, name) for name in AUGMENTATION)

    @property
    def samplings(self) -> int:
        """How many of Keras's layers interpolate an image: all but the flip, both shifts being one."""
        return sum(map(bool, (self.rotation, self.width_shift or self.height_shift, self.shear, self.zoom)))


@dataclass(frozen=True)
class Training:
    """How a network is trained. `learning_rate`, `momentum` and `weight_decay` None: the optimizer's default.

    weight_decay: the part of each trained weight, times the learning rate, that it loses at each step, biases included.
    label_smoothing: the part of a label's certainty that is spread over the classes, measured losses included.
    """

    optimizer: str
    learning_rate: float | None
    momentum: float | None
    weight_decay: float | None
    label_smoothing: float


def optimizer_knobs(optimizer: str, learning_rate: float | None = None) -> dict[str, Knob]:
    """The knobs that name an optimizer, with a family's defaults."""
    return {
        "optimizer": Knob(
            optimizer, lambda v: v in OPTIMIZERS, "an optimizer's name", named="optimizer", names=OPTIMIZERS
        ),
        "learning_rate": Knob(
            learning_rate, lambda v: v is None or number(lambda n: n > 0)(v), "a number above 0, or None"
        ),
        "momentum": Knob(None, *RATE),
        "weight_decay": Knob(
            None, lambda v: v is None or number(lambda n: n >= 0)(v), "a number of at least 0, or None"
        ),
    }


def momentum_rule(default: str) -> Rule:
    """Momentum is only for optimizers that have it.  default: the family's optimizer."""

    def problem(params: Mapping[str, Value]) -> str | None:
        optimizer = params.get("optimizer", default)
        if "momentum" not in params or optimizer in WITH_MOMENTUM:
            return None
        return (
            f"knob 'momentum': the optimizer {optimizer} has none, only {' and '.join(WITH_MOMENTUM)} do; "
            "declare optimizer before it, and those of them that it may be, as in when={'optimizer': 'sgd'}"
        )

    return Rule(["momentum", "optimizer"], problem, lambda name, v: name == "optimizer" and v in WITH_MOMENTUM)


def loss_rule(loss: str) -> Rule:
    """Label smoothing is only for losses that have it.  loss: the sweep's."""

    def problem(params: Mapping[str, Value]) -> str | None:
        return smoothing_problem(params.get("label_smoothing", 0), loss)

    return Rule(["label_smoothing"], problem, lambda name, v: bool(v))


def smoothing_problem(smoothing: Value, loss: str) -> str | None:
    """Why labels cannot be smoothed so under `loss`, in a line, or None if they can."""
    if not smoothing or loss in WITH_SMOOTHING:
        return None
    return (
        f"knob 'label_smoothing' is {printable(repr(smoothing))}, but the loss {printable(loss)} has none, "
        f"only {', '.join(WITH_SMOOTHING)} do"
    )


def check_loss(net: Training, loss: str) -> None:
    """Raises: BadInput for label smoothing under a loss that has none."""
    problem = smoothing_problem(net.label_smoothing, loss)
    if problem:
        raise BadInput(problem)
