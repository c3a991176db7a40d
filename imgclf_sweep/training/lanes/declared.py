"""The shape of a trial as its whole sweep decides it, so that as many trials as can be share a program. Pure values."""

from __future__ import annotations

from ...models import knobs
from ...models.shared_knobs import AUGMENTATION
from ...space import Params, Value
from ...sweep import Sweep
from .shape import Shape, shape_of


def shape_in(
    sweep: Sweep, params: Params, *, image: tuple[int, int, int], classes: int, train: int, validation: int
) -> Shape:
    """The shape of a trial of `params`.  image: (H, W, C).  train, validation: images of each part, validation 0 for none.

    Raises: BadInput for what is no network for these images, as `knobs.resolve` and `shape_of` do.
    """
    net = knobs.resolve(params)
    return shape_of(
        net,
        image=image,
        classes=classes,
        loss=sweep.loss,
        batch=sweep.batch_size,
        train=train,
        validation=validation,
        dropout=[
            *(may_drop(sweep, "dropout", rate, i, "dropout" in params) for i, rate in enumerate(net.dropout)),
            may_drop(sweep, "dense_dropout", net.dense_dropout, 0, "dense_dropout" in params),
        ],
        augmented=may_augment(sweep, params),
    )


def may_drop(sweep: Sweep, knob: str, rate: float, block: int, given: bool) -> bool:
    """Whether a place has a dropout in the program of a trial of this `rate`: trials that are given the knob share theirs with
    those of any other value of it, so that a rate of 0 is not compiled anew."""
    if rate > 0 or not given or knob not in sweep.space:
        return rate > 0
    return any(_at(value, block) > 0 for value in sweep.space[knob].grid())


def _at(value: Value, block: int) -> float:
    """The rate of a block among values that may be lists, shorter ones too: those are of other networks."""
    if isinstance(value, tuple):
        return float(str(value[block])) if block < len(value) else 0.0
    return float(str(value))


def may_augment(sweep: Sweep, params: Params) -> bool:
    """Whether the program of a trial augments: trials that are given such a knob share theirs with those of any other value of
    it, so that a strength of 0 is not compiled anew."""
    searched = (name for name in AUGMENTATION if name in params and name in sweep.space)
    return any(params.get(name) for name in AUGMENTATION) or any(any(sweep.space[name].grid()) for name in searched)
