"""Finding a declared data set and reading it: scikit-learn's digits, an npz file in the Keras layout, a folder of images."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import BadInput
from ..text import printable
from . import folder
from .datasets import COLORS, NATIVE, Dataset
from .download import fetch
from .image import fitted

DIGITS = tuple("0123456789")
CLASSES = {
    "digits": DIGITS,
    "mnist": DIGITS,
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
DIGITS_FILE = ("datasets", "data", "digits.csv.gz")  # in scikit-learn's package
ENVIRONMENT = "IMGCLF_SWEEP_DATA"

Allocate = Callable[[str, tuple[int, ...]], np.ndarray]
"""Makes a writable uint8 array of a name ("train_x", "test_x") and shape; `np.empty` in memory, or one on disk."""


@dataclass(frozen=True)
class Source:
    """Where a data set's images are: an npz file, a listed folder, or (neither) inside scikit-learn.

    identity: JSON values that change when the files do: paths, sizes, times.   skipped: files left out of the listing; None
    where bad files are refused.
    """

    identity: Any = None
    file: Path | None = None
    listing: folder.Listing | None = None
    skipped: tuple[folder.Bad, ...] | None = None

    @property
    def official_test(self) -> bool:
        """Whether the data set comes with a test part of its own."""
        return self.file is not None or (self.listing is not None and self.listing.test is not None)


@dataclass(frozen=True)
class Loaded:
    """Decoded images, uint8 (N, H, W, C), and labels, int64 (N,), from 0. The test arrays are None without an official part."""

    classes: tuple[str, ...]
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray | None = None
    test_y: np.ndarray | None = None
    skipped: tuple[folder.Bad, ...] = ()


def locate(dataset: Dataset, data_dir: Path | None, downloads: Path, note: Callable[[str], None]) -> Source:
    """Find the data set's files without decoding them; download them into `downloads` if they are nowhere.

    Looked for in `data_dir`, then in the folder named by IMGCLF_SWEEP_DATA, then in `downloads`.
    Raises: BadInput: not found and not to be had, or a folder that `folder.list_folder` refuses.
    """
    if dataset.kind == "digits":
        return Source()
    if dataset.kind == "image_folder":
        source = _listed(dataset.path, dataset.on_bad == "skip")  # type: ignore[arg-type]
        return replace(source, identity=identity(source, again=False))
    file = _npz(dataset.kind, data_dir, downloads) or fetch(dataset.kind, downloads, note)
    return Source(_identity_of_file(file), file=file)


def _listed(path: str | Path, skip: bool) -> Source:
    findings = folder.Findings() if skip else None
    listing = folder.list_folder(path, findings)
    if findings is None:
        return Source(listing=listing)
    if findings.classes:
        raise BadInput(findings.classes[0])
    return Source(listing=listing, skipped=tuple(findings.files))


def identity(source: Source, again: bool = True) -> Any:
    """The source's identity as its files are now, or were when listed (`again` false).

    Raises: BadInput where the folder is no longer a data set."""
    if source.listing is not None:
        now = _listed(source.listing.root, source.skipped is not None) if again else source
        assert now.listing is not None
        skipped = [] if now.skipped is None else [[[os.fsencode(bad.path).hex(), bad.reason] for bad in now.skipped]]
        return [*_identity_of_listing(now.listing), *skipped]
    return None if source.file is None else _identity_of_file(source.file)


def _identity_of_listing(listing: folder.Listing) -> Any:
    # With the time of change (ctime): it moves even where a new content kept its size and was given its old time.
    files = [[os.fsencode(f.path).hex(), *f[1:]] for part in (listing.train, listing.test or ()) for f in part]
    return [str(listing.root), list(listing.classes), len(listing.train), files]


def _identity_of_file(file: Path) -> Any:
    try:
        state = file.stat()
    except OSError as error:
        raise BadInput(f"'{printable(file)}': {error.strerror}") from None
    return [str(file), state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def load(dataset: Dataset, source: Source, allocate: Allocate) -> Loaded:
    """Read what `locate` found into arrays from `allocate`, converted to the declared colour and size.

    Raises: BadInput naming the file (and the array in it) that is missing, corrupt or not as it must be.
    """
    if source.listing is not None:
        return _load_folder(dataset, source.listing, source.skipped, allocate)
    if source.file is not None:
        return _load_npz(dataset, source.file, allocate)
    pixels, labels = _digits()
    images = np.rint(pixels * 255 / 16).astype(np.uint8)
    return Loaded(DIGITS, _converted(images, dataset, "train_x", allocate), labels.astype(np.int64))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images float (N, 8, 8) in [0, 16], labels (N,). Read from the file that `load_digits` reads, where
    it is found: importing that takes a second and 80 MB."""
    found = importlib.util.find_spec("sklearn")
    for place in [] if found is None else found.submodule_search_locations or []:
        with contextlib.suppress(OSError, ValueError), gzip.open(Path(place, *DIGITS_FILE), "rt") as file:
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def _npz(kind: str, data_dir: Path | None, downloads: Path) -> Path | None:
    given = os.environ.get(ENVIRONMENT)
    if data_dir is not None and not data_dir.is_dir():
        raise BadInput(f"data folder '{printable(data_dir)}' does not exist")
    for directory in (data_dir, Path(given) if given else None, downloads):
        if directory is not None and (directory / f"{kind}.npz").exists():
            return (directory / f"{kind}.npz").resolve()
    return None


def _load_folder(
    dataset: Dataset, listing: folder.Listing, skipped: tuple[folder.Bad, ...] | None, allocate: Allocate
) -> Loaded:
    if skipped is not None:  # decoded once more for it: how many there are must be known before arrays are made
        bad = folder.problems(listing)
        listing, skipped = folder.without(listing, bad), (*skipped, *bad)
    arrays: list[np.ndarray | None] = []
    for name, files in (("train_x", listing.train), ("test_x", listing.test)):
        if files is None:
            arrays += [None, None]
            continue
        out = allocate(name, (len(files), *dataset.shape))
        folder.decode(listing.root, files, dataset.size, dataset.color, out)  # type: ignore[arg-type]
        arrays += [out, np.array([f.label for f in files], np.int64)]
    return Loaded(listing.classes, *arrays, skipped=skipped or ())  # type: ignore[arg-type]


def _load_npz(dataset: Dataset, file: Path, allocate: Allocate) -> Loaded:
    classes = CLASSES[dataset.kind]
    arrays = []
    with _opened(file) as handle, _archive(file, handle) as archive:
        for part in ("train", "test"):
            y = _labels(file, archive, f"y_{part}", classes)
            x = _images(file, archive, f"x_{part}", dataset.kind, len(y))
            arrays += [_converted(x, dataset, f"{part}_x", allocate), y]
    return Loaded(classes, *arrays)


def _opened(file: Path) -> IO[bytes]:
    try:
        return open(file, "rb")
    except OSError as error:
        raise BadInput(f"'{printable(file)}': {error.strerror}") from None


def _archive(file: Path, handle: IO[bytes]) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(handle, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"'{printable(file)}' is not an npz file in the Keras layout: {printable(error)}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise BadInput(f"'{printable(file)}' is not an npz file in the Keras layout: it holds a single array")
    return archive


def _array(file: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    if name not in archive.files:
        raise BadInput(f"'{printable(file)}' has no array {name}; needed are x_train, y_train, x_test and y_test")
    try:
        return archive[name]
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, OSError) as error:
        raise BadInput(f"'{printable(file)}', array {name}: {printable(error)}") from None


def _labels(file: Path, archive: np.lib.npyio.NpzFile, name: str, classes: tuple[str, ...]) -> np.ndarray:
    y = _array(file, archive, name)
    if y.dtype.kind not in "iu" or y.ndim not in (1, 2) or y.shape[1:] not in ((), (1,)):
        raise BadInput(
            f"'{printable(file)}', array {name}: {y.dtype} of shape {y.shape}; must be whole numbers of shape (N,) or (N, 1)"
        )
    if not y.size:
        raise BadInput(f"'{printable(file)}', array {name}: empty")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(classes):
        raise BadInput(
            f"'{printable(file)}', array {name}: labels from {low} to {high}; must be 0 to {len(classes) - 1}"
        )
    y = y.reshape(-1).astype(np.int64)
    missing = [classes[i] for i in range(len(classes)) if i not in y] if name == "y_train" else []
    if missing:
        raise BadInput(f"'{printable(file)}', array {name}: no image of class '{missing[0]}'")
    return y


def _images(file: Path, archive: np.lib.npyio.NpzFile, name: str, kind: str, count: int) -> np.ndarray:
    size, color = NATIVE[kind]
    x = _array(file, archive, name)
    flat = (*size, COLORS[color])  # type: ignore[misc]
    allowed = [flat, flat[:2]] if color == "gray" else [flat]
    if x.dtype != np.uint8 or x.shape[1:] not in allowed:
        shape = ", ".join(map(str, allowed[-1]))
        raise BadInput(
            f"'{printable(file)}', array {name}: {x.dtype} of shape {x.shape}; must be uint8 of shape (N, {shape})"
        )
    if len(x) != count:
        raise BadInput(f"'{printable(file)}', array {name}: {len(x)} images for {count} labels")
    return x


def _converted(images: np.ndarray, dataset: Dataset, name: str, allocate: Allocate) -> np.ndarray:
    out = allocate(name, (len(images), *dataset.shape))
    for index, image in enumerate(images):
        out[index] = fitted(image, dataset.size, dataset.color)  # type: ignore[arg-type]
    return out
