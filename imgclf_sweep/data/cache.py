"""The decoded data set, kept once under cache/ as memory-mapped arrays that every worker shares; its test part sealed.

    cache/<key>/  train_x.npy uint8 (N, H, W, C)   train_y.npy int64 (N,)   groups.npy int64 (N,)   test_x.npy  test_y.npy
                  meta.json   classes, shape, counts, fingerprint, declaration; written last

Test files are written while the set is built. After that `open_test` is the one function that opens them.
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

import numpy as np

from ..errors import BadInput, StoreError
from ..text import listed, printable
from . import build
from .datasets import Dataset
from .files import locked, missing_parents, remove_empty, sync, write_json
from .load import Source, identity, locate

FORMAT = 1  # of what is in a cache directory; another number is another key
META = "meta.json"


@dataclass(frozen=True)
class Prepared:
    """A decoded data set under cache/.  shape: (H, W, C) of one image.  fingerprint: a digest of pixels, labels and classes.

    train_images, test_images: how many images each part has; validation images are held out of the first (`split.parts`).
    """

    path: Path
    shape: tuple[int, int, int]
    classes: list[str]
    fingerprint: str
    train_images: int
    test_images: int

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """The data set in a cache directory; reads meta.json only.  Raises: StoreError where it is not whole."""
        path = Path(path)
        meta = _whole(path)
        if meta is None:
            raise StoreError(
                f"the decoded data set '{printable(path)}' is missing or damaged; the same `sweep run` makes it again"
            )
        counts = meta["counts"]
        return cls(path, tuple(meta["shape"]), meta["classes"], meta["fingerprint"], counts["train"], counts["test"])

    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Images, a read-only memory map uint8 (N, H, W, C), RGB or gray; and labels int64 (N,), from 0."""
        return self._array("train_x", "r"), self.labels()

    def labels(self) -> np.ndarray:
        """The training images' labels alone, int64 (N,)."""
        return self._array("train_y")

    def groups(self) -> np.ndarray:
        """int64 (N,): training images with one number are byte-identical once decoded."""
        return self._array("groups")

    def _array(self, name: str, mode: Any = None) -> np.ndarray:
        assert name in ("train_x", "train_y", "groups")
        return _loaded(self.path / f"{name}.npy", mode)


def open_test(prepared: Prepared, commit: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """Open the sealed test part: images uint8 (N, H, W, C), a read-only memory map, and labels int64 (N,).

    `commit` is called first and must have put on record that the test part is being opened; if it raises, nothing is opened.
    """
    commit()
    return _loaded(prepared.path / "test_x.npy", "r"), _loaded(prepared.path / "test_y.npy", None)


def prepare(
    dataset: Dataset,
    *,
    cache: Path,
    data_dir: Path | None,
    test: float,
    seed: int,
    note: Callable[[str], None],
    progress: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Open the decoded data set, building it first if it is not under `cache` for these files as they are now.

    test, seed: how the test part is split off where the data set has no official one.
    note: receives lines that a user should know.    progress: receives lines on what takes long just now.
    Processes that ask at the same time build it once; a build that was killed leaves nothing that is used.

    Raises: BadInput for data that cannot be used, and then nothing is left behind; StoreError when it cannot be written.
    """
    source = locate(dataset, data_dir, cache / "downloads", note)
    key = _key(dataset, source, test, seed)
    if _whole(cache / key) is None:
        _build(dataset, source, key, cache, test, seed, progress)
    meta = _whole(cache / key)
    if meta is not None and (skipped := meta.get("skipped")):
        names = listed((bad["path"] for bad in skipped), 5)
        note(
            f"{len(skipped)} bad image{'s' if len(skipped) > 1 else ''} skipped: {names} "
            f"(all with their reasons in {printable(cache / key / META)})"
        )
    if source.listing is not None and (line := source.listing.left_out()):
        note(line)
    if meta is not None and meta["shared"]:
        note(
            f"{meta['shared']} of {meta['counts']['test']} test images are byte-identical to a training image: "
            "the final score will be a little too good"
        )
    return Prepared.open(cache / key)


def _build(
    dataset: Dataset, source: Source, key: str, cache: Path, test: float, seed: int, progress: Callable[[str], None]
) -> None:
    made = missing_parents(cache)
    temporary = cache / f".{key}.building"
    try:
        with locked(
            cache / f".{key}.lock", lambda: progress("waiting for another process that decodes the same images")
        ):
            if _whole(cache / key) is not None:
                return
            progress("decoding the images (kept under cache/)")
            shutil.rmtree(temporary, ignore_errors=True)  # what a killed build left; the lock says that it is nobody's
            try:
                temporary.mkdir()
                meta = build.write(temporary, dataset, source, test, seed, lambda: _check_unchanged(source))
                write_json(temporary / META, meta | {"declaration": _declaration(dataset, source, test, seed)})
                sync(temporary)
                if (cache / key).exists():  # but damaged
                    shutil.rmtree(cache / key)
                os.replace(temporary, cache / key)
                sync(cache)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        remove_empty(made)
        raise StoreError(f"cannot write '{printable(error.filename or cache)}': {error.strerror or error}") from None
    except BadInput:
        remove_empty(made)
        raise


def _check_unchanged(source: Source) -> None:
    """Raises: BadInput where the files are not those that were listed: the key would lie about the content."""
    if identity(source) != source.identity:
        raise BadInput("the data set's files changed while they were read; run the same command again")


def _declaration(dataset: Dataset, source: Source, test: float, seed: int) -> dict[str, Any]:
    """What decides the decoded arrays, but for the files' content. Scaling is not in it: pixels are kept as they are."""
    out: dict[str, Any] = {name: value for name, value in dataset.to_json().items() if name != "scale"}
    if out["on_bad"] == "refuse":  # then it decides nothing about what is kept
        del out["on_bad"]
    if source.official_test:
        return out
    return out | {"test": test, "seed": seed}


def _key(dataset: Dataset, source: Source, test: float, seed: int) -> str:
    content = [FORMAT, _declaration(dataset, source, test, seed), source.identity]
    return f"{dataset.kind}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]}"


def _whole(path: Path) -> dict[str, Any] | None:
    """The directory's meta.json if every file it names is there at its full length (which does not open any), else None."""
    try:
        meta = json.loads((path / META).read_bytes())
        sizes = {name: (path / name).stat().st_size for name in meta["files"]}
        return meta if sizes == meta["files"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _loaded(file: Path, mode: Any) -> np.ndarray:
    try:
        return np.load(file, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"the decoded data set's '{printable(file)}' cannot be read: {printable(error)}") from None
