"""One image file to the pixels that every part of the product sees: the data set, `predict` and image grids read alike."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np

from ..errors import BadInput
from ..text import printable
from .datasets import COLORS
from .header import FORMATS, Header, NotAnImage, format_of, read_header

EXTENSIONS = tuple(ending for endings in FORMATS.values() for ending in endings)
MAX_PIXELS = 40_000_000  # a 160 KB PNG can unpack to half a gigabyte
MAX_BYTES = 512 * 2**20  # of the file: 40 megapixels of 16-bit RGBA and some room

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our errors name the file, OpenCV's log lines do not


def read_image(path: str | Path, size: tuple[int, int], color: str) -> np.ndarray:
    """Read, turn upright (Exif), convert and resize one image: uint8 (H, W, C) in [0, 255], RGB order or gray.

    size: (H, W) in pixels; the picture is stretched to it.    color: "rgb" or "gray" (OpenCV's weights of R, G, B).
    16-bit images keep their upper 8 bits; palettes are looked up and CMYK converted by OpenCV; transparent parts of PNG and WebP
    images are laid on white; of several pages or frames the first counts.

    Raises: BadInput naming the file: missing, unreadable, not a regular file, no whole image, above 40 megapixels.
    """
    try:
        return fitted(_pixels(path), size, color)
    except (NotAnImage, OSError) as error:
        raise BadInput(f"image '{printable(path)}': {_reason(error)}") from None


def problem(path: str | Path) -> str | None:
    """Why `read_image` would refuse this file, in words without its name; None if it would not."""
    try:
        _pixels(path)
    except (NotAnImage, OSError) as error:
        return _reason(error)
    return None


def mislabelled(path: str | Path) -> str | None:
    """The format of a file whose name ends as another format's does (it is read by its content); else None."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb", buffering=0) as file:
            found = format_of(file.read(16) or b"")
    except OSError:
        return None
    return found if found and os.path.splitext(path)[1].lower() not in FORMATS[found] else None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, NotAnImage) else getattr(error, "strerror", None) or "cannot be read"


def _pixels(path: str | Path) -> np.ndarray:
    """uint8 RGB (h, w, 3), upright; a size above the limit is refused by the header.  Raises: NotAnImage, OSError."""
    data = _read(path)
    header = read_header(data)
    if header.height * header.width > MAX_PIXELS:
        raise NotAnImage(
            f"{header.width} x {header.height} pixels; images of up to {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    return _decode(data, header)


def fitted(image: np.ndarray, size: tuple[int, int], color: str) -> np.ndarray:
    """A uint8 image (h, w), (h, w, 1) or (h, w, 3) in RGB order, converted to `color` and resized to `size`: uint8 (H, W, C)."""
    if image.ndim == 2 or image.shape[2] == 1:
        pixels = image.reshape(image.shape[:2])
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if color == "rgb" else pixels
    else:
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if color == "gray" else image
    return resized(pixels, size).reshape(*size, COLORS[color])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` at `size` = (H, W): by area averages along a side that shrinks, then bilinear along one that grows."""
    height, width = image.shape[:2]
    smaller = (min(height, size[0]), min(width, size[1]))
    if smaller != (height, width):
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != tuple(size):
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def _read(path: str | Path) -> bytes:
    """The file's bytes. Opened without blocking, so that a FIFO cannot hold us.  Raises: OSError, NotAnImage."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb", buffering=0) as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise NotAnImage("not a regular file")
        if state.st_size > MAX_BYTES:
            raise NotAnImage(f"{state.st_size} bytes; files of up to {MAX_BYTES // 2**20} MiB are read")
        return file.readall()


def _decode(data: bytes, header: Header) -> np.ndarray:
    """uint8 RGB (h, w, 3), upright.  Raises: NotAnImage."""
    flag = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR  # COLOR turns upright and drops transparency
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise NotAnImage("the image is corrupt, or of a kind that OpenCV cannot decode")
    if header.alpha:
        image = _upright(_on_white(image), header.orientation)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _on_white(image: np.ndarray) -> np.ndarray:
    """BGR uint8 (h, w, 3) of a BGRA, BGR or gray image of 8 or 16 bits."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.uint16)
    mixed = image[..., :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255
    return ((mixed + 127) // 255).astype(np.uint8)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an Exif orientation, 1 to 8 (CIPA DC-008, tag 0x0112)."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)
