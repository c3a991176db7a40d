"""What an epoch of training takes in Keras `fit` and compiled, network by network: what `training/lanes/rates.py` rests on.

    python -m benchmarks.epochs                             all networks: 5 minutes of an otherwise idle machine
    python -m benchmarks.epochs --networks "six 64/512/2" mnist --repeat 5

Seconds of the processor in one thread: the least of --repeat epochs after a first one, which traces or compiles. Images and
labels are random, as the time does not depend on them; nothing is validated, logged or kept. A fresh process for each number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgclf_sweep.cores import cores
from imgclf_sweep.executors.devices import NO_GPU, worker_environments

from .machine import machine_line

LOSS = "sparse_categorical_crossentropy"
ONE_THREAD = worker_environments(max(2, cores()), [])[0] | NO_GPU | {"TF_CPP_MIN_LOG_LEVEL": "3"}
"""What one of as many workers as there are cores sees."""


@dataclass(frozen=True)
class Network:
    """One configuration on `count` images (H, W, C), in batches of `batch`."""

    image: tuple[int, int, int]
    count: int
    batch: int
    params: dict[str, Any]


def six(filters: int, units: int, pool: int, image: tuple[int, int, int], count: int, batch: int) -> Network:
    """A network of `cifar_gray`'s six knobs."""
    rest = {"kernel_size": 2, "dropout": 0.3, "l1l2": 0.002}
    return Network(image, count, batch, {"filters": filters, "dense_units": units, "pool_size": pool, **rest})


GRAY, COLOUR = (32, 32, 1), (32, 32, 3)
NETWORKS = {
    "digits 16/256/2": six(16, 256, 2, (8, 8, 1), 1152, 64),
    "digits 64/512/2": six(64, 512, 2, (8, 8, 1), 1152, 64),
    "six 16/256/2": six(16, 256, 2, GRAY, 4000, 500),
    "six 32/256/4": six(32, 256, 4, GRAY, 4000, 500),
    "six 64/512/2": six(64, 512, 2, GRAY, 4000, 500),
    "cifar_gray known 0": Network(
        GRAY, 2000, 500, {"filters": [64, 32], "kernel_size": 2, "padding": "same", "dense_units": 256}
    ),
    "cifar_gray known 1": Network(
        GRAY,
        1000,
        500,
        {
            "filters": [64, 128, 256],
            "kernel_size": 2,
            "padding": "same",
            "l2": 1e-4,
            "dropout": 0.2,
            "dense_units": 512,
        },
    ),
    "mnist": Network((28, 28, 1), 4000, 32, {"filters": 32, "dense_units": 100, "optimizer": "sgd", "momentum": 0.9}),
    "cifar_augment": Network(
        COLOUR, 2000, 64, {"filters": [32, 32, 64], "dense_units": 64, "dense_dropout": 0.5, "optimizer": "rmsprop"}
    ),
    "cifar_batchnorm known 0": Network(
        COLOUR, 2000, 128, {"filters": [16, 32, 64], "padding": "same", "dense_units": 128}
    ),
    "image_folder": Network((100, 100, 3), 512, 64, {"filters": [32, 32], "dense_units": 64}),
}


def fit_epochs(network: Network, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    """A function that trains an epoch in Keras."""
    from imgclf_sweep.models.cnn import build_cnn

    model = build_cnn(network.params, network.image, 10, LOSS)
    scaled = x.astype(np.float32) / 255
    return lambda: model.fit(scaled, y, batch_size=network.batch, verbose=0)


def compiled_epochs(network: Network, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    """A function that trains an epoch in the compiled program."""
    from imgclf_sweep.data.preprocess import Affine
    from imgclf_sweep.models import knobs
    from imgclf_sweep.sweep import Objective
    from imgclf_sweep.training.lanes.lanes import Lanes, compile_program, to_device
    from imgclf_sweep.training.lanes.shape import inputs_of, shape_of

    net, channels = knobs.resolve(network.params), network.image[2]
    parts = {"batch": network.batch, "train": network.count, "validation": 0}
    program = compile_program(shape_of(net, image=network.image, classes=10, loss=LOSS, **parts), 1)
    lanes = Lanes(
        program, to_device(x, y, Affine((1 / 255,) * channels, (0.0,) * channels)), Objective("accuracy", "max")
    )
    lanes.set_lane(0, inputs_of(net, seed=1))
    return lanes.epoch


TRAINERS = {"fit": fit_epochs, "compiled": compiled_epochs}


def measure(trainer: str, name: str, repeat: int) -> tuple[float, float]:
    """Seconds to build, trace or compile and train once; and of the quickest epoch after it."""
    network, random = NETWORKS[name], np.random.default_rng(0)
    x = random.integers(0, 256, (network.count, *network.image), np.uint8)
    y = random.integers(0, 10, network.count)
    began = time.process_time()
    epoch = TRAINERS[trainer](network, x, y)
    epoch()
    first, seconds = time.process_time() - began, []
    for _ in range(repeat):
        began = time.process_time()
        epoch()
        seconds.append(time.process_time() - began)
    return first, min(seconds)


def elsewhere(trainer: str, name: str, repeat: int) -> tuple[float, float]:
    """`measure` in a process of its own, with one thread."""
    command = [sys.executable, "-m", "benchmarks.epochs", "--one", trainer, "--networks", name, "--repeat", str(repeat)]
    done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    first, least = json.loads(done.stdout.splitlines()[-1])
    return first, least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", choices=list(TRAINERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.networks[0], given.repeat)))
        return
    print(machine_line())
    print("| network | images, batch | fit | compiled | fit / compiled | compiling, with a first epoch |")
    print("|---|---|---|---|---|---|")
    for name in given.networks:
        (_, fit), (first, compiled) = (elsewhere(trainer, name, given.repeat) for trainer in TRAINERS)
        images = f"{NETWORKS[name].count:,} of {'x'.join(map(str, NETWORKS[name].image))}, {NETWORKS[name].batch}"
        print(f"| {name} | {images} | {fit:.3f} | {compiled:.3f} | {fit / compiled:.2f} | {first:.1f} |", flush=True)


if __name__ == "__main__":
    main()
