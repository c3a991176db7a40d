"""Training one candidate with Keras `fit`. Only worker processes, and tests, import this file: it loads the tensor library."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..data.cache import Prepared
from ..models.build import Builder, Built
from ..sweep import BuildFunction
from ..trial import Measurement, Outcome
from . import images
from .batches import Batches
from .course import Course
from .failures import classify, user_frames
from .features import features
from .protocol import Job, OnResume, Reply, Setup
from .resume import Keeper
from .weights import BEST, load_weights, save_weights

RECYCLE_AFTER = 20  # jobs; `fit` on TensorFlow leaks 6 to 12 MB a job, whatever is called
GPU_MEMORY = "IMGCLF_SWEEP_GPU_MEMORY"  # megabytes of the GPU this process may take, if it is not to have all


class FitTrainer:
    """Implements `Trainer`. Images are read and scaled once, at the first job, and kept for the next ones.

    On one machine's processor a job's numbers follow from its seed alone, also in another process, and also where it was
    interrupted and resumed in between.
    Raises: SweepError where the prepared data cannot be used.
    """

    def __init__(self, setup: Setup) -> None:
        Prepared.open(Path(setup.data))  # data that is gone is no trial's fault: say so before the first one
        self._setup = setup
        self._builder = Builder(setup.sweep)
        self._loaded: tuple[str, images.Images] | None = None
        self.recycle_after = RECYCLE_AFTER if keras.config.backend() == "tensorflow" else None
        _limit_gpu_memory()

    def train(
        self, job: Job, on_epoch: Callable[[Measurement], Reply], on_resume: OnResume | None = None
    ) -> Outcome | None:
        started = time.perf_counter()
        data = self._images(job.part)
        course = Course(self._setup.sweep.objective, job.part == "all")
        watch = Watch(course, on_epoch, None if on_resume is None else Keeper(self._setup, job, on_resume))
        found: dict[str, Any] = {}
        try:
            self._fit(job, data, course, watch, found)
        except Exception as error:
            if course.broken:
                raise
            model = self._setup.sweep.model
            file = model.file if isinstance(model, BuildFunction) else None
            course.failure = classify(error, course.began, file)
            course.frames = user_frames(error, file) if file else None
        finally:
            _forget()
        if course.reply is Reply.INTERRUPT:
            return None
        return course.outcome(course.progress.seconds + time.perf_counter() - started, found)

    def _fit(self, job: Job, data: images.Images, course: Course, watch: Watch, found: dict[str, Any]) -> None:
        """Build, train from where an earlier attempt left off, if one did, and keep the best weights. What `build(hp)` asked for
        anew is put into `found` at once, so that a failure later does not lose it."""
        keras.utils.clear_session()
        keras.utils.set_random_seed(job.seed)
        built = self._builder.build(job.suggestion.params, data.shape, data.classes)
        found.update(built.found)
        model = built.model
        fitted = model if built.frozen is None else built.frozen.head
        resumed = watch.resume(fitted)
        if job.start_from is not None and not resumed:
            load_weights(model, job.start_from)
        if course.reply is Reply.GO:
            given = self._given(job, data, built)
            watch.batches = given["x"]
            first = course.progress.measurements[-1].epoch if resumed else job.suggestion.initial_epoch
            fitted.fit(**given, epochs=job.suggestion.epochs, initial_epoch=first, verbose=0, callbacks=[watch])
        if course.progress.weights is not None and course.failure is None and course.reply is not Reply.INTERRUPT:
            fitted.set_weights(course.progress.weights)
            save_weights(model, Path(job.directory) / BEST)  # whole, also where only its head was fitted

    def _given(self, job: Job, data: images.Images, built: Built) -> dict[str, Any]:
        """What `fit` is given to train and validate on: images, or the kept features of a frozen backbone."""
        outputs, size = int(built.model.output_shape[-1]), self._setup.sweep.batch_size
        y = images.targets(data.y, outputs, built.sparse_labels)
        held_y = None if data.validation_y is None else images.targets(data.validation_y, outputs, built.sparse_labels)
        if built.frozen is None:
            held = None if held_y is None else (data.validation_x, held_y)
            x = Batches(data.x, None, y, size, job.seed)
            return {"x": x, "validation_data": held, "validation_batch_size": size, "shuffle": False}
        chosen = images.fitted(self._setup, job.part)
        kept = features(built.frozen.trunk, built.frozen.made_of, chosen, Path(self._setup.data).parent)
        held = None if chosen.validation is None else kept.batches(chosen.validation, held_y, size, None)
        return {"x": kept.batches(chosen.train, y, size, job.seed), "validation_data": held, "shuffle": False}

    def _images(self, part: str) -> images.Images:
        if self._loaded is None or self._loaded[0] != part:
            self._loaded = None  # free the other part before this one is scaled
            self._loaded = (part, images.load(self._setup, part))
        return self._loaded[1]


class Watch(keras.callbacks.Callback):
    """Measures each epoch, keeps the best weights in memory, and stops where the numbers or the reply say so."""

    async_safe = True  # `on_train_batch_end` may run in Keras's own thread: it only sets flags, so no step waits for it

    def __init__(self, course: Course, on_epoch: Callable[[Measurement], Reply], keeper: Keeper | None) -> None:
        super().__init__()
        self._course = course
        self._on_epoch = on_epoch
        self._keeper = keeper
        self._started = self._epoch_started = time.perf_counter()
        self.batches: Batches | None = None

    def resume(self, model: keras.Model) -> bool:
        """Give the model, and the course, the state that an earlier attempt left. Whether there was one."""
        found = None if self._keeper is None else self._keeper.find(model)
        if self._keeper is None or found is None:
            return False
        self._course.resume(found, self._keeper.on_resume)
        return True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.batches is not None:
            self.batches.begin(epoch)
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._course.began = True
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True  # the mean over the epoch stays so; the epoch's end says why

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        seconds = time.perf_counter() - self._epoch_started
        course = self._course
        measurement = course.heard(epoch + 1, _numbers(logs or {}), seconds)
        if measurement is None:
            self.model.stop_training = True
            return
        if course.progress.best_epoch == measurement.epoch:
            course.progress.weights = self.model.get_weights()
        if self._keeper is not None:
            spent = course.progress.seconds + time.perf_counter() - self._started
            self._keeper.keep(self.model, course.progress, spent)
        course.tell(self._on_epoch, measurement)
        if course.reply is not Reply.GO:
            self.model.stop_training = True


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Keras's logs as Python floats; a metric that is not one number (an F1 per class, say) is left out."""
    return {str(name): float(np.asarray(v).reshape(())) for name, v in logs.items() if np.size(v) == 1}


def _forget() -> None:
    """Let go of the model before the next one is built. TensorFlow still leaks 6 to 12 MB a trial, whatever is done."""
    keras.utils.clear_session()
    gc.collect()


def _limit_gpu_memory() -> None:
    """Let TensorFlow take GPU memory as it needs it, up to this worker's share where several have one GPU; by default it takes
    all there is, and a second worker finds none."""
    if keras.config.backend() != "tensorflow":
        return
    import tensorflow

    share = os.environ.get(GPU_MEMORY)
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # already in use: then the environment has decided
            if share is None:
                tensorflow.config.experimental.set_memory_growth(gpu, True)
            else:
                limit = tensorflow.config.LogicalDeviceConfiguration(memory_limit=int(share))
                tensorflow.config.set_logical_device_configuration(gpu, [limit])
