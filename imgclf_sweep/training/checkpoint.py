"""What an attempt leaves behind after each epoch, so that the next one goes on from there and not from the beginning.

    checkpoints/<trial>/epoch-<k>.checkpoint    BLAKE2 of all that follows, in hex, and a line feed
                                                JSON: whose it is, the epoch, its progress, the arrays' names, types and shapes
                                                the arrays' bytes, in that order

Written under another name, then renamed; the last two are kept. One that is torn, damaged or another job's is passed over.
The files outlive a killed process at once, and the loss of power but for those of the last second: waiting for the disk in
every epoch would cost a small model more than its training.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import sync
from ..sweep import BuildFunction
from ..text import printable
from .protocol import Job, Setup

FORMAT = 1
NAME = re.compile(r"epoch-(\d+)\.checkpoint")
KEPT = 2
SYNC_SECONDS = 1.0  # between two that are waited for until they are on the disk
HASH_BYTES = 32


@dataclass(frozen=True)
class Checkpoint:
    """The state after `epoch` (from 1).  progress: a JSON object.  arrays: by name, of NumPy types of any library."""

    epoch: int
    progress: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class Checkpoints:
    """The checkpoints of one trial's directory that belong to one job; see `identity`.  note: told why one is passed over."""

    def __init__(self, directory: Path, identity: str, note: Callable[[str], None] = print) -> None:
        self._directory, self._identity, self._note = directory, identity, note
        self._synced: tuple[float, Path] | None = None  # when, and which one

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it and remove those that it makes needless.  Raises: OSError; those written before are then as they were."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"epoch-{checkpoint.epoch}.checkpoint"
        partial = path.with_suffix(".tmp")
        now = time.monotonic()
        syncing = self._synced is None or now - self._synced[0] >= SYNC_SECONDS
        try:
            with open(partial, "wb") as file:
                for block in _blocks(checkpoint, self._identity):
                    file.write(block)
                if syncing:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                error.filename = str(partial)  # a write that fails does not say where
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        if syncing:
            sync(self._directory)
            self._synced = now, path
        for old in _found(self._directory)[KEPT:]:
            if self._synced is None or old != self._synced[1]:
                old.unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """The last one that is whole and this job's, or None. It never fails for what lies in the directory."""
        for path in _found(self._directory):
            try:
                return _read(path, self._identity)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._note(f"{printable(path)} is passed over: {printable(error)}")
        return None

    def note(self, line: str) -> None:
        self._note(line)


def identity(setup: Setup, job: Job) -> str:
    """A digest of everything that decides a job's numbers: a checkpoint of any other is of no use to it."""
    sweep, suggestion = setup.sweep, job.suggestion
    model = [sweep.model.name, sweep.model.digest] if isinstance(sweep.model, BuildFunction) else repr(sweep.model)
    decides = {
        "data": [Path(setup.data).name, setup.limit_images, sweep.validation, sweep.validation_part, sweep.seed],
        "training": [model, sweep.loss, sweep.batch_size, asdict(sweep.objective), job.part],
        "trial": [dict(suggestion.params), suggestion.epochs, suggestion.initial_epoch, suggestion.parent, job.seed],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=repr).encode()).hexdigest()


def discard(directory: Path) -> None:
    """Remove a trial's checkpoints: it has ended. Its best weights stay. What cannot be removed is left for the next time."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if NAME.fullmatch(path.with_suffix(".checkpoint").name) and path.suffix in (".checkpoint", ".tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()
        directory.rmdir()  # if nothing else is in it


def _found(directory: Path) -> list[Path]:
    """The checkpoints there, the newest first."""
    try:
        names = [match for name in os.listdir(directory) if (match := NAME.fullmatch(name))]
    except OSError:
        return []
    return [directory / match[0] for match in sorted(names, key=lambda match: -int(match[1]))]


def _blocks(checkpoint: Checkpoint, identity: str) -> list[bytes | memoryview]:
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in checkpoint.arrays.items()}
    head = {
        "format": FORMAT,
        "job": identity,
        "epoch": checkpoint.epoch,
        "progress": checkpoint.progress,
        "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()],
    }
    line = json.dumps(head, allow_nan=False).encode() + b"\n"
    blocks = [line, *(memoryview(array.reshape(-1).view(np.uint8)) for array in arrays.values() if array.size)]
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for block in blocks:
        digest.update(block)
    return [digest.hexdigest().encode() + b"\n", *blocks]


def _read(path: Path, identity: str) -> Checkpoint:
    """Raises: OSError, ValueError, KeyError, TypeError for anything that is not a whole checkpoint of this job."""
    data = path.read_bytes()
    told, _, rest = data.partition(b"\n")
    body = memoryview(data)[len(data) - len(rest) :]
    if hashlib.blake2b(body, digest_size=HASH_BYTES).hexdigest().encode() != told:
        raise ValueError("it is torn or damaged")
    line = rest[: rest.index(b"\n")]
    head = json.loads(line)
    if head["format"] != FORMAT or head["job"] != identity:
        raise ValueError("it is of another job")
    arrays, at = {}, len(line) + 1
    for name, kind, shape in head["arrays"]:
        dtype, count = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        at += count * dtype.itemsize
    return Checkpoint(int(head["epoch"]), head["progress"], arrays)
