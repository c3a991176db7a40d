"""What an image file says of itself before it is decoded: its size in pixels, transparency, and whether it is whole.

A file of a few kilobytes can claim gigabytes of pixels, and decoders differ in what they do with a file cut short, so both are
settled here. Formats: JPEG (ITU T.81), PNG (W3C), BMP, TIFF 6 and BigTIFF, WebP (RFC 9649).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass


class NotAnImage(ValueError):
    """The bytes are no whole image of an accepted format; the message says why, without the file's name."""


@dataclass(frozen=True)
class Header:
    """height, width: pixels as stored, before `orientation` (1 to 8, as in Exif, read only where `alpha` is true)."""

    height: int
    width: int
    alpha: bool = False
    orientation: int = 1


def read_header(data: bytes) -> Header:
    """The header of an encoded image.  Raises: NotAnImage."""
    if not data:
        raise NotAnImage("the file is empty")
    try:
        for magic, parse in _FORMATS.items():
            if data.startswith(magic) and (magic != b"RIFF" or data[8:12] == b"WEBP"):
                header = parse(data)
                break
        else:
            raise NotAnImage("not a JPEG, PNG, BMP, TIFF or WebP image")
    except (struct.error, IndexError):
        raise NotAnImage("the file is cut short") from None
    if header.height < 1 or header.width < 1:
        raise NotAnImage(f"an image of {header.width} x {header.height} pixels")
    return header


FORMATS = {  # format -> how the names of its files end
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
}


def format_of(head: bytes) -> str | None:
    """The format, a key of FORMATS, that a file's first 16 bytes announce; None for no format of ours."""
    names = {_jpeg: "JPEG", _png: "PNG", _bmp: "BMP", _tiff: "TIFF", _webp: "WebP"}
    for magic, parse in _FORMATS.items():
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return names[parse]
    return None


def _jpeg(data: bytes) -> Header:
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise NotAnImage("corrupt JPEG: a marker is missing")
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, at + 5)
            # Inside coded data 0xFF is followed by 0x00 or a restart marker, so this can only be the end of the image.
            if data.find(b"\xff\xd9", at) < 0:
                raise NotAnImage("the file is cut short")
            return Header(height, width)
        at += 2 + length


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise NotAnImage("corrupt PNG: no header")
    width, height, _, color = struct.unpack_from(">IIBB", data, 16)
    alpha, orientation, at = color in (4, 6), 1, 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = memoryview(data)[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise NotAnImage("corrupt PNG: a checksum does not agree")
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = _orientation(bytes(body))
        elif kind == b"IEND":
            return Header(height, width, alpha, orientation if alpha else 1)
        at += 12 + length


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header(abs(height), width)  # a negative height: stored top down


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    if 256 not in tags or 257 not in tags:
        raise NotAnImage("corrupt TIFF: no size")
    return Header(tags[257], tags[256])


def _webp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise NotAnImage("the file is cut short")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, bool(bits >> 28 & 1))
    if kind != b"VP8X":
        raise NotAnImage("corrupt WebP: no header")
    flags = data[20]
    width = 1 + int.from_bytes(data[24:27], "little")
    height = 1 + int.from_bytes(data[27:30], "little")
    alpha = bool(flags & 0x10)
    return Header(height, width, alpha, _webp_orientation(data) if alpha and flags & 0x08 else 1)


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return _orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return 1


def _orientation(exif: bytes) -> int:
    """The orientation in an Exif block (a TIFF directory); 1 where there is none or it is damaged."""
    try:
        value = _tiff_tags(exif.removeprefix(b"Exif\0\0")).get(0x112, 1)
    except (struct.error, NotAnImage):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first directory's whole-number tags that hold one value."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise NotAnImage("corrupt TIFF: no header")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    size, field = (20, 12) if big else (12, 8)
    tags = {}
    for entry in range(at, at + size * min(count, 4096), size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if code:
            tags[tag] = struct.unpack_from(order + code, data, entry + field)[0]
    return tags


_FORMATS = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"RIFF": _webp,
}
