"""Fused trials against plain Keras `fit`, one trial after another, on one device: the grid of the gray CIFAR-10 search.

    python -m benchmarks.gpu --data cifar10.npz            (Keras's layout: x_train, y_train; gray or RGB)
    python -m benchmarks.gpu --data synthetic              (made-up images of the same shape: no file needed)
    python -m benchmarks.gpu --data cifar10.npz --sweep    (also the grid through the real `sweep run`, all that it does included)
    python -m benchmarks.gpu --data synthetic --images 600 --epochs 1 --configs subset --baseline-trials 2 --batch 100

Both ways train the same configurations on the same images for the same epochs, with Keras's JAX backend. The fused way's
time holds everything after the imports: images to the device, all compilations, training, validation, and each trial's
best weights brought back. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np

from benchmarks import gpu_sweep
from imgclf_sweep.data.preprocess import Affine
from imgclf_sweep.models import knobs
from imgclf_sweep.sweep import Objective
from imgclf_sweep.training.lanes.conv import CONVS
from imgclf_sweep.training.lanes.lanes import Lanes, Program, Programs, to_device, use_cache
from imgclf_sweep.training.lanes.shape import Shape, inputs_of, shape_of

IMAGE, CLASSES, LOSS = (32, 32, 1), 10, "sparse_categorical_crossentropy"
SCALE = Affine((1 / 255,), (0.0,))
LAYERS = {"filters": (16, 32, 64), "dense_units": (256, 512), "pool_size": (2, 4)}  # 12 shapes
REST = {"dropout": (0.2, 0.5), "l1l2": (0.001, 0.01), "optimizer": ("adam", "sgd", "rmsprop")}  # 12 trials of each


@dataclass(frozen=True)
class Images:
    """uint8 (N, 32, 32, 1) and int64 (N,), train and held out."""

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray


def grid(configs: str) -> list[list[dict[str, Any]]]:
    """The configurations, in groups of one shape.  configs: "grid" for all 144, "subset" for the smallest and the largest."""
    shapes = [dict(zip(LAYERS, values, strict=True)) for values in itertools.product(*LAYERS.values())]
    if configs == "subset":
        shapes = [shapes[1], shapes[-2]]
    rest = [dict(zip(REST, values, strict=True)) for values in itertools.product(*REST.values())]
    return [[{"kernel_size": 2, **shape, **other} for other in rest] for shape in shapes]


def drawn(groups: Sequence[Sequence[dict[str, Any]]], count: int) -> list[tuple[int, int]]:
    """(group, trial) of `count` configurations spread evenly over the groups and within them."""
    return [(i * len(groups) // count, i * 5 % len(groups[0])) for i in range(count)]


def read(name: str, count: int) -> Images:
    """The first `count` images of a file, or made-up ones; the last fifth is held out."""
    x, y = synthetic(count) if name == "synthetic" else from_file(name, count)
    train = len(x) * 4 // 5
    return Images(x[:train], y[:train], x[train:], y[train:])


def from_file(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(name) as file:
        x, y = file["x_train"][:count], file["y_train"][:count].reshape(-1).astype(np.int64)
    if x.ndim == 4 and x.shape[-1] == 3:  # OpenCV's weights of red, green and blue
        x = np.rint(x @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    return x.reshape(-1, *IMAGE), y


def synthetic(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images like a blurred picture of their class under much noise, so that there is something to learn."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, count)
    pictures = random.normal(0, 18, (CLASSES, 8, 8)).repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    noise = random.normal(128, 60, (count, 32, 32)).astype(np.float32)
    return np.clip(pictures[y] + noise, 0, 255).astype(np.uint8)[..., None], y


def plain(chosen: Sequence[dict[str, Any]], images: Images, epochs: int, batch: int) -> list[tuple[float, float]]:
    """(seconds, last val_accuracy) of each configuration trained by Keras `fit`, building and tracing included."""
    import keras

    from imgclf_sweep.models.cnn import build_cnn

    x, held_x = SCALE.apply(images.x), SCALE.apply(images.held_x)
    found = []
    for seed, params in enumerate(chosen):
        began = time.perf_counter()
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = build_cnn(params, IMAGE, CLASSES, LOSS)
        validation = (held_x, images.held_y)
        history = model.fit(x, images.y, batch, epochs, verbose=0, validation_data=validation)
        model.get_weights()
        found.append((time.perf_counter() - began, history.history["val_accuracy"][-1]))
        print(
            f"  keras fit {seed + 1}/{len(chosen)}: {found[-1][0]:.2f} s, val_accuracy {found[-1][1]:.4f}", flush=True
        )
        del model, history
        gc.collect()
    return found


def fused(
    groups: Sequence[Sequence[dict[str, Any]]], images: Images, given: argparse.Namespace, conv: str
) -> tuple[dict[str, float], dict[tuple[int, int], float]]:
    """Times in seconds, and each trial's last val_accuracy by (group, trial)."""
    began = time.perf_counter()
    scores: dict[tuple[int, int], float] = {}
    training = compiling = ready = 0.0
    with Programs(conv, given.threads) as programs:
        waiting = {}
        for at in sorted(range(len(groups)), key=lambda at: -_size(_shape(groups[at][0], images, given.batch))):
            shape = _shape(groups[at][0], images, given.batch)
            waiting[programs.prepare(shape, min(given.lanes, len(groups[at])))] = at
        data = to_device(images.x, images.y, SCALE, (images.held_x, images.held_y))
        for future in as_completed(waiting):
            program, at = future.result(), waiting[future]
            started = time.perf_counter()
            scores.update(_train(program, at, groups[at], data, given.epochs))
            seconds = time.perf_counter() - started
            training += seconds
            compiling += program.seconds
            ready = max(ready, started - began)
            _print_program(program, groups[at], seconds, given.epochs)
    times = {"wall": time.perf_counter() - began, "train": training, "compile": compiling, "last_ready": ready}
    return times, scores


def _shape(params: dict[str, Any], images: Images, batch: int) -> Shape:
    parts = {"train": len(images.x), "validation": len(images.held_x)}
    return shape_of(knobs.resolve(params), image=IMAGE, classes=CLASSES, loss=LOSS, batch=batch, **parts)


def _size(shape: Shape) -> int:
    return shape.lane_bytes()


def _train(
    program: Program, group: int, trials: Sequence[dict[str, Any]], data: Any, epochs: int
) -> dict[tuple[int, int], float]:
    """All trials of one shape through the program's lanes, so many at a time."""
    lanes = Lanes(program, data, Objective("val_accuracy", "max"))
    scores = {}
    for first in range(0, len(trials), program.lanes):
        together = list(enumerate(trials[first : first + program.lanes]))
        for lane, params in together:
            lanes.set_lane(lane, inputs_of(knobs.resolve(params), 1000 * group + first + lane))
        for lane in set(lanes.active) - {lane for lane, _ in together}:
            lanes.stop_lane(lane)
        for _ in range(epochs):
            measured = lanes.epoch()
        for lane, _ in together:
            scores[group, first + lane] = measured[lane]["val_accuracy"]
            lanes.lane_weights(lane)
    return scores


def _print_program(program: Program, trials: Sequence[Any], seconds: float, epochs: int) -> None:
    shape = program.shape
    steps = shape.steps * epochs * -(-len(trials) // program.lanes)
    print(
        f"  filters {shape.filters[0]:2} dense {shape.dense_units} pool {shape.pool_size[0]} x{program.lanes} lanes: "
        f"compile {program.seconds:5.1f} s, train {seconds:6.2f} s ({1000 * seconds / steps:.2f} ms a step), "
        f"{program.device_bytes / 2**30:.2f} GiB (guess {shape.lane_bytes() * program.lanes / 2**30:.2f})",
        flush=True,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def agreement(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How far the two ways' val_accuracy lie apart on the same configurations: the mean difference and its standard error."""
    apart = [b - a for a, b in pairs]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
    return {"difference": statistics.fmean(apart), "standard_error": error}


def main() -> None:
    given = _arguments()
    if given.precision:
        jax.config.update("jax_default_matmul_precision", given.precision)
    if given.cache:
        use_cache(given.cache)
    images = read(given.data, given.images)
    groups = grid(given.configs)
    trials = sum(map(len, groups))
    swept = sweep_run(given, images) if given.sweep else None  # before this process takes the device's memory
    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}: {len(images.x)} + {len(images.held_x)} images of {given.data}")
    report: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, **vars(given), "trials": trials}
    chosen = drawn(groups, given.baseline_trials)
    base = plain([groups[g][t] for g, t in chosen], images, given.epochs, given.batch)
    if base:
        a_trial = statistics.fmean(seconds for seconds, _ in base)
        report["keras"] = {"seconds_a_trial": [s for s, _ in base], "trials_per_hour": 3600 / a_trial}
        print(f"keras fit: {a_trial:.2f} s a trial, {3600 / a_trial:.0f} trials an hour")
    for conv in given.conv.split(","):
        print(f"fused, conv={conv}:", flush=True)
        times, scores = fused(groups, images, given, conv)
        found: dict[str, Any] = {"seconds": times, "trials_per_hour": 3600 * trials / times["wall"]}
        print(
            f"fused, conv={conv}: {times['wall']:.1f} s for {trials} trials (training {times['train']:.1f}, last program "
            f"ready after {times['last_ready']:.1f}, {times['compile']:.1f} of compilation side by side), "
            f"{found['trials_per_hour']:.0f} trials an hour; val_accuracy {_spread(list(scores.values()))}"
        )
        if base:
            found["ratio"] = found["trials_per_hour"] / report["keras"]["trials_per_hour"]
            found |= agreement([(score, scores[at]) for (_, score), at in zip(base, chosen, strict=True)])
            print(
                f"  {found['ratio']:.1f} times keras fit; on the same {len(base)} configurations: keras "
                f"{_spread([score for _, score in base])}, fused {_spread([scores[at] for at in chosen])}, "
                f"difference {found['difference']:+.4f} +- {found['standard_error']:.4f}"
            )
        report[f"fused_{conv}"] = found
    if swept is not None:
        report["sweep_run"] = swept
        if base and given.configs == "grid" and sum(swept["trials"].values()) == trials:  # the same trials
            swept["ratio"] = swept["trials_per_hour"] / report["keras"]["trials_per_hour"]
            print(f"sweep run: {swept['ratio']:.1f} times keras fit")
    print(json.dumps(report))


def sweep_run(given: argparse.Namespace, images: Images) -> dict[str, Any]:
    """The grid through `sweep run`."""
    x, y = np.concatenate([images.x, images.held_x]), np.concatenate([images.y, images.held_y])
    parts = {"epochs": given.epochs, "batch": given.batch, "trials": given.sweep_trials, "seconds": given.sweep_seconds}
    found = gpu_sweep.run(x, y, lanes=given.sweep_lanes, **parts)
    found["trials_per_hour"] = 3600 * len(found["values"]) / found["wall"]
    print(
        f"sweep run: {found['wall']:.1f} s for {sum(found['trials'].values())} trials, {found['trials']}, of it "
        f"{found['training']:.1f} from the first one's start to the last one's end; {found['trials_per_hour']:.0f} trials an "
        f"hour; best val_accuracy of each {_spread(found['values'])}",
        flush=True,
    )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="synthetic", help="an .npz file in Keras's layout, or 'synthetic'")
    add("--images", type=int, default=50_000, help="images in all; a fifth is held out")
    add("--epochs", type=int, default=5)
    add("--batch", type=int, default=500)
    add("--lanes", type=int, default=12, help="trials trained as one program, at most")
    add("--configs", choices=("grid", "subset"), default="grid")
    add("--baseline-trials", type=int, default=6, help="trials of plain Keras fit; 0 leaves them out")
    add("--conv", default=CONVS[0], help=f"ways to compute convolutions, compared in turn: {','.join(CONVS)}")
    add("--precision", help="jax_default_matmul_precision, such as float32; by default TF32 on such a GPU")
    add("--threads", type=int, default=12, help="compilations side by side")
    add("--sweep", action="store_true", help="time the real `sweep run` of the grid too, first")
    add("--sweep-trials", type=int, default=144, help="configurations of the grid for it")
    add("--sweep-lanes", type=int, default=144, help="its --lanes")
    add("--sweep-seconds", type=float, default=3600, help="give it up after so many seconds")
    add("--cache", help="a directory for compiled programs; without it everything is compiled anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
