"""The images a job is fitted and measured on, scaled as the model will see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.cache import Prepared
from ..data.preprocess import Affine, fit_affine
from ..data.split import parts
from .protocol import Setup


@dataclass(frozen=True)
class Fitted:
    """Which images of the prepared train part are fitted, and the scaling fitted on exactly those.

    x: (N, H, W, C) uint8, memory-mapped, the whole train part.   y: (N,) int64.
    train, validation: sorted indices into both; for part "all", `train` holds both and `validation` is None.
    """

    prepared: Prepared
    x: np.ndarray
    y: np.ndarray
    train: np.ndarray
    validation: np.ndarray | None
    affine: Affine


def fitted(setup: Setup, part: str) -> Fitted:
    """Choose the images of `part` ("train" or "all") and fit the scaling on them.  Raises: SweepError."""
    prepared = Prepared.open(Path(setup.data))
    x, y = prepared.train()
    sweep = setup.sweep
    split = parts(prepared, sweep.validation, sweep.seed, setup.limit_images, sweep.validation_part)
    train, validation = (split.both, None) if part == "all" else (split.train, split.validation)
    return Fitted(prepared, x, y, train, validation, fit_affine(x, sweep.dataset.scale, train))


@dataclass(frozen=True)
class Images:
    """Images ready for the model: x (N, H, W, C) float32, y (N,) int64 class numbers; `validation_*` None for part "all"."""

    shape: tuple[int, int, int]
    classes: int
    x: np.ndarray
    y: np.ndarray
    validation_x: np.ndarray | None
    validation_y: np.ndarray | None


def load(setup: Setup, part: str) -> Images:
    """Read and scale the images of `part` ("train" or "all").  Raises: SweepError."""
    chosen = fitted(setup, part)

    def scaled(indices: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        if indices is None:
            return None, None
        return chosen.affine.apply(chosen.x[indices]), chosen.y[indices]

    x, y = scaled(chosen.train)
    prepared = chosen.prepared
    return Images(tuple(prepared.shape), len(prepared.classes), x, y, *scaled(chosen.validation))  # type: ignore[arg-type]


def targets(y: np.ndarray, outputs: int, sparse: bool) -> np.ndarray:
    """Labels (N,) as the loss wants them: as they are, (N, 1) float32 for a single output, else one-hot (N, outputs) float32."""
    if outputs == 1:
        return y.astype("float32")[:, None]
    return y if sparse else np.eye(outputs, dtype="float32")[y]
