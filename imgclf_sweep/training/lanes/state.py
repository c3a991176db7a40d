"""What stands between a job and the lane that trains it: its images on the device, its shape and inputs, its checkpoints and
its best weights. Keras is not imported.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...errors import SweepError
from ...models import knobs
from ...space import Params
from ...sweep import Sweep
from .. import images
from ..checkpoint import Checkpoint, Checkpoints, identity
from ..course import Course, Progress
from ..protocol import Job, Setup
from ..weights import BEST_ARRAYS, load_arrays, save_arrays
from .declared import shape_in
from .lanes import Data, Lanes, to_device
from .shape import Inputs, Shape, inputs_of
from .wide import programs

KEEP_SECONDS = 0.5
"""A checkpoint is written when the last one is that old, and when a job is interrupted: after each of a digits network's epochs
of 10 ms it would cost as much as the epoch. So a kill loses the epoch under way, or half a second of epochs."""


LOOKED_AT = 2000  # configurations of a space, for the shapes they have; a larger grid is not run to its end


@dataclass(frozen=True)
class Resident:
    """The images of a part, on the device.  shape: (H, W, C).  train, validation: how many of each, 0 held out for part "all".

    programs: which shape's program trains each shape of network that the sweep may ask for; one that is missing has its own.
    """

    part: str
    data: Data
    shape: tuple[int, int, int]
    classes: int
    train: int
    validation: int
    programs: Mapping[Shape, Shape] = field(default_factory=dict)


def resident(setup: Setup, part: str) -> Resident:
    """Put the images of `part` ("train" or "all") on the device, as uint8: scaling is the program's.  Raises: SweepError."""
    chosen = images.fitted(setup, part)
    prepared, held = chosen.prepared, chosen.validation
    validation = None if held is None else (np.ascontiguousarray(chosen.x[held]), chosen.y[held])
    data = to_device(np.ascontiguousarray(chosen.x[chosen.train]), chosen.y[chosen.train], chosen.affine, validation)
    counts = len(chosen.train), 0 if held is None else len(held)
    alone = Resident(part, data, tuple(prepared.shape), len(prepared.classes), *counts)
    return replace(alone, programs=programs(_shapes(setup.sweep, alone), setup.sweep.epochs))


def _shapes(sweep: Sweep, images: Resident) -> Iterator[Shape]:
    """Those of the networks of the space and of the known configurations, some more than once."""
    known = (dict(suggestion.params) for suggestion in sweep.known_suggestions)
    for params in itertools.chain(known, itertools.islice(sweep.space.grid(), LOOKED_AT)):
        with contextlib.suppress(SweepError):  # that trial itself will say so
            yield _shape(sweep, params, images)


def asked(setup: Setup, job: Job, images: Resident) -> tuple[Shape, Inputs]:
    """The shape of the program that trains a job, and its inputs.

    Raises: BadInput for what is no network for these images, or one not compiled.
    """
    params = job.suggestion.params
    shape = _shape(setup.sweep, params, images)
    return images.programs.get(shape, shape), inputs_of(knobs.resolve(params), job.seed)


def _shape(sweep: Sweep, params: Params, images: Resident) -> Shape:
    return shape_in(
        sweep, params, image=images.shape, classes=images.classes, train=images.train, validation=images.validation
    )


class Keeper:
    """Keeps one job's lane on disk as it is trained, and finds it again."""

    def __init__(self, setup: Setup, job: Job) -> None:
        self._checkpoints = Checkpoints(Path(job.directory), identity(setup, job))
        self._epochs = job.suggestion.epochs
        self._kept = 0, time.monotonic()  # the epoch that the newest is of, and when it was written

    def keep(self, lanes: Lanes, lane: int, progress: Progress, seconds: float, at_once: bool = False) -> None:
        """Write the state after the epoch last measured, if the newest checkpoint is old enough or it must be `at_once`; not
        after the last of all, when there is nothing to go on with.

        seconds: what the job has taken so far, earlier attempts included.   Raises: OSError.
        """
        epoch, (kept, when) = progress.measurements[-1].epoch, self._kept
        if epoch in (kept, self._epochs) or not (at_once or time.monotonic() - when >= KEEP_SECONDS):
            return
        self._checkpoints.save(Checkpoint(epoch, progress.to_json(seconds), lanes.lane_state(lane)))
        self._kept = epoch, time.monotonic()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None; it need not be written again."""
        found = self._checkpoints.newest()
        if found is not None:
            self._kept = found.epoch, time.monotonic()
        return found

    def find(self, lanes: Lanes, lane: int, inputs: Inputs) -> Progress | None:
        """Give the lane the state of the newest checkpoint that is whole; None, and the lane as it was, where there is none."""
        found = self.newest()
        if found is None:
            return None
        try:
            lanes.resume_lane(lane, inputs, found.arrays)
        except ValueError as error:
            print(f"the checkpoint of epoch {found.epoch} is passed over: {error}")
            return None
        return Progress.from_json(found.progress)


def begin(lanes: Lanes, lane: int, job: Job, inputs: Inputs, keeper: Keeper | None) -> Progress | None:
    """Give a lane a job: from its checkpoint, whose progress is returned; else from its parent's weights; else from fresh ones.

    Raises: OSError for a parent's weights that are gone or torn, ValueError for those of another network.
    """
    found = None if keeper is None else keeper.find(lanes, lane, inputs)
    if found is None:
        lanes.set_lane(lane, inputs, None if job.start_from is None else load_arrays(job.start_from))
    return found


def next_epoch(job: Job, course: Course) -> int:
    """The epoch that the job trains next, from 1."""
    measured = course.progress.measurements
    return 1 + (measured[-1].epoch if measured else job.suggestion.initial_epoch)


def save_best(lanes: Lanes, lane: int, job: Job) -> None:
    """Write the weights of a job's best epoch into its directory.  Raises: OSError."""
    save_arrays(lanes.lane_weights(lane), Path(job.directory) / BEST_ARRAYS)
