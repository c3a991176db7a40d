"""Trials of one shape, side by side in the lanes of one program; and how many lanes such a program has."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ...sweep import Objective
from ..checkpoint import Checkpoint
from ..course import Course
from ..protocol import Job
from .lanes import Data, Lanes, Program
from .shape import Inputs, Shape
from .state import Keeper
from .wide import extract, own

SIZES = [1, *(n * 2**i for i in range(12) for n in (2, 3))]
"""How many lanes a program may have: few different ones, so that a program serves often, and at most a third of it idle."""

IDLE = 4  # times as many lanes as trials are still better than another compilation


@dataclass
class Place:
    """A job on its way through the epochs.

    group, at: where it trains; none while it waits.   found: the checkpoint it goes on from.   weights: what it starts from
    otherwise, on their way.   started: when, by `time.perf_counter`.   kept: when its last checkpoint was.   saved: its best
    weights, on their way to the disk.
    """

    lane: int
    job: Job
    shape: Shape
    inputs: Inputs
    course: Course
    keeper: Keeper
    started: float
    found: Checkpoint | None
    weights: Future[Sequence[np.ndarray]] | None
    group: Group | None = None
    at: int = -1
    kept: float = 0.0
    saved: Future[None] | None = None


class Group:
    """The lanes of one program, which may still be compiling. Each holds a place or is free."""

    def __init__(self, shape: Shape, size: int, program: Future[Program]) -> None:
        self.shape, self.size, self.program = shape, size, program
        self.places: dict[int, Place] = {}
        self._lanes: Lanes | None = None
        self._new: list[int] = []  # lanes whose place was taken since the last epoch

    @property
    def free(self) -> int:
        return self.size - len(self.places)

    @property
    def lanes(self) -> Lanes:
        assert self._lanes is not None, "no epoch was trained yet"
        return self._lanes

    def take(self, place: Place) -> None:
        """Let it train here from the next epoch on."""
        at = next(at for at in range(self.size) if at not in self.places)
        self.places[at] = place
        place.group, place.at = self, at
        self._new.append(at)

    def leave(self, place: Place) -> None:
        del self.places[place.at]
        if self._lanes is not None:
            self._lanes.stop_lane(place.at)
        self._new = [at for at in self._new if at != place.at]
        place.group = None

    def move(self, place: Place, other: Group) -> None:
        """To another group of this shape, as it is; both have trained."""
        arrays = self.lanes.lane_state(place.at)
        self.leave(place)
        other.take(place)
        other.lanes.resume_lane(place.at, place.inputs, arrays)
        other._new.remove(place.at)

    def start(self, data: Data, objective: Objective) -> None:
        """Set the device to work on the next epoch, once the program is compiled.  Raises: what goes wrong in that."""
        program = self.program.result()
        if self._lanes is None:
            self._lanes = Lanes(program, data, objective)
        for at in self._new:
            place = self.places[at]
            if place.found is not None:
                self._lanes.resume_lane(at, place.inputs, place.found.arrays)
            else:
                assert place.weights is not None
                self._lanes.set_lane(at, place.inputs, place.weights.result())
            place.found = place.weights = None  # their memory
        self._new = []
        self._lanes.start()

    def metrics(self) -> list[tuple[Place, dict[str, float]]]:
        """What the epoch measured of each place, once it has ended."""
        rows = self.lanes.metrics()
        return [(place, _given(rows[at])) for at, place in sorted(self.places.items())]


def _given(row: dict[str, float] | None) -> dict[str, float]:
    assert row is not None, "a place in an idle lane"
    return row


def state_bytes(shape: Shape) -> int:
    """Of device memory that a lane holds all the time, roughly, between its epochs too: see `Shape.lane_bytes`."""
    return 24 * sum(math.prod(variable.shape) for variable in shape.variables())


def size_for(count: int, made: Iterable[int]) -> int:
    """Lanes for `count` trials of one shape: as a program made already has, if it has enough and not far too many, for to compile
    another takes longer than to leave a few lanes idle; else as few as hold them."""
    fitting = [size for size in made if count <= size <= IDLE * count]
    return min(fitting) if fitting else next(size for size in SIZES if size >= count)


def merge(groups: Sequence[Group]) -> list[Group]:
    """The groups of one shape with their trials moved into as few as hold them; those left empty are dropped."""
    kept = sorted(groups, key=lambda group: (-len(group.places), -group.size))
    while len(kept) > 1 and len(kept[-1].places) <= sum(group.free for group in kept[:-1]):
        last = kept.pop()
        for place in list(last.places.values()):
            last.move(place, next(group for group in kept if group.free))
    return [group for group in kept if group.places]


def checkpoint(place: Place, at_once: bool = False) -> None:
    """Write where a place is after the epoch last measured.  at_once: see `Keeper.keep`.  Raises: OSError."""
    assert place.group is not None
    now = time.perf_counter()
    spent = place.course.progress.seconds + now - place.started
    place.keeper.keep(place.group.lanes, place.at, place.course.progress, spent, at_once)
    place.kept = now


def best_of(place: Place) -> list[np.ndarray]:
    """The best weights that the checkpoint holds from which a place goes on, in the order of `get_weights()`."""
    assert place.found is not None, "it has begun"
    count = sum(name.startswith("best/") for name in place.found.arrays)
    arrays = [place.found.arrays[f"best/{i}"] for i in range(count)]
    return extract(arrays, own(place.shape, place.inputs), place.shape)
