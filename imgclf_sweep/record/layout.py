"""Where everything of a sweep lies, and which names a sweep may have. Nothing here creates anything but `write_whole`."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import BadInput
from ..text import listed, printable, unknown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Device names on Windows, whatever follows their first dot: a directory of that name could not be copied there."""


def check_name(name: str) -> None:
    """Refuse a name that is no plain directory name everywhere.  Raises: BadInput."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = printable(name)
        shown = shown if len(shown) <= 70 else shown[:67] + "..."
        raise BadInput(
            f"a sweep's name must be 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit, got '{shown}'"
        )
    if name.split(".")[0].lower() in RESERVED:
        raise BadInput(f"a sweep cannot be named '{name}': Windows keeps that name for a device")


@dataclass(frozen=True)
class SweepDir:
    """The places of the sweep `name` under `root`; it may not exist yet.

    Raises: BadInput for an unusable name, or where a link leads out of `root`: nothing is ever written outside it.
    """

    root: Path
    name: str

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "root", Path(self.root))
        root = self.root.resolve()
        for path in (self.path, self.logs):
            if not path.resolve().is_relative_to(root):
                raise BadInput(
                    f"{printable(path)} is a link that leads out of {printable(root)}: choose another name or --root"
                )

    @property
    def path(self) -> Path:
        """sweeps/NAME"""
        return self.root / "sweeps" / self.name

    @property
    def database(self) -> Path:
        return self.path / "sweep.db"

    @property
    def lock(self) -> Path:
        return self.path / "sweep.lock"

    @property
    def declaration(self) -> Path:
        """sweep.json: the resolved declaration and versions, for people; the database is what counts."""
        return self.path / "sweep.json"

    @property
    def backups(self) -> Path:
        """Copies of the database, made as the sweep runs and before its format is changed."""
        return self.path / "backups"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, number: int) -> Path:
        """Where trial `number` keeps its weights."""
        return self.checkpoints / str(number)

    @property
    def best(self) -> Path:
        """The exported winner."""
        return self.path / "best"

    def retrained(self, number: int) -> Path:
        """The export of a trial asked for by its number."""
        return self.path / "retrained" / str(number)

    @property
    def worker_logs(self) -> Path:
        """What workers printed, one file a slot."""
        return self.path / "workers"

    @property
    def cache(self) -> Path:
        """cache: decoded images and compiled programs, shared by all sweeps."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        """logs/NAME: TensorBoard's directory of this sweep."""
        return self.root / "logs" / self.name

    def exists(self) -> bool:
        """Whether there is a record here. A directory without one is no sweep."""
        return self.database.is_file()


def all_sweeps(root: Path) -> list[SweepDir]:
    """Every sweep under `root`, the newest last."""
    found = []
    with contextlib.suppress(OSError):
        for path in (Path(root) / "sweeps").iterdir():
            with contextlib.suppress(
                BadInput, OSError
            ):  # not a name of ours, or a link to elsewhere: not a sweep of ours
                directory = SweepDir(Path(root), path.name)
                if directory.exists():
                    found.append(directory)
    return sorted(found, key=lambda d: (_created(d), d.name))


def find(root: Path, name: str) -> SweepDir:
    """The sweep `name` under `root`.  Raises: BadInput with the names there are when it does not exist."""
    directory = SweepDir(Path(root), name)
    if directory.exists():
        return directory
    names = [d.name for d in all_sweeps(root)]
    if not names:
        raise BadInput(f"unknown sweep '{printable(name)}': there are no sweeps in {printable(Path(root) / 'sweeps')}")
    if len(names) > 12:
        raise BadInput(f"unknown sweep '{printable(name)}'; the newest are {listed(names[-12:])}")
    raise BadInput(unknown("sweep", name, names))


def _created(directory: SweepDir) -> str:
    """The time of creation, ISO 8601 in UTC. The declaration tells it without opening the database."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        created = json.loads(directory.declaration.read_bytes())["created"]
        return datetime.fromisoformat(created).astimezone(UTC).isoformat(timespec="microseconds")
    with contextlib.suppress(OSError):
        changed = datetime.fromtimestamp(directory.database.stat().st_mtime, UTC)
        return changed.isoformat(timespec="microseconds")
    return ""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one, never a part.  Raises: OSError."""
    new = path.with_name(f"{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on disk, as a rename alone does not.  Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
