"""How pixels become a model's input: one scale and offset a channel, fitted to the training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadInput
from ..text import unknown
from .datasets import SCALES

BLOCK = 2**22  # pixels counted at a time: memory stays flat whatever the data set's size


@dataclass(frozen=True)
class Affine:
    """`x * scale + offset` a channel: tuples of C floats. Keras's `Rescaling(scale, offset)` does the same inside a model."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def apply(self, x: np.ndarray) -> np.ndarray:
        """uint8 (..., C) to float32 of the same shape."""
        out = np.multiply(x, np.asarray(self.scale, np.float32), dtype=np.float32)
        out += np.asarray(self.offset, np.float32)
        return out

    def to_json(self) -> dict[str, Any]:
        return {"scale": list(self.scale), "offset": list(self.offset)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Affine:
        return cls(tuple(map(float, data["scale"])), tuple(map(float, data["offset"])))


def fit_affine(x: np.ndarray, scale: str | None, indices: np.ndarray | None = None) -> Affine:
    """The scaling named `scale` (see `datasets.Dataset`) for images `x`, uint8 (N, H, W, C), or for `x[indices]`.

    Images all of one value are moved to 0 by "minmax" and "standard", not divided by zero.  Raises: BadInput.
    """
    channels = x.shape[-1]
    if scale is None:
        return Affine((1.0,) * channels, (0.0,) * channels)
    if scale == "unit":
        return Affine((1 / 255,) * channels, (0.0,) * channels)
    if scale not in SCALES:
        raise BadInput(unknown("scale", scale, [str(s) for s in SCALES]))
    counts = histogram(x, indices)
    values = np.arange(256)
    if scale == "minmax":
        seen = values[counts.sum(axis=0) > 0]
        low, high = int(seen[0]), int(seen[-1])
        factor = 1 / (high - low) if high > low else 1.0
        return Affine((factor,) * channels, (-low * factor,) * channels)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    deviation = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    deviation = np.where(np.count_nonzero(counts, axis=1) == 1, 1.0, deviation)
    return Affine(tuple((1 / deviation).tolist()), tuple((-mean / deviation).tolist()))


def histogram(x: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
    """How often each channel has each value, int64 (C, 256): exact statistics of any number of images in little memory.

    Raises: BadInput for no images.
    """
    rows = len(x) if indices is None else len(indices)
    if not rows:
        raise BadInput("there are no images to fit the scaling to")
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    block = max(1, BLOCK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        images = x[start:stop] if indices is None else x[indices[start:stop]]
        for channel in range(channels):
            counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    return counts
