"""The knobs of the "cnn" family as plain values. No Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..space import SearchSpace, Value
from .family import MOST, Family, Knob, Rule, lengths_rule, number, whole, words
from .shared_knobs import (
    AUGMENTATION,
    CLASSES,
    FLAG,
    LABEL_SMOOTHING,
    OPTIMIZERS,
    RATE,
    WITH_MOMENTUM,
    Augmentation,
    Training,
    loss_rule,
    momentum_rule,
    optimizer_knobs,
)

__all__ = ["CNN", "KNOBS", "OPTIMIZERS", "WITH_MOMENTUM", "CnnKnobs", "check_image", "check_space", "resolve", "words"]

PADDINGS = ("valid", "same")

INITIALIZERS = ("glorot_uniform", "glorot_normal", "he_uniform", "he_normal")
"""Keras's names of what the kernels of layers with relu may start from. The last layer, a softmax, keeps Keras's own default."""

_PENALTY = (number(lambda v: v >= 0), "a number of at least 0")

KNOBS: Mapping[str, Knob] = {
    "blocks": Knob(1, whole(1, MOST), f"a whole number from 1 to {MOST}"),
    "convs": Knob(1, whole(1, MOST), f"a whole number from 1 to {MOST}", each=True),
    "filters": Knob(32, whole(1), "a whole number of at least 1", each=True),
    "kernel_size": Knob(3, whole(1), "a whole number of at least 1", each=True),
    "kernel_initializer": Knob(
        INITIALIZERS[0],
        lambda v: v in INITIALIZERS,
        "an initializer's name",
        named="kernel_initializer",
        names=INITIALIZERS,
    ),
    "padding": Knob("valid", lambda v: v in PADDINGS, "'valid' or 'same'", each=True),
    "batch_norm": Knob(False, *FLAG, each=True),
    "pool_size": Knob(2, whole(1), "a whole number of at least 1", each=True),
    "dropout": Knob(0.0, *RATE, each=True),
    "l1": Knob(0.0, *_PENALTY, each=True),
    "l2": Knob(0.0, *_PENALTY, each=True),
    "l1l2": Knob(0.0, *_PENALTY, each=True),
    "dense_units": Knob(128, whole(1), "a whole number of at least 1"),
    "dense_batch_norm": Knob(False, *FLAG),
    "dense_dropout": Knob(0.0, *RATE),
    "classes": CLASSES,
    "label_smoothing": LABEL_SMOOTHING,
    **optimizer_knobs("adam"),
    **AUGMENTATION,
}


@dataclass(frozen=True)
class CnnKnobs(Augmentation, Training):
    """One configuration with every knob filled in. Tuples hold one value a block and are `blocks` long.

    `classes` None: as many as the data set has.
    """

    blocks: int
    convs: tuple[int, ...]
    filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    kernel_initializer: str
    padding: tuple[str, ...]
    batch_norm: tuple[bool, ...]
    pool_size: tuple[int, ...]
    dropout: tuple[float, ...]
    l1: tuple[float, ...]
    l2: tuple[float, ...]
    l1l2: tuple[float, ...] | None
    dense_units: int
    dense_batch_norm: bool
    dense_dropout: float
    classes: int | None


def resolve(params: Mapping[str, Value]) -> CnnKnobs:
    """The network that `params` (active knobs only; the others take their defaults) asks for.

    Raises: BadInput for an unknown knob, a value it cannot hold, or knobs that contradict each other.
    """
    values: dict[str, Any] = CNN.filled(params)
    lengths = [len(v) for n, v in values.items() if KNOBS[n].each and isinstance(v, tuple)]
    blocks = params.get("blocks") or next(iter(lengths), 1)
    for name, value in values.items():
        values[name] = value if isinstance(value, tuple) or not KNOBS[name].each else (value,) * blocks
    return CnnKnobs(**{**values, "blocks": blocks, "l1l2": values["l1l2"] if "l1l2" in params else None})


def check_space(space: SearchSpace) -> None:
    """As `Family.check_space`, of this family.  Raises: BadInput."""
    CNN.check_space(space)


def check_image(net: CnnKnobs, shape: tuple[int, int, int]) -> None:
    """Refuse a network that leaves nothing of an image of `shape` (H, W, C).  Raises: BadInput."""
    height, width, _ = shape
    for block in range(net.blocks):
        kernel, pool = net.kernel_size[block], net.pool_size[block]
        shrinks = kernel - 1 if net.padding[block] == "valid" else 0
        steps = [(f"a {kernel}x{kernel} convolution", kernel if shrinks else 1, lambda n, k=shrinks: n - k)]
        steps = steps * net.convs[block] + [(f"{pool}x{pool} pooling", pool, lambda n, p=pool: n // p)]
        for what, least, shrink in steps:
            if min(height, width) < least:
                raise BadInput(
                    f"image {shape[0]}x{shape[1]} is too small for block {block + 1}: "
                    f"{height}x{width} is left of it there, less than {what} takes"
                )
            height, width = shrink(height), shrink(width)


def _penalty_problem(params: Mapping[str, Value]) -> str | None:
    other = [n for n in ("l1", "l2") if n in params]
    if "l1l2" not in params or not other:
        return None
    return f"knob 'l1l2' excludes '{other[0]}': use l1l2 alone, or l1 and l2"


CNN = Family(
    "cnn",
    KNOBS,
    (
        lengths_rule(KNOBS, "blocks", "block"),
        momentum_rule(KNOBS["optimizer"].default),
        Rule(["l1", "l2", "l1l2"], _penalty_problem, lambda name, v: None),
    ),
    on_loss=loss_rule,
)
