"""What a frozen backbone makes of every training image, computed once for a whole sweep and shared by its workers.

    cache/features/<key>/  features.npy float16 (N, F), memory-mapped; a row for each image that the sweep trains or
                           validates on, in the data set's order
                           meta.json   what made them; written last

The key is a digest of everything that decides a row: the images, their scaling, the backbone and the content of its weights.
The test part is never among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..data.files import locked, sync, write_json
from ..data.preprocess import Affine
from ..errors import BadInput, StoreError
from ..text import printable
from .batches import Batches
from .images import Fitted
from .room import META, check_room, size_words

FORMAT = 1  # of what is in a features directory; another number is another key
ROWS = "features.npy"
BLOCK = 256  # images computed at a time


@dataclass(frozen=True)
class Features:
    """rows: float16 (N, F), a read-only memory map.  images: sorted int64 (N,), whose rows they are."""

    rows: np.ndarray
    images: np.ndarray

    def batches(self, indices: np.ndarray, targets: np.ndarray, size: int, seed: int | None) -> Batches:
        """The rows of the images `indices` (M,) with their targets (M, ...), in batches of `size`, read as they are needed.

        seed: of the order, another one in every epoch; None leaves them in order.
        """
        return Batches(self.rows, np.searchsorted(self.images, indices), targets, size, seed)


def features(
    trunk: keras.Model, made_of: str, chosen: Fitted, cache: Path, note: Callable[[str], None] = print
) -> Features:
    """Open the features of the images that `chosen` names, computing them first if no worker of any sweep has.

    trunk: the frozen network, images (N, H, W, C) to features (N, F).  made_of: what it is, in words that differ wherever
    two trunks of equal weights do.  cache: where features/ is.  note: told in a line what takes long.

    Raises: BadInput where the disk has no room for them or float16 cannot hold them; StoreError where they cannot be written.
    """
    images = chosen.train if chosen.validation is None else np.sort(np.concatenate([chosen.train, chosen.validation]))
    width = int(trunk.output_shape[-1])
    identity = {
        "format": FORMAT,
        "data": chosen.prepared.fingerprint,
        "images": hashlib.sha256(images.astype("<i8").tobytes()).hexdigest(),
        "scaling": chosen.affine.to_json(),
        "made_of": made_of,
        "weights": _digest(trunk),
        "keras": [keras.__version__, keras.config.backend()],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    directory = cache / "features" / digest
    if not _whole(directory, len(images), width):
        try:
            with locked(
                cache / "features" / f".{digest}.lock",
                lambda: note("waiting for another process that computes features"),
            ):
                if not _whole(directory, len(images), width):
                    _build(directory, trunk, made_of, chosen, images, identity, note)
        except OSError as error:
            where = printable(error.filename or directory)
            raise StoreError(f"cannot write '{where}': {error.strerror or error}") from None
    return Features(np.load(directory / ROWS, mmap_mode="r", allow_pickle=False), images)


def _digest(trunk: keras.Model) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for weight in trunk.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _whole(directory: Path, count: int, width: int) -> bool:
    """Whether the features are there at their full length."""
    try:
        meta = json.loads((directory / META).read_bytes())
        return meta["shape"] == [count, width] and (directory / ROWS).stat().st_size == meta["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(
    directory: Path,
    trunk: keras.Model,
    made_of: str,
    chosen: Fitted,
    images: np.ndarray,
    identity: dict[str, Any],
    note: Callable[[str], None],
) -> None:
    shape = (len(images), int(trunk.output_shape[-1]))
    size = 2 * shape[0] * shape[1]
    check_room(size, directory.parent, made_of)
    note(f"computing {made_of} features of {len(images)} images: {size_words(size)}, kept under {printable(directory)}")
    temporary = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed build left; the lock says that it is nobody's
    try:
        temporary.mkdir(parents=True)
        path = temporary / ROWS
        rows = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a SIGBUS while writing
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK]
            rows[start : start + BLOCK] = _computed(trunk, chosen.affine, chosen.x[block], made_of)
        rows.flush()
        del rows
        sync(path)
        write_json(temporary / META, identity | {"shape": list(shape), "bytes": path.stat().st_size})
        sync(temporary)
        shutil.rmtree(directory, ignore_errors=True)  # there, but damaged
        os.replace(temporary, directory)
        sync(directory.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _computed(trunk: keras.Model, affine: Affine, x: np.ndarray, made_of: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = np.asarray(trunk.predict_on_batch(affine.apply(x))).astype("float16")
    if not np.isfinite(found).all():
        raise BadInput(f"{made_of}: its features are not finite in float16; thaw part of it, or use other weights")
    return found
