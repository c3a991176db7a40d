"""Everything that is wrong with a folder of images, in one look: `sweep check-data`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..text import printable
from .folder import Bad, Findings, list_folder, problems
from .image import mislabelled


@dataclass(frozen=True)
class Inspection:
    """images: files that are read, bad ones among them, in `classes` classes.   bad: files that cannot be used, by path.
    classes_bad: what makes the folder no data set, a line each.   remarks: what is read all the same but looks wrong.
    left_out: which files are not read, in a line, if any are."""

    root: Path
    images: int
    classes: int
    bad: tuple[Bad, ...]
    classes_bad: tuple[str, ...]
    remarks: tuple[Bad, ...]
    left_out: str | None

    @property
    def good(self) -> bool:
        return not self.bad and not self.classes_bad

    def lines(self) -> list[str]:
        """The report for people, without its last line."""
        out = [f"bad   {printable(bad.path)}: {printable(bad.reason)}" for bad in self.bad]
        out += [f"bad   {line}" for line in self.classes_bad]
        out += [f"note  {printable(bad.path)}: {printable(bad.reason)}" for bad in self.remarks]
        return out + ([f"note  {self.left_out}"] if self.left_out else [])

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.root),
            "images": self.images,
            "classes": self.classes,
            "bad": [bad._asdict() for bad in self.bad],
            "bad_classes": list(self.classes_bad),
            "notes": [bad._asdict() for bad in self.remarks],
            "left_out": self.left_out,
        }


def inspect(path: str | Path) -> Inspection:
    """Look at every file of an image folder; each image is decoded, after its header has told its size.

    Raises: BadInput for a folder that does not exist or may not be read.
    """
    findings = Findings()
    listing = list_folder(path, findings)
    files = [file.path for file in (*listing.train, *(listing.test or ()))]
    bad = sorted([*findings.files, *problems(listing)])
    unread = {b.path for b in bad}
    remarks = [
        Bad(file, f"is a {found} image by its content, and read as one")
        for file in files
        if file not in unread and (found := mislabelled(os.path.join(listing.root, file)))
    ]
    return Inspection(
        listing.root,
        len(files),
        len(listing.classes),
        tuple(bad),
        tuple(findings.classes),
        tuple(remarks),
        listing.left_out(),
    )
