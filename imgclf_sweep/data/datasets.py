"""The data sets a sweep file can name. A `Dataset` only declares; nothing is read or downloaded when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..text import printable, unknown

NATIVE = {  # kind -> (height, width, colour) of the images as published
    "digits": ((8, 8), "gray"),
    "mnist": ((28, 28), "gray"),
    "fashion_mnist": ((28, 28), "gray"),
    "cifar10": ((32, 32), "rgb"),
    "image_folder": (None, "rgb"),
}
COLORS = {"gray": 1, "rgb": 3}  # colour -> channels
ON_BAD = ("refuse", "skip")
SCALES = ("minmax", "unit", "standard", None)


@dataclass(frozen=True)
class Dataset:
    """A declared data set: images become uint8 (N, H, W, C) in [0, 255], C = 1 ("gray") or 3 ("rgb", in that order).

    kind: one of NATIVE.      path: the folder of an image_folder, else None.      size: (H, W) in pixels.
    scale: how pixels are scaled before the model: "minmax" to [0, 1] by the smallest and largest value of the images being
    fitted, "unit" by 1/255, "standard" to mean 0 and deviation 1 a channel, None not at all.
    on_bad: what an image that cannot be read does to an image_folder: "refuse" all of it, or "skip" the image, which is noted.

    Raises: BadInput.
    """

    kind: str
    path: str | None = None
    size: tuple[int, int] | None = None
    color: str | None = None
    scale: str | None = "minmax"
    on_bad: str = "refuse"

    def __post_init__(self) -> None:
        if self.kind not in NATIVE:
            raise BadInput(unknown("data set", self.kind, NATIVE))
        native_size, native_color = NATIVE[self.kind]
        object.__setattr__(self, "color", native_color if self.color is None else self.color)
        if self.color not in COLORS:
            raise BadInput(unknown("color", self.color, COLORS))
        if self.scale not in SCALES:
            raise BadInput(unknown("scale", self.scale, [str(s) for s in SCALES]))
        if self.on_bad not in ON_BAD:
            raise BadInput(unknown("on_bad", self.on_bad, ON_BAD))
        size = native_size if self.size is None else self.size
        if not _is_size(size):
            raise BadInput(f"size must be (height, width) in pixels, 1 to 4096 each, got {printable(repr(self.size))}")
        object.__setattr__(self, "size", tuple(int(n) for n in size))
        if self.kind == "image_folder" and (not isinstance(self.path, (str, Path)) or not str(self.path)):
            raise BadInput(f"image_folder needs the folder's path, got {printable(repr(self.path))}")
        if self.path is not None:
            object.__setattr__(self, "path", str(self.path))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return (*self.size, COLORS[self.color])  # type: ignore[misc,index]

    def resolved(self, base: Path) -> Dataset:
        """The same with a relative path taken from `base`, the folder of the sweep file.  Raises: BadInput."""
        if self.path is None:
            return self
        try:
            return replace(self, path=str((base / Path(self.path).expanduser()).resolve()))
        except (RuntimeError, ValueError, OSError) as error:  # ~nobody; a NUL; links in a circle
            raise BadInput(f"image folder '{printable(self.path)}': {printable(error)}") from None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"size": list(self.size)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Dataset:
        """The data set that `to_json` wrote.  Raises: BadInput."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


def _is_size(size: object) -> bool:
    return (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 4096 for n in size)
    )


def digits(*, color: str = "gray", scale: str | None = "minmax") -> Dataset:
    """The 1,797 handwritten 8x8 digits inside scikit-learn, stretched from 0..16 to 0..255. No official test part."""
    return Dataset("digits", color=color, scale=scale)


def mnist(*, color: str = "gray", scale: str | None = "minmax") -> Dataset:
    """MNIST: 60,000 + 10,000 handwritten digits, 28x28."""
    return Dataset("mnist", color=color, scale=scale)


def fashion_mnist(*, color: str = "gray", scale: str | None = "minmax") -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28x28."""
    return Dataset("fashion_mnist", color=color, scale=scale)


def cifar10(*, color: str = "rgb", scale: str | None = "minmax") -> Dataset:
    """CIFAR-10: 50,000 + 10,000 photographs of ten things, 32x32; gray by OpenCV's RGB weights."""
    return Dataset("cifar10", color=color, scale=scale)


def image_folder(
    path: str | Path,
    *,
    size: tuple[int, int],
    color: str = "rgb",
    scale: str | None = "minmax",
    on_bad: str = "refuse",
) -> Dataset:
    """A folder with one sub-folder a class, images at any depth below it; or train/ and test/ folders of that kind.

    A relative `path` is taken from the sweep file's folder. Images are resized to `size` = (H, W) with OpenCV. One that cannot
    be read is refused, or with `on_bad="skip"` left out; `sweep check-data` names them all.
    """
    where = str(path) if isinstance(path, Path) else path
    return Dataset("image_folder", path=where, size=size, color=color, scale=scale, on_bad=on_bad)
