"""What a step of training takes on a processor, in Keras `fit` and compiled, as measured. Pure values."""

from __future__ import annotations

import math

from ...models.shared_knobs import Augmentation
from .shape import Shape

STEP_SECONDS = 0.001
FIT_RATES = 72e9, 83e9
FIT_OUTPUT = 3.9e-9
COMPILED_RATES = 62e9, 28e9, 25e9
"""What a step takes: a time for each multiply-add, three times those of the forward pass, at so many a second in the dense
layers, in convolutions and, where it is compiled, in the first of them. In Keras `fit` on TensorFlow that first one takes a
time for each of its outputs instead, by far the largest array; and the step a time whatever is in it.

Fitted to what `python -m benchmarks.epochs` measures, processor seconds of one thread for an epoch (AMD EPYC server, Linux;
TensorFlow 2.21, JAX 0.10.2): docs/performance.md has them, network by network.

What comes once is left out: a worker without TensorFlow starts 5 s sooner, `fit` traces each trial for 1 to 1.5 s, and each
shape of network is compiled for 2 to 5 s, in the first sweep that has it.
"""


FIT_AUGMENT, FIT_SAMPLING, COMPILED_SAMPLING = 0.001, 21e-9, 30e-9
"""What augmentation adds to a step: in `fit` a time whatever it does, and one for each pixel and layer that interpolates;
compiled one for each pixel, whatever is asked for.

From such epochs too, of which the differences count: `fit` and compiled, with nothing, a flip, a rotation and all six:
digits, 18 steps of 64, 16 / 256: 0.133, 0.155, 0.153, 0.163 and 0.007, 0.008, 0.008, 0.010. `cifar_augment`, 2,000 images of
32x32x3: 0.54, 0.57, 0.61, 0.75 and 0.89, 0.96, 1.03, 0.94.
"""


def seconds(shape: Shape) -> tuple[float, float]:
    """What a step of `shape` takes on a processor, about: in Keras `fit`, and compiled."""
    dense, first, others = (3 * shape.batch * count for count in multiply_adds(shape))
    outputs = shape.batch * math.prod(shape.conv_output(0, *shape.image[:2])) * shape.filters[0]
    fit = STEP_SECONDS + dense / FIT_RATES[0] + others / FIT_RATES[1] + outputs * FIT_OUTPUT
    return fit, sum(n / rate for n, rate in zip((dense, others, first), COMPILED_RATES, strict=True))


def augmenting(shape: Shape, net: Augmentation) -> tuple[float, float]:
    """What a step takes beside that where images are augmented, about: in Keras `fit` as `net` says, and compiled."""
    pixels = shape.batch * math.prod(shape.image[:2])
    fit = FIT_AUGMENT + FIT_SAMPLING * net.samplings * pixels if net.augmented else 0.0
    return fit, COMPILED_SAMPLING * pixels if shape.augmented else 0.0


def multiply_adds(shape: Shape) -> tuple[int, int, int]:
    """Of an image's forward pass: those of the dense layers, of the first convolution and of all others."""
    convs = []
    height, width, depth = shape.image
    for block, (h, w, filters) in enumerate(shape.features()):
        for _ in range(shape.convs[block]):
            height, width = shape.conv_output(block, height, width)
            convs.append(height * width * shape.kernel_size[block] ** 2 * depth * filters)
            depth = filters
        height, width = h, w
    return (height * width * depth + shape.classes) * shape.dense_units, convs[0], sum(convs[1:])
