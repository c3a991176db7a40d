"""How many trials of a sweep a device holds side by side. Pure values: no tensor library is imported."""

from __future__ import annotations

import itertools

import numpy as np

from ...errors import SweepError
from ...space import Params
from ...sweep import Sweep
from .declared import shape_in

LOOKED_AT = 1000  # configurations of a space, from the grid's beginning and drawn at random alike, to find the largest
PART = 0.7  # of the device's memory for lanes: the rest is for images, programs and what our estimate misses
MOST = 256  # lanes a worker: the gain of another is gone long before


def largest_lane(sweep: Sweep, image: tuple[int, int, int], classes: int, train: int, validation: int) -> int | None:
    """Bytes of device memory that the largest trial of the space and the known ones takes, by `Shape.lane_bytes`; None where no
    trial can be compiled.  train, validation: images of each part."""
    found = []
    for params in _configurations(sweep):
        try:
            shape = shape_in(sweep, params, image=image, classes=classes, train=train, validation=validation)
        except SweepError:
            continue  # that trial itself will say so
        found.append(shape.lane_bytes())
    return max(found, default=None)


def lanes_for(device: int, lane: int) -> int:
    """How many lanes a device of so many bytes takes, at least 1."""
    return max(1, min(MOST, int(PART * device) // lane))


def _configurations(sweep: Sweep) -> list[Params]:
    random = np.random.default_rng(0)
    drawn = [sweep.space.sample(random) for _ in range(LOOKED_AT)]
    return [*itertools.islice(sweep.space.grid(), LOOKED_AT), *drawn, *(s.params for s in sweep.known_suggestions)]
