"""Training one candidate of the "cnn" family as one compiled JAX program. Only worker processes, and tests, import this file.

Neither Keras nor TensorFlow is imported: JAX is there in 0.5 s, TensorFlow in 5 s, and a worker needs half of the memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..data.cache import Prepared
from ..trial import Measurement, Outcome
from .course import Course
from .failures import classify
from .lanes.lanes import Lanes, Programs
from .lanes.state import Keeper, Resident, asked, begin, next_epoch, resident, save_best
from .protocol import Compilations, Job, OnResume, Reply, Setup

CACHE = "compiled"  # the folder of compiled programs, beside the prepared images


class CompiledTrainer:
    """Implements `Trainer` with a single lane of `training.lanes.lanes`. Trials of one shape share a program; memory stays flat.

    On one machine's processor a job's numbers follow from its seed and the declared sweep, also in another process, and also
    where it was interrupted and resumed in between. They are those of Keras `fit` but for rounding and the random numbers drawn.
    Raises: SweepError where the prepared data cannot be used.
    """

    def __init__(self, setup: Setup) -> None:
        Prepared.open(Path(setup.data))  # data that is gone is no trial's fault: say so before the first one
        self._setup = setup
        self._programs = Programs(threads=1, cache=Path(setup.data).parent / CACHE)
        self._resident: Resident | None = None
        self.recycle_after: int | None = None

    def train(
        self, job: Job, on_epoch: Callable[[Measurement], Reply], on_resume: OnResume | None = None
    ) -> Outcome | None:
        started = time.perf_counter()
        course = Course(self._setup.sweep.objective, job.part == "all")
        images = self._images(job.part)
        try:
            self._train(job, images, course, on_epoch, on_resume, started)
        except Exception as error:
            if course.broken:
                raise
            course.failure = classify(error, course.began)
        if course.reply is Reply.INTERRUPT and course.failure is None:
            return None
        return course.outcome(course.progress.seconds + time.perf_counter() - started, {})

    def _train(
        self,
        job: Job,
        images: Resident,
        course: Course,
        on_epoch: Callable[[Measurement], Reply],
        on_resume: OnResume | None,
        started: float,
    ) -> None:
        """Train from where an earlier attempt left off, if one did, and keep the best weights."""
        shape, inputs = asked(self._setup, job, images)
        lanes = Lanes(self._programs.prepare(shape, 1).result(), images.data, self._setup.sweep.objective)
        keeper = None if on_resume is None else Keeper(self._setup, job)
        found = begin(lanes, 0, job, inputs, keeper)
        if found is not None and on_resume is not None:
            course.resume(found, on_resume)
        for epoch in range(next_epoch(job, course), job.suggestion.epochs + 1):
            if course.reply is not Reply.GO:
                break
            course.began, began = True, time.perf_counter()
            metrics = lanes.epoch()[0]
            assert metrics is not None
            measurement = course.heard(epoch, metrics, time.perf_counter() - began)
            if measurement is None:
                return
            spent = course.progress.seconds + time.perf_counter() - started
            if keeper is not None:
                keeper.keep(lanes, 0, course.progress, spent)
            course.tell(on_epoch, measurement)
            if keeper is not None and course.reply is Reply.INTERRUPT:
                keeper.keep(lanes, 0, course.progress, spent, at_once=True)
        if course.progress.best_epoch is not None and course.reply is not Reply.INTERRUPT:
            save_best(lanes, 0, job)

    @property
    def compilations(self) -> Compilations:
        return self._programs.compilations

    def _images(self, part: str) -> Resident:
        if self._resident is None or self._resident.part != part:
            self._resident = None  # free the other part's memory before this one takes its own
            self._resident = resident(self._setup, part)
        return self._resident
