"""What a step of training takes on a processor, in Keras `fit` and compiled, as measured. Pure values."""

from __future__ import annotations

import math

from ...models.shared_knobs import Augmentation
from .shape import Shape

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
The compiled times were taken before the gradient of one-channel convolutions was a product (`net.py`), and bound today's.

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
