"""Random images in which the classes can be told apart, for programs and networks to learn."""

import numpy as np


def class_images(image, classes, train, held):
    """(x, y, held_x, held_y): images uint8 (N, H, W, C), brighter by class, and class numbers (N,); always the same ones."""
    rng = np.random.default_rng(0)
    y, held_y = rng.integers(0, classes, train), rng.integers(0, classes, held)
    x, held_x = (
        np.clip(rng.normal(60 + 40 * of[:, None, None, None], 60, (len(of), *image)), 0, 255).astype(np.uint8)
        for of in (y, held_y)
    )
    return x, y, held_x, held_y
