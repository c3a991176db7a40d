"""`--overwrite`: removing a sweep, and nothing but a sweep. All of it must be ours before any of it is touched.

It is renamed first and deleted then, so that a kill in between leaves no half sweep under its name; the next `--overwrite`
deletes what was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadInput, StoreError
from ..text import listed, printable
from . import schema
from .layout import SweepDir
from .lock import Lock

OURS = tuple(
    re.compile(pattern)
    for pattern in (
        r"sweep\.(lock|json)(\.new)?",
        r"sweep\.db(\.new|\.damaged-[0-9-]+)?(-wal|-shm|-journal)?",
        r"\.repair/.*",
        r"backups/(trials|format)-\d+\.db(\.new)?(-journal)?",
        r"\.?optuna\.db(\.new)?(-wal|-shm|-journal)?",
        r"\.?keras_tuner[^/]*/.*",  # a library's own tree
        r"checkpoints/\d+/.*",
        r"retrain/.*",  # weights of trainings for the final score
        r"workers/[^/]+\.log(\.\d+)?",
        r"figures/[^/]+\.png(\.new)?",
        r"(best|retrained/\d+)/(model\.keras|architecture\.json|model\.weights\.h5|labels\.txt|manifest\.json|score\.json)",
        r"(best|retrained/\d+)/(summary|classification_report)\.txt",
        r"(best|retrained/\d+)/[a-z_]+\.(png|csv)",
        r"(retrained/)?\.(best|\d+)\.(new|old)-\d+/.*",
    )
)
"""Every file that a sweep's directory may hold, by its path in it. A test holds what a whole sweep writes to this."""

LOGS = re.compile(r"(.*/)?[^/]*tfevents[^/]*")


def remove(directory: SweepDir) -> bool:
    """Remove a sweep, its logs included; False if there is none, and then nothing is touched.

    Raises: BadInput where what lies there is no sweep, or holds a file that is not ours; Held while it runs; StoreError.
    """
    for place in (directory.path, directory.logs):
        _refuse_links(place)
    if not os.path.lexists(directory.path) or not os.listdir(directory.path):
        return False
    _check_marker(directory)
    lock = Lock(directory.lock, directory.name)
    with schema.storing(directory.lock):
        lock.acquire()
    try:
        _refuse_foreign(directory)
        with schema.storing(directory.path):
            gone = [_moved(place) for place in (directory.path, directory.logs) if os.path.lexists(place)]
            for place in gone:
                shutil.rmtree(place)
    finally:
        lock.release()
    return True


def foreign(directory: SweepDir) -> list[Path]:
    """What a sweep's directory and logs hold that no sweep writes, links included."""
    found = []
    for path in _files(directory.path):
        name = path.relative_to(directory.path).as_posix()
        if path.is_symlink() or not any(pattern.fullmatch(name) for pattern in OURS):
            found.append(path)
    for path in _files(directory.logs):
        if path.is_symlink() or not LOGS.fullmatch(path.relative_to(directory.logs).as_posix()):
            found.append(path)
    return found


def _files(top: Path) -> Iterator[Path]:
    """Everything below that is not a directory; links are not followed."""
    for folder, folders, names in os.walk(top):
        yield from (Path(folder) / name for name in names)
        yield from (path for name in folders if (path := Path(folder) / name).is_symlink())


def _refuse_links(place: Path) -> None:
    if place.is_symlink():
        raise BadInput(f"{printable(place)} is a link: --overwrite removes only a sweep that lies there itself")
    if os.path.lexists(place) and not place.is_dir():
        raise BadInput(f"{printable(place)} is no directory: --overwrite removes only a sweep")


def _check_marker(directory: SweepDir) -> None:
    """A sweep is known by the mark in its database's header, or where that is damaged by its sweep.json."""
    with contextlib.suppress(OSError):
        if directory.database.is_file() and not directory.database.is_symlink():
            with open(directory.database, "rb") as file:
                head = file.read(100)
            if int.from_bytes(head[68:72], "big") == schema.APPLICATION_ID:
                return
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(directory.declaration.read_bytes())
        if said["name"] == directory.name and re.fullmatch("[0-9a-f]{16}", said["id"]) and "declaration" in said:
            return
    raise BadInput(
        f"{printable(directory.path)} is no sweep (there is no {directory.database.name} of this program's in it): nothing was "
        "removed; move it away, or give another --name"
    )


def _refuse_foreign(directory: SweepDir) -> None:
    found = foreign(directory)
    if found:
        raise BadInput(
            f"sweep '{directory.name}' has files in it that no sweep writes: {listed(found, 3)}; nothing was removed; move them "
            "away first"
        )


def _moved(place: Path) -> Path:
    """Rename `place` to a hidden name, after deleting what a killed removal left there."""
    target = place.with_name(f".{place.name}.removed")
    if os.path.lexists(target):
        if target.is_symlink() or not target.is_dir():
            raise StoreError(f"{printable(target)} is in the way: remove it")
        shutil.rmtree(target)
    os.rename(place, target)
    return target
