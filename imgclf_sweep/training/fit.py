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
from ..sweep import BuildFunction, Objective
from ..text import listed
from ..trial import Kind, Measurement, Outcome, State
from . import images
from .batches import Batches
from .failures import classify, user_frames
from .features import features
from .protocol import Job, OnResume, Reply, Setup
from .resume import Keeper, Progress
from .weights import BEST, load_weights, save_weights

LOSSES = ("loss", "val_loss")
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
        watch = Watch(self._setup.sweep.objective, job.part == "all", on_epoch)
        watch.keeper = None if on_resume is None else Keeper(self._setup, job, on_resume)
        found: dict[str, Any] = {}
        try:
            self._fit(job, data, watch, found)
        except Exception as error:
            if watch.broken:  # the coordinator's end failed, not the trial
                raise
            model = self._setup.sweep.model
            file = model.file if isinstance(model, BuildFunction) else None
            watch.failure = classify(error, watch.began, file)
            watch.frames = user_frames(error, file) if file else None
        finally:
            _forget()
        if watch.reply is Reply.INTERRUPT:
            return None
        return watch.outcome(watch.progress.seconds + time.perf_counter() - started, found)

    def _fit(self, job: Job, data: images.Images, watch: Watch, found: dict[str, Any]) -> None:
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
        if watch.reply is Reply.GO:
            given = self._given(job, data, built)
            watch.batches = given["x"]
            first = watch.progress.measurements[-1].epoch if resumed else job.suggestion.initial_epoch
            fitted.fit(**given, epochs=job.suggestion.epochs, initial_epoch=first, verbose=0, callbacks=[watch])
        if watch.progress.weights is not None and watch.failure is None and watch.reply is not Reply.INTERRUPT:
            fitted.set_weights(watch.progress.weights)
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
    """Measures each epoch, keeps the best weights in memory, and stops where the numbers or the reply say so.

    last_counts: the last epoch is the best one (there is no validation part to choose by).
    """

    async_safe = True  # `on_train_batch_end` may run in Keras's own thread: it only sets flags, so no step waits for it

    def __init__(self, objective: Objective, last_counts: bool, on_epoch: Callable[[Measurement], Reply]) -> None:
        super().__init__()
        self._objective = objective
        self._last_counts = last_counts
        self._metric = objective.metric.removeprefix("val_") if last_counts else objective.metric
        self._on_epoch = on_epoch
        self._started = self._epoch_started = time.perf_counter()
        self.keeper: Keeper | None = None
        self.batches: Batches | None = None
        self.progress = Progress()
        self.began = False
        self.broken = False
        self.failure: tuple[Kind, str] | None = None
        self.frames: str | None = None  # of the user's code, where it raised
        self.reply = Reply.GO
        self.epochs = 0

    def resume(self, model: keras.Model) -> bool:
        """Give the model, and this, the state that an earlier attempt left. Whether there was one."""
        found = None if self.keeper is None else self.keeper.find(model)
        if self.keeper is None or found is None:
            return False
        self.progress, self.epochs = found, len(found.measurements)
        try:
            self.reply = self.keeper.on_resume(found.measurements)
        except BaseException:
            self.broken = True
            raise
        return True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.batches is not None:
            self.batches.begin(epoch)
        self._epoch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.began = True
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True  # the mean over the epoch stays so; the epoch's end says why

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        seconds = time.perf_counter() - self._epoch_started
        self.began = True
        self.epochs += 1
        metrics = _numbers(logs or {})
        self.failure = self._problem(epoch + 1, metrics)
        if self.failure is not None:
            self.model.stop_training = True
            return
        self._keep(epoch + 1, metrics.get(self._metric))
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.progress.measurements.append(Measurement(epoch + 1, finite, seconds))
        if self.keeper is not None:
            spent = self.progress.seconds + time.perf_counter() - self._started
            self.keeper.keep(self.model, self.progress, spent)
        try:
            self.reply = self._on_epoch(self.progress.measurements[-1])
        except BaseException:
            self.broken = True
            raise
        if self.reply is not Reply.GO:
            self.model.stop_training = True

    def _problem(self, epoch: int, metrics: Mapping[str, float]) -> tuple[Kind, str] | None:
        for name in (*LOSSES, self._metric):
            if name in metrics and not math.isfinite(metrics[name]):
                before = self.progress.last
                last = f"; {self._metric} was {before[1]:.6g} in epoch {before[0]}" if before else ""
                return Kind.DIVERGED, f"{name} is {metrics[name]} in epoch {epoch}{last}"
        if self._metric not in metrics and not self._last_counts:
            return Kind.ERROR, f"objective '{self._metric}' is not measured; this model measures: {listed(metrics)}"
        return None

    def _keep(self, epoch: int, value: float | None) -> None:
        progress = self.progress
        if value is not None:
            progress.last = (epoch, value)
        if self._last_counts or (value is not None and self._objective.better(value, progress.best)):
            progress.best, progress.best_epoch, progress.weights = value, epoch, self.model.get_weights()

    def outcome(self, seconds: float, found: Mapping[str, Any]) -> Outcome:
        """How the trial ended, from all that was seen."""
        if self.failure is None and self.progress.weights is None:
            self.failure = (Kind.ERROR, "no epoch was trained")
        if self.failure is not None:
            kind, reason = self.failure
            ended = State.FAILED, None, None, self.epochs, seconds
            return Outcome(*ended, kind=kind, reason=reason, found=found, frames=self.frames)
        pruned = self.reply is Reply.PRUNE
        return Outcome(
            State.PRUNED if pruned else State.COMPLETE,
            value=self.progress.best,
            epoch=self.progress.best_epoch,
            epochs=self.epochs,
            seconds=seconds,
            reason="stopped by the pruner" if pruned else None,
            found=found,
        )


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
