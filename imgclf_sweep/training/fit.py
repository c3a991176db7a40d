"""Training one candidate with Keras `fit`. Only worker processes, and tests, import this file: it loads the tensor library."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..data.cache import Prepared
from ..models.build import Builder
from ..sweep import BuildFunction, Objective
from ..text import listed
from ..trial import Kind, Measurement, Outcome, State
from . import images
from .failures import classify
from .protocol import Job, Reply, Setup
from .weights import BEST, load_weights, save_weights

LOSSES = ("loss", "val_loss")


class FitTrainer:
    """Implements `Trainer`. Images are read and scaled once, at the first job, and kept for the next ones.

    On one machine's processor a job's numbers follow from its seed alone, also in another process.
    Raises: SweepError where the prepared data cannot be used.
    """

    def __init__(self, setup: Setup) -> None:
        Prepared.open(Path(setup.data))  # data that is gone is no trial's fault: say so before the first one
        self._setup = setup
        self._builder = Builder(setup.sweep)
        self._loaded: tuple[str, images.Images] | None = None
        _grow_gpu_memory()

    def train(self, job: Job, on_epoch: Callable[[Measurement], Reply]) -> Outcome | None:
        started = time.perf_counter()
        data = self._images(job.part)
        watch = Watch(self._setup.sweep.objective, job.part == "all", on_epoch)
        found: dict[str, Any] = {}
        try:
            self._fit(job, data, watch, found)
        except Exception as error:
            if watch.broken:  # the coordinator's end failed, not the trial
                raise
            model = self._setup.sweep.model
            file = model.file if isinstance(model, BuildFunction) else None
            watch.failure = classify(error, watch.began, file)
        finally:
            _forget()
        if watch.reply is Reply.INTERRUPT:
            return None
        return watch.outcome(time.perf_counter() - started, found)

    def _fit(self, job: Job, data: images.Images, watch: Watch, found: dict[str, Any]) -> None:
        """Build, train and keep the best weights. What `build(hp)` asked for anew is put into `found` at once, so that a
        failure later does not lose it."""
        keras.utils.clear_session()
        keras.utils.set_random_seed(job.seed)
        built = self._builder.build(job.suggestion.params, data.shape, data.classes)
        found.update(built.found)
        model = built.model
        if job.start_from is not None:
            load_weights(model, job.start_from)
        outputs = int(model.output_shape[-1])
        validation = None
        if data.validation_x is not None:
            validation = (data.validation_x, images.targets(data.validation_y, outputs, built.sparse_labels))
        model.fit(
            data.x,
            images.targets(data.y, outputs, built.sparse_labels),
            validation_data=validation,
            epochs=job.suggestion.epochs,
            initial_epoch=job.suggestion.initial_epoch,
            batch_size=self._setup.sweep.batch_size,
            shuffle=True,
            verbose=0,
            callbacks=[watch],
        )
        if watch.weights is not None and watch.failure is None and watch.reply is not Reply.INTERRUPT:
            model.set_weights(watch.weights)
            save_weights(model, Path(job.directory) / BEST)

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
        self._epoch_started = 0.0
        self._last: tuple[int, float] | None = None  # the last epoch that was finite, and its objective
        self.began = False
        self.broken = False
        self.failure: tuple[Kind, str] | None = None
        self.reply = Reply.GO
        self.epochs = 0
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.weights: list[np.ndarray] | None = None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
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
        try:
            self.reply = self._on_epoch(Measurement(epoch + 1, finite, seconds))
        except BaseException:
            self.broken = True
            raise
        if self.reply is not Reply.GO:
            self.model.stop_training = True

    def _problem(self, epoch: int, metrics: Mapping[str, float]) -> tuple[Kind, str] | None:
        for name in (*LOSSES, self._metric):
            if name in metrics and not math.isfinite(metrics[name]):
                last = f"; {self._metric} was {self._last[1]:.6g} in epoch {self._last[0]}" if self._last else ""
                return Kind.DIVERGED, f"{name} is {metrics[name]} in epoch {epoch}{last}"
        if self._metric not in metrics and not self._last_counts:
            return Kind.ERROR, f"objective '{self._metric}' is not measured; this model measures: {listed(metrics)}"
        return None

    def _keep(self, epoch: int, value: float | None) -> None:
        if value is not None:
            self._last = (epoch, value)
        if self._last_counts or (value is not None and self._objective.better(value, self.best)):
            self.best, self.best_epoch, self.weights = value, epoch, self.model.get_weights()

    def outcome(self, seconds: float, found: Mapping[str, Any]) -> Outcome:
        """How the trial ended, from all that was seen."""
        if self.failure is None and self.weights is None:
            self.failure = (Kind.ERROR, "no epoch was trained")
        if self.failure is not None:
            kind, reason = self.failure
            return Outcome(State.FAILED, epochs=self.epochs, seconds=seconds, kind=kind, reason=reason, found=found)
        pruned = self.reply is Reply.PRUNE
        return Outcome(
            State.PRUNED if pruned else State.COMPLETE,
            value=self.best,
            epoch=self.best_epoch,
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


def _grow_gpu_memory() -> None:
    """Let TensorFlow take GPU memory as it needs it; by default it takes all there is, and a second worker finds none."""
    if keras.config.backend() != "tensorflow":
        return
    import tensorflow

    for gpu in tensorflow.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # already in use: then the environment has decided
            tensorflow.config.experimental.set_memory_growth(gpu, True)
