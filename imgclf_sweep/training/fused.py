"""Training many candidates of the "cnn" family at a time: those of one shape side by side as one compiled JAX program.

Only worker processes, and tests, import this file. Neither Keras nor TensorFlow is imported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import jax
import numpy as np

from ..cores import cores
from ..data.cache import Prepared
from ..trial import Measurement, Outcome
from .compiled import CACHE
from .course import Course, Progress
from .failures import classify
from .lanes.groups import SIZES, Group, Place, best_of, checkpoint, merge, size_for, state_bytes
from .lanes.init import fresh
from .lanes.lanes import Program, Programs, is_state
from .lanes.shape import Inputs, Shape
from .lanes.state import Keeper, Resident, asked, next_epoch, resident
from .lanes.wide import own
from .protocol import Compilations, Job, Paused, Reply, Setup
from .weights import BEST_ARRAYS, load_arrays, save_arrays

KEEPING = 0.05  # of the time may be spent on checkpoints, which pile up: those of many lanes are as many gigabytes
MEMORY_PART = 0.85  # of the device's memory that lanes may take, by our estimate
COMPILERS = 16  # programs compiled side by side, at most
WRITERS = 4  # threads that draw fresh weights and write the best ones


class FusedTrainer:
    """Implements `LaneTrainer` with `training.lanes.lanes`. Each lane's numbers are those of the same job trained alone by
    `CompiledTrainer`, up to rounding.

    A job whose shape is being trained goes into a free lane; those without one share a new program. Where the device's memory
    does not hold them all, the last wait until others have ended. All that is decided by the jobs and their order alone.
    ahead: compile programs for the other shapes of the search space too, while the first are trained; default: on a GPU,
    where that takes nothing from the training.
    Raises: SweepError where the prepared data cannot be used.
    """

    def __init__(self, setup: Setup, ahead: bool | None = None) -> None:
        Prepared.open(Path(setup.data))  # data that is gone is no trial's fault: say so before the first one
        self.lanes, self.recycle_after = setup.lanes, None
        self._setup = setup
        self._room = _device_bytes()
        self._programs = Programs(threads=min(COMPILERS, cores()), cache=Path(setup.data).parent / CACHE)
        self._threads = ThreadPoolExecutor(WRITERS, "weights")
        self._resident: Resident | None = None
        self._places: dict[int, Place] = {}  # by lane
        self._groups: list[Group] = []  # those that hold a job
        self._sizes: dict[Shape, set[int]] = {}  # of the programs made
        self._ahead = jax.default_backend() != "cpu" if ahead is None else ahead
        self._began, self._keeping = time.perf_counter(), 0.0

    @property
    def compilations(self) -> Compilations:
        return self._programs.compilations

    # -- a job's beginning -------------------------------------------------------------------------------------------

    def begin(self, lane: int, job: Job) -> Sequence[Measurement] | Outcome | None:
        started = time.perf_counter()
        course = Course(self._setup.sweep.objective, job.part == "all")
        images = self._images(job.part)
        keeper = Keeper(self._setup, job)
        try:
            shape, inputs = asked(self._setup, job, images)
            found = keeper.newest()
            if found is not None and not is_state(shape, found.arrays):
                print(f"the checkpoint of epoch {found.epoch} is passed over: its arrays are not the network's")
                found = None
            weights = None if found else self._weights(job, shape, inputs)
        except Exception as error:
            course.failure = classify(error, began=False)
            return course.outcome(time.perf_counter() - started, {})
        self._places[lane] = Place(lane, job, shape, inputs, course, keeper, started, found, weights)
        if found is None:
            return None
        progress = Progress.from_json(found.progress)
        course.resume(progress, lambda measurements: Reply.GO)
        return progress.measurements

    def _weights(self, job: Job, shape: Shape, inputs: Inputs) -> Future[Sequence[np.ndarray]]:
        """What a job starts from: its parent's weights, or fresh ones, which take a while to draw."""
        if job.start_from is None:
            return self._threads.submit(fresh, own(shape, inputs), inputs.initializer, inputs.seed)
        given: Future[Sequence[np.ndarray]] = Future()
        weights = load_arrays(job.start_from)
        if [w.shape for w in weights] != [v.shape for v in own(shape, inputs).variables()]:
            raise ValueError(f"the weights are of another network: {job.start_from}")
        given.set_result(weights)
        return given

    def _images(self, part: str) -> Resident:
        if self._resident is None or self._resident.part != part:
            self._resident = None  # free the other part's memory before this one takes its own
            self._resident = resident(self._setup, part)
        return self._resident

    # -- a round -----------------------------------------------------------------------------------------------------

    def epoch(self) -> Sequence[tuple[int, Measurement | Outcome]]:
        began = time.perf_counter()
        self._settle()
        told: dict[int, dict[str, float] | Exception] = {}
        for group, error in list(self._start()):
            told |= self._result(group, error)
        seconds = time.perf_counter() - began
        found = {lane: self._heard(self._places[lane], told[lane], seconds) for lane in sorted(told)}
        found |= self._write([self._places[lane] for lane, result in found.items() if isinstance(result, Measurement)])
        return list(found.items())

    def _settle(self) -> None:
        """Give every waiting job a lane, if there is room."""
        by_shape: dict[Shape, list[Group]] = {}
        for group in self._groups:
            by_shape.setdefault(group.shape, []).append(group)
        self._groups = [group for groups in by_shape.values() for group in merge(groups)]
        waiting: dict[Shape, list[Place]] = {}
        for _, place in sorted(self._places.items()):
            if place.group is None:
                waiting.setdefault(place.shape, []).append(place)
        for shape, places in waiting.items():
            for group in self._groups:
                while group.shape == shape and group.free and places:
                    group.take(places.pop(0))
            self._open(shape, places)
        if self._ahead and self._sizes:
            self._compile_ahead()

    def _open(self, shape: Shape, places: list[Place]) -> None:
        """Programs for them, of as many lanes as there are, or as fit; what does not fit waits, but one always trains."""
        made = self._sizes.setdefault(shape, set())
        while places:
            count = len(places)
            while count > 1 and not self._fits(shape, size_for(count, made)):
                count = max(size for size in SIZES if size < count)
            size = size_for(count, made) if self._fits(shape, size_for(count, made)) else 1
            if self._groups and not self._fits(shape, size):
                return
            group = Group(shape, size, self._program(shape, size))
            self._groups.append(group)
            for place in places[:count]:
                group.take(place)
            del places[:count]

    def _fits(self, shape: Shape, size: int) -> bool:
        """Whether a group more has room: all groups' states do, and twice what the largest works with. They take turns on the
        device, which hands a program's working memory to the next."""
        if self._room is None:
            return True
        needs = [(size, shape), *((group.size, group.shape) for group in self._groups)]
        states = sum(size * state_bytes(shape) for size, shape in needs)
        return states + 2 * max(size * (shape.lane_bytes() - state_bytes(shape)) for size, shape in needs) <= self._room

    def _program(self, shape: Shape, size: int) -> Future[Program]:
        self._sizes.setdefault(shape, set()).add(size)
        return self._programs.prepare(shape, size)

    def _compile_ahead(self) -> None:
        """The space's other shapes, for as many lanes as most of those that came first have."""
        self._ahead = False
        sizes = [size for made in self._sizes.values() for size in made]
        size = max(set(sizes), key=lambda size: (sizes.count(size), size))
        for shape in dict.fromkeys(self._images("train").programs.values()):
            if not self._sizes.get(shape):
                self._program(shape, size)

    def _start(self) -> Iterator[tuple[Group, Exception | None]]:
        """Set all groups to work, each as soon as its program is compiled: none waits for another's."""
        assert self._resident is not None
        pending = list(self._groups)
        while pending:
            wait([group.program for group in pending], return_when=FIRST_COMPLETED)
            for group in [group for group in pending if group.program.done()]:
                pending.remove(group)
                try:
                    group.start(self._resident.data, self._setup.sweep.objective)
                    yield group, None
                except Exception as error:
                    yield group, error

    def _result(self, group: Group, error: Exception | None) -> dict[int, dict[str, float] | Exception]:
        """What the round brought to each lane of a group: its metrics, or what went wrong with them all."""
        if error is None:
            try:
                return {place.lane: metrics for place, metrics in group.metrics()}
            except Exception as late:  # a device fails when it is waited for
                error = late
        self._groups.remove(group)
        return {place.lane: error for place in group.places.values()}

    def _heard(self, place: Place, told: dict[str, float] | Exception, seconds: float) -> Measurement | Outcome:
        course = place.course
        if isinstance(told, Exception):
            return self._failed(place, told)
        measurement = course.heard(next_epoch(place.job, course), told, seconds)
        return self._left(place) if measurement is None else measurement

    def _write(self, places: Sequence[Place]) -> dict[int, Outcome]:
        """The best weights of jobs that were in their last epoch, and checkpoints of others: the oldest first, and as many as
        the time allows that may be spent so. The outcomes of those for which that failed."""
        failed = {}
        started = time.perf_counter()
        for place in sorted(places, key=lambda place: place.kept):
            now = time.perf_counter()
            try:
                if _is_over(place):
                    assert place.group is not None
                    best, path = place.group.lanes.lane_weights(place.at), Path(place.job.directory) / BEST_ARRAYS
                    place.saved = self._threads.submit(save_arrays, best, path)
                    started += time.perf_counter() - now
                elif self._keeping + now - started <= KEEPING * (now - self._began):
                    checkpoint(place)
            except Exception as error:
                failed[place.lane] = self._failed(place, error)
        self._keeping += time.perf_counter() - started
        return failed

    # -- a job's end -------------------------------------------------------------------------------------------------

    def reply(self, lane: int, reply: Reply) -> Outcome | Paused | None:
        place = self._places[lane]
        place.course.reply = reply
        if reply is Reply.GO and not _is_over(place):
            return None
        try:
            if reply is Reply.INTERRUPT:
                if place.group is not None:
                    checkpoint(place, at_once=True)
                self._left(place)
                return Paused()
            self._save_best(place)
        except Exception as error:
            return self._failed(place, error)
        return self._left(place)

    def _save_best(self, place: Place) -> None:
        if place.saved is not None:
            place.saved.result()
            return
        best = best_of(place) if place.group is None else place.group.lanes.lane_weights(place.at)
        save_arrays(best, Path(place.job.directory) / BEST_ARRAYS)

    def _failed(self, place: Place, error: Exception) -> Outcome:
        place.course.failure = classify(error, place.course.began)
        return self._left(place)

    def _left(self, place: Place) -> Outcome:
        """Free its lane. How it ended."""
        del self._places[place.lane]
        if place.group is not None:
            place.group.leave(place)
        course = place.course
        return course.outcome(course.progress.seconds + time.perf_counter() - place.started, {})


def _is_over(place: Place) -> bool:
    """Whether it has measured its last epoch."""
    return next_epoch(place.job, place.course) > place.job.suggestion.epochs


def _device_bytes() -> int | None:
    """What the lanes may take of the device's memory; None of a processor, whose memory is everybody's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else int(MEMORY_PART * (limit - stats.get("bytes_in_use", 0)))
