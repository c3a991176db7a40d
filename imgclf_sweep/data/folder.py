"""Listing a folder of images: its classes and files, without decoding anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cores import cores
from ..errors import BadInput
from ..text import listed, printable
from .image import EXTENSIONS, problem, read_image

VALIDATION_NAMES = ("val", "valid", "validation", "dev")
CHUNK = 64  # images a thread takes at a time


class File(NamedTuple):
    """One image file. path: relative to the listing's root.  size: bytes.  label: its class, from 0."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    label: int


@dataclass(frozen=True)
class Listing:
    """An image folder's files, sorted by path within a class, classes by name. `test` is None without train/ and test/ parts.

    others: the endings, in lower case, of the files beside them that are not read.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[File, ...]
    test: tuple[File, ...] | None
    others: tuple[str, ...] = ()

    def left_out(self) -> str | None:
        """What is not read, in a line; None where that is nothing."""
        if not self.others:
            return None
        kinds = ", ".join(f"{ending} {count}" for ending, count in Counter(sorted(self.others)).most_common())
        files = "1 file is" if len(self.others) == 1 else f"{len(self.others):,} files are"
        return f"{files} not read ({printable(kinds)}); read are, in class folders, {', '.join(EXTENSIONS)}"


class Bad(NamedTuple):
    """A file that cannot be used, by its path below the listing's root, and why."""

    path: str
    reason: str


@dataclass
class Findings:
    """What is wrong with a folder. `files`: single files and folders in a class, without which the rest is a data set still.
    `classes`: what makes it none, a line each."""

    files: list[Bad] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


def list_folder(path: str | Path, findings: Findings | None = None) -> Listing:
    """List the images of a folder with one sub-folder a class, or with train/ and test/ folders of that kind.

    Hidden files are left out, and so are, but counted, files whose extension is not in EXTENSIONS (any case). Where `findings`
    are given, what is wrong with single files or classes is noted there and left out too.

    Raises: BadInput: no such folder, fewer than two classes, a class with fewer than two images, a name with control
    characters, a link that leads out of the folder, parts whose classes differ.
    """
    root = Path(path)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise BadInput(f"image folder '{printable(root)}' {what}")
    root = root.resolve()
    parts = _parts(root)
    others: list[str] = []
    if parts is None:
        classes = _classes(root, findings, others)
        return Listing(root, classes, _files(root, root, classes, 2, findings, others), None, tuple(others))
    classes, tested = (_classes(part, findings, others) for part in parts)
    if classes != tested:
        odd = sorted(set(classes) ^ set(tested))
        line = f"image folder '{printable(root)}': classes in only one of train/ and test/: {listed(odd)}"
        _refuse(findings, line)
    train = _files(root, parts[0], classes, 2, findings, others)
    test = _files(root, parts[1], tested, 1, findings, others)
    return Listing(root, classes, train, test, tuple(others))


def _refuse(findings: Findings | None, line: str) -> None:
    """Something that makes the folder no data set."""
    if findings is None:
        raise BadInput(line)
    findings.classes.append(line)


def _leave_out(findings: Findings | None, root: Path, path: str | Path, reason: str, line: str) -> None:
    """Something that is wrong with one file."""
    if findings is None:
        raise BadInput(line)
    findings.files.append(Bad(os.path.relpath(path, root), reason))


def decode(root: Path, files: tuple[File, ...], size: tuple[int, int], color: str, out: np.ndarray) -> None:
    """Read all `files` into `out`, uint8 (N, H, W, C), on every core this process may use (OpenCV frees the interpreter).

    Raises: BadInput naming the first bad image, in the listing's order, and how many there are.
    """

    def chunk(start: int) -> list[str]:
        bad = []
        for index in range(start, min(start + CHUNK, len(files))):
            try:
                out[index] = read_image(os.path.join(root, files[index].path), size, color)
            except BadInput as error:
                bad.append(str(error))
        return bad

    with ThreadPoolExecutor(cores()) as pool:
        bad = [line for lines in pool.map(chunk, range(0, len(files), CHUNK)) for line in lines]
    if bad:
        others = len(bad) - 1
        more = f" (and {others} other bad image{'s' if others > 1 else ''})" if others else ""
        raise BadInput(f"{bad[0]}{more}; see  sweep check-data {printable(root)}")


def problems(listing: Listing) -> list[Bad]:
    """The files of a listing that `read_image` would refuse, in its order, each with the reason; every one is decoded."""
    paths = [file.path for file in (*listing.train, *(listing.test or ()))]

    def chunk(start: int) -> list[Bad]:
        found = ((path, problem(os.path.join(listing.root, path))) for path in paths[start : start + CHUNK])
        return [Bad(path, reason) for path, reason in found if reason is not None]

    with ThreadPoolExecutor(cores()) as pool:
        return [bad for found in pool.map(chunk, range(0, len(paths), CHUNK)) for bad in found]


def without(listing: Listing, bad: list[Bad]) -> Listing:
    """The listing less these files."""
    names = {file.path for file in bad}
    train, test = (
        None if part is None else tuple(file for file in part if file.path not in names)
        for part in (listing.train, listing.test)
    )
    return replace(listing, train=train or (), test=test)


def _parts(root: Path) -> tuple[Path, Path] | None:
    """The train/ and test/ folders, or None where the sub-folders are classes.  Raises: BadInput where it cannot be told."""
    names = {entry.name.casefold(): entry.name for entry in _entries(root, root) if entry.is_dir()}
    extra = [name for key, name in names.items() if key not in ("train", "test")]
    if {"train", "test"} <= names.keys():
        if extra:
            hint = (
                "; validation images belong in train/" if any(n.casefold() in VALIDATION_NAMES for n in extra) else ""
            )
            raise BadInput(
                f"image folder '{printable(root)}' has train/ and test/, and beside them: {listed(extra)}{hint}"
            )
        return root / names["train"], root / names["test"]
    if "train" in names and all(name.casefold() in VALIDATION_NAMES for name in extra):
        raise BadInput(
            f"image folder '{printable(root)}' has train/ but no test/; give both, or one sub-folder a class"
        )
    return None


def _classes(folder: Path, findings: Findings | None, others: list[str]) -> tuple[str, ...]:
    links = None if findings is None else Findings()
    entries = _entries(folder, folder, links)
    names = sorted(entry.name for entry in entries if entry.is_dir())
    others += [_ending(entry.name) for entry in entries if entry.is_file()]
    for bad in links.files if links else ():
        _refuse(findings, f"'{printable(folder / bad.path)}' {bad.reason}")
    for name in names:
        if not name.isprintable():
            _refuse(findings, f"class folder '{printable(folder)}/{printable(name)}': control characters in its name")
    if not names:
        _refuse(findings, f"image folder '{printable(folder)}' has no sub-folders; give one sub-folder a class")
    elif len(names) < 2:
        _refuse(
            findings,
            f"image folder '{printable(folder)}' has one class only ('{printable(names[0])}'); at least 2 are needed",
        )
    return tuple(names)


def _files(
    root: Path, folder: Path, classes: tuple[str, ...], at_least: int, findings: Findings | None, others: list[str]
) -> tuple[File, ...]:
    files: list[File] = []
    for label, name in enumerate(classes):
        found = sorted(_walk(root, folder / name, label, findings, others))
        if not found:
            _refuse(
                findings,
                f"class folder '{printable(folder / name)}' has no images; read are {', '.join(EXTENSIONS)}",
            )
        elif len(found) < at_least:
            _refuse(
                findings,
                f"class folder '{printable(folder / name)}' has one image only; at least {at_least} are needed",
            )
        files += found
    return tuple(files)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "no ending"


def _walk(root: Path, folder: Path, label: int, findings: Findings | None, others: list[str]) -> Iterator[File]:
    """The image files at any depth below `folder`; the endings of other files are added to `others`."""
    for entry in _entries(root, folder, findings):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path), label, findings, others)
        elif _ending(entry.name) not in EXTENSIONS:
            others.append(_ending(entry.name))
        else:
            reason = None
            try:
                state = entry.stat()
                reason = None if entry.is_file() else "not a regular file"
            except OSError as error:
                reason = error.strerror
            if reason is not None:
                _leave_out(findings, root, entry.path, reason, f"image '{printable(entry.path)}': {reason}")
                continue
            yield File(
                entry.path.removeprefix(os.path.join(root, "")),
                state.st_size,
                state.st_mtime_ns,
                state.st_ctime_ns,
                label,
            )


def _entries(root: Path, folder: Path, findings: Findings | None = None) -> list[os.DirEntry[str]]:
    """What is in `folder` but for hidden names.

    Raises: BadInput for a folder that cannot be read, a link that leads out of `root` and a link to any folder (it could lead
    in circles). Links to files inside `root` are as good as files.
    """
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        if findings is None or folder == root:
            raise BadInput(f"folder '{printable(folder)}': {error.strerror}") from None
        findings.files.append(Bad(os.path.relpath(folder, root), error.strerror))
        return []
    kept = []
    for entry in shown:
        reason = _bad_link(root, entry) if entry.is_symlink() else None
        if reason is None:
            kept.append(entry)
        else:
            _leave_out(findings, root, entry.path, reason, f"'{printable(entry.path)}' {reason}")
    return kept


def _bad_link(root: Path, entry: os.DirEntry[str]) -> str | None:
    target = Path(entry.path).resolve()
    if not target.is_relative_to(root):
        return f"is a link out of the image folder (to '{printable(target)}')"
    return "is a link to another folder; copy the folder instead" if entry.is_dir() else None
