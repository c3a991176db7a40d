"""Which trainer a sweep has: one compiled JAX program for each shape of network, or Keras `fit`. Pure: neither is imported.

Decided once a sweep, before its workers start, from what is declared and installed alone; the record keeps it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import BadInput
from ..models import knobs
from ..models.shared_knobs import Augmentation
from ..space import Params, Value
from ..sweep import BuildFunction, Sweep
from ..text import printable
from .lanes_shape import LEARNING_RATES, Shape, may_augment, shape_of

FIT, COMPILED, AUTO = "fit", "compiled", "auto"
JAX_ON_GPU = ("jax_cuda12_plugin", "jax_cuda13_plugin")
SAMPLES = 50  # configurations that stand for a space
CLASSES = 10  # where a data set's are not known yet: they hardly matter here

STEP_SECONDS = 0.0065
FIT_RATES = 28e9, 38e9
COMPILED_RATES = 18e9, 8.5e9
"""What a step takes: Keras `fit` on TensorFlow a time whatever is in it; and either a time for each multiply-add, three times
those of the forward pass, at so many a second in convolutions of one channel and dense layers, and in all other convolutions.

From processor seconds of one thread for an epoch with its validation (AMD EPYC server, Linux), `fit` and compiled: digits,
18 steps of 64, filters 16 / dense 256: 0.143 and 0.009; 64 / 512: 0.155 and 0.060. MNIST, 4,000 images of a batch of 32, its
known configuration: 1.01 and 0.96. Gray CIFAR-10, 4,000 images of 500, 16 / 256: 0.61 and 0.84; 64 / 512: 3.4 and 4.2. Two
blocks (`cifar_gray`, known 0), 2,000 images: 0.88 and 2.4. Three blocks (`cifar_batchnorm`, known 0), 2,000: 0.62 and 1.7.
Two blocks on 100x100 pixels (`image_folder`, known 0), 512: 1.5 and 5.3.
The compiled times were taken before the gradient of one-channel convolutions was a product (`lanes_net`), and bound today's.

What comes once is left out: a worker without TensorFlow starts 5 s sooner, `fit` traces each trial for 1 to 1.5 s, and each
shape of network is compiled for 3 s, in the first sweep that has it.
"""


FIT_AUGMENT, FIT_SAMPLING, COMPILED_SAMPLING = 0.001, 21e-9, 30e-9
"""What augmentation adds to a step: in `fit` a time whatever it does, and one for each pixel and layer that interpolates;
compiled one for each pixel, whatever is asked for.

By the same measure, `fit` and compiled, with nothing, a flip, a rotation and all six: digits, 18 steps of 64, 16 / 256: 0.133,
0.155, 0.153, 0.163 and 0.007, 0.008, 0.008, 0.010. `cifar_augment`, 2,000 images of 32x32x3: 0.54, 0.57, 0.61, 0.75 and 0.89,
0.96, 1.03, 0.94.
"""


@dataclass(frozen=True)
class Chosen:
    """trainer: FIT or COMPILED.   line: which one and why not the other, for people; empty where there was nothing to choose."""

    trainer: str
    line: str = ""


def choose(asked: str, sweep: Sweep, gpu: bool) -> Chosen:
    """The trainer of a new sweep.   asked: AUTO, or a trainer by name.   gpu: whether workers will have an NVIDIA GPU.

    Raises: BadInput for COMPILED where it cannot train the sweep.
    """
    if asked not in (AUTO, COMPILED):
        return Chosen(asked)
    problem = unsuited(sweep) or missing()
    if asked == COMPILED:
        if problem:
            raise BadInput(f"--trainer compiled: {problem}")
        return Chosen(COMPILED)
    if not problem and gpu and not any(map(_installed, JAX_ON_GPU)):
        problem = "JAX is installed without its CUDA plugin, and there is a GPU (pip install 'jax[cuda12]')"
    if not problem and not gpu:
        problem = slower(sweep)
    if problem:
        return Chosen(FIT, f"trainer: Keras fit, not one compiled program: {problem}")
    return Chosen(COMPILED, "trainer: compiled (JAX), which is faster for such networks than Keras fit (--trainer fit)")


def missing() -> str | None:
    """What has to be installed, in a line."""
    return None if _installed("jax") else "JAX is not installed (pip install jax)"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def unsuited(sweep: Sweep) -> str | None:
    """Why the compiled program cannot train every configuration of the sweep, or None if it can."""
    if isinstance(sweep.model, BuildFunction) or callable(sweep.model):
        return "the model is a build(hp), of which only Keras knows what it does"
    if sweep.model != knobs.CNN.name:
        return f"the model is of the family {printable(sweep.model)}, not {knobs.CNN.name}"
    for value in _possible(sweep, "optimizer"):
        if value not in LEARNING_RATES:
            return f"optimizer {printable(value)} is not compiled, only {', '.join(LEARNING_RATES)}"
    return None


def _possible(sweep: Sweep, knob: str) -> Iterator[Value]:
    """What a knob may be in any trial, as far as it is not its default: of a range, both ends."""
    if knob in sweep.space:
        yield from sweep.space[knob].grid()
    yield from (s.params[knob] for s in sweep.known_suggestions if knob in s.params)


def configurations(sweep: Sweep) -> list[Params]:
    """Configurations that stand for a sweep's: those known, and some of its space, always the same ones."""
    rng = np.random.default_rng(0)
    known = [dict(s.params) for s in sweep.known_suggestions]
    return known[: sweep.trials] + [
        sweep.space.sample(rng) for _ in range(max(0, min(SAMPLES, sweep.trials - len(known))))
    ]


def slower(sweep: Sweep) -> str | None:
    """Why Keras `fit` is expected to be the faster on a processor, or None where it is not."""
    fit = compiled = 0.0
    for params in configurations(sweep):
        try:
            net = knobs.resolve(params)
            shape = shape_of(
                net,
                image=sweep.dataset.shape,
                classes=CLASSES,
                loss=sweep.loss,
                batch=sweep.batch_size,
                train=sweep.batch_size,
                validation=0,
                augmented=may_augment(sweep, params),
            )
        except BadInput:  # no network for these images: the trial will say so
            continue
        for times in (seconds(shape), augmenting(shape, net)):
            fit, compiled = fit + times[0], compiled + times[1]
    if compiled <= fit:
        return None
    return (
        f"on a processor its networks would take about {compiled / fit:.1f} times as long "
        "(--trainer compiled trains them all the same)"
    )


def seconds(shape: Shape) -> tuple[float, float]:
    """What a step of `shape` takes on a processor, about: in Keras `fit`, and compiled."""
    counts = [3 * shape.batch * count for count in multiply_adds(shape)]
    fit, compiled = (
        sum(n / rate for n, rate in zip(counts, rates, strict=True)) for rates in (FIT_RATES, COMPILED_RATES)
    )
    return STEP_SECONDS + fit, compiled


def augmenting(shape: Shape, net: Augmentation) -> tuple[float, float]:
    """What a step takes beside that where images are augmented, about: in Keras `fit` as `net` says, and compiled."""
    pixels = shape.batch * math.prod(shape.image[:2])
    fit = FIT_AUGMENT + FIT_SAMPLING * net.samplings * pixels if net.augmented else 0.0
    return fit, COMPILED_SAMPLING * pixels if shape.augmented else 0.0


def multiply_adds(shape: Shape) -> tuple[int, int]:
    """Of an image's forward pass: those of dense layers and convolutions of one channel; and those of all other convolutions."""
    plain, channels = 0, 0
    height, width, depth = shape.image
    for block, (h, w, filters) in enumerate(shape.features()):
        for _ in range(shape.convs[block]):
            height, width = shape.conv_output(block, height, width)
            count = height * width * shape.kernel_size[block] ** 2 * depth * filters
            plain, channels = (plain + count, channels) if depth == 1 else (plain, channels + count)
            depth = filters
        height, width = h, w
    return plain + (height * width * depth + shape.classes) * shape.dense_units, channels
