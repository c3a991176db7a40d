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

From processor seconds of one thread for an epoch of training (AMD EPYC server, Linux; TensorFlow 2.21, JAX 0.10.2), `fit`
and compiled. Gray CIFAR-10, 4,000 images of batches of 500, 64 filters / dense 512 / pool 2: 2.21 and 1.30; 32 / 256 / 4:
0.46 and 0.12. MNIST, 4,000 images of 32, its known configuration: 0.50 and 0.22. Two blocks (`cifar_gray`, known 0), 2,000
images: 0.71 and 0.60; three (known 1), 1,000: 1.10 and 1.16. Three blocks in colour (`cifar_augment`, not augmented), 2,000:
0.41 and 0.53; (`cifar_batchnorm`, known 0), 2,000: 0.37 and 0.77. Two blocks on 100x100 pixels (`image_folder`, known 0),
512: 0.98 and 1.4. Digits, 18 steps of 64, 16 / 256: 0.074 and 0.004; 64 / 512: 0.104 and 0.018.

What comes once is left out: a worker without TensorFlow starts 5 s sooner, `fit` traces each trial for 1 to 1.5 s, and each
shape of network is compiled for 2 to 5 s, in the first sweep that has it.
"""


FIT_AUGMENT, FIT_SAMPLING, COMPILED_SAMPLING = 0.001, 21e-9, 30e-9
"""What augmentation adds to a step: in `fit` a time whatever it does, and one for each pixel and layer that interpolates;
compiled one for each pixel, whatever is asked for.

By the same measure, `fit` and compiled, with nothing, a flip, a rotation and all six: digits, 18 steps of 64, 16 / 256: 0.133,
0.155, 0.153, 0.163 and 0.007, 0.008, 0.008, 0.010. `cifar_augment`, 2,000 images of 32x32x3: 0.54, 0.57, 0.61, 0.75 and 0.89,
0.96, 1.03, 0.94.
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
