"""The batches of an epoch, in an order that follows from the seed and the epoch alone.

Keras's own shuffling goes on from where the last epoch left its random generator: an attempt that is resumed in epoch 7 would
see other batches than one that came there from epoch 1.
"""

from __future__ import annotations

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches (x float32 (B, ...), targets) for Keras's `fit`, read as they are needed; as fast as handing it the arrays.

    rows: (N, ...), in memory or mapped.   where: the rows to take (M,), or None for all.   targets: (M, ...).   size: B.
    seed: of the order, another one in every epoch; None leaves them in order.
    """

    def __init__(
        self, rows: np.ndarray, where: np.ndarray | None, targets: np.ndarray, size: int, seed: int | None
    ) -> None:
        super().__init__()
        self._rows, self._targets, self._size, self._seed = rows, targets, size, seed
        self._where = np.arange(len(rows)) if where is None else where
        self._order = np.arange(len(self._where))

    def begin(self, epoch: int) -> None:
        """Put the images in the order of `epoch` (from 0); called before `fit` asks for the first batch of it."""
        if self._seed is not None:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._where))

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(self._order[index * self._size : (index + 1) * self._size])  # a disk reads forward
        return self._rows[self._where[chosen]].astype("float32", copy=False), self._targets[chosen]
