"""One image file to pixels: formats, colours, resizing, orientation, and files that are no whole image."""

import base64
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgclf_sweep.data.image import fitted, read_image, resized
from imgclf_sweep.errors import BadInput

# Four patches, red green / blue white, so that every turn and every mix-up of channels shows.
PATCHES = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
PHOTO = PATCHES.repeat(16, 0).repeat(24, 1)  # (32, 48, 3) RGB
CMYK = (  # an 8 x 8 CMYK JPEG of RGB (200, 40, 10), written by Pillow
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUV"
    "FQwPFxgWFBgSFBUU/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAgJ/8QAFBABAAAAAAAAAAAAAAAA"
    "AAAAAP/aAA4EQwBNAFkASwAAPwBgAomIqm//2Q=="
)


def written(path: Path, rgb: np.ndarray, *parameters: int) -> Path:
    order = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[rgb.ndim if rgb.ndim == 2 else rgb.shape[2]]
    assert cv2.imwrite(str(path), rgb if order is None else cv2.cvtColor(rgb, order), list(parameters))
    return path


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def png_with(path: Path, kind: bytes, body: bytes) -> Path:
    """Put one more chunk after the header of a PNG."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_every_lossless_format_gives_the_same_rgb(tmp_path, name):
    lossless = (cv2.IMWRITE_WEBP_QUALITY, 101) if name.endswith("webp") else ()
    got = read_image(written(tmp_path / name, PHOTO, *lossless), (32, 48), "rgb")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, PHOTO)


def test_a_jpeg_keeps_its_colours_in_rgb_order(tmp_path):
    got = read_image(written(tmp_path / "a.jpeg", PHOTO, cv2.IMWRITE_JPEG_QUALITY, 100), (32, 48), "rgb")
    assert np.abs(got[4:12, 4:20].astype(int) - (255, 0, 0)).max() < 10
    assert np.abs(got[20:28, 4:20].astype(int) - (0, 0, 255)).max() < 10


def test_gray_weighs_red_green_and_blue_as_opencv_does(tmp_path):
    got = read_image(written(tmp_path / "a.png", PHOTO), (32, 48), "gray")
    assert got.shape == (32, 48, 1)
    assert (got[0, 0, 0], got[0, -1, 0], got[-1, 0, 0]) == (76, 150, 29)


def test_a_gray_file_keeps_its_values_as_gray_and_as_rgb(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = written(tmp_path / "a.png", ramp)
    np.testing.assert_array_equal(read_image(file, (16, 16), "gray")[..., 0], ramp)
    np.testing.assert_array_equal(read_image(file, (16, 16), "rgb"), ramp[..., None].repeat(3, 2))


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_image(written(tmp_path / name, deep), (16, 16), "gray")[..., 0], deep >> 8)


def test_shrinking_averages_and_growing_interpolates(tmp_path):
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    got = read_image(written(tmp_path / "a.png", checks), (8, 8), "gray")
    assert np.all(np.abs(got.astype(int) - 127.5) <= 1), "area averaging of a chess board is mid-gray"
    ramp = np.array([[0, 200]], np.uint8)
    np.testing.assert_array_equal(resized(ramp, (1, 4)), cv2.resize(ramp, (4, 1), interpolation=cv2.INTER_LINEAR))
    mixed = resized(checks, (8, 128))
    assert mixed.shape == (8, 128)
    assert np.all(np.abs(mixed.astype(int) - 127.5) <= 1)


def test_transparent_parts_are_laid_on_white(tmp_path):
    rgba = np.dstack([np.zeros((4, 4, 3), np.uint8), np.repeat(np.uint8([[0, 255, 128, 51]]), 4, 0)])
    rgba[..., 0] = 100
    expected = [[255, 255, 255], [100, 0, 0], [177, 127, 127], [224, 204, 204]]
    got = read_image(written(tmp_path / "a.png", rgba), (4, 4), "rgb")
    np.testing.assert_array_equal(got[0], expected)
    deep = written(tmp_path / "deep.png", rgba.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(deep, (4, 4), "rgb")[0], expected)
    webp = written(tmp_path / "a.webp", rgba, cv2.IMWRITE_WEBP_QUALITY, 101)
    assert read_image(webp, (4, 4), "rgb")[0, 0].tolist() == [255, 255, 255]


def test_a_png_with_a_transparent_colour(tmp_path):
    file = png_with(written(tmp_path / "a.png", np.uint8([[[7, 7, 7], [90, 80, 70]]])), b"tRNS", b"\0\7" * 3)
    assert read_image(file, (1, 2), "rgb").tolist() == [[[255, 255, 255], [90, 80, 70]]]


def test_cmyk_becomes_rgb(tmp_path):
    (tmp_path / "a.jpg").write_bytes(base64.b64decode(CMYK))
    got = read_image(tmp_path / "a.jpg", (8, 8), "rgb")
    assert np.abs(got.astype(int) - (200, 40, 10)).max() < 12


def test_jpeg_orientation_is_obeyed(tmp_path):
    data = written(tmp_path / "a.jpg", PHOTO, cv2.IMWRITE_JPEG_QUALITY, 100).read_bytes()
    body = b"Exif\0\0" + exif(6)  # to be turned 90 degrees clockwise
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    got = read_image(tmp_path / "a.jpg", (48, 32), "rgb")
    assert np.abs(got.astype(int) - np.rot90(PHOTO, -1))[4:20, 4:12].max() < 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_orientation_is_the_same_with_and_without_transparency(tmp_path, orientation):
    turned = PHOTO.transpose(1, 0, 2).shape[:2] if orientation >= 5 else PHOTO.shape[:2]
    plain = png_with(written(tmp_path / "plain.png", PHOTO), b"eXIf", exif(orientation))
    opaque = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    alpha = png_with(written(tmp_path / "alpha.png", opaque), b"eXIf", exif(orientation))
    got = read_image(alpha, turned, "rgb")
    np.testing.assert_array_equal(got, read_image(plain, turned, "rgb"))
    assert np.array_equal(got, PHOTO) == (orientation == 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    data = written(tmp_path / f"whole.{suffix}", noise).read_bytes()
    for length in (0, 1, 5, 13, 20, 25, 30, len(data) // 2, len(data) - 3):
        (tmp_path / f"cut.{suffix}").write_bytes(data[:length])
        with pytest.raises(BadInput, match=rf"^image '.*cut\.{suffix}': .+"):
            read_image(tmp_path / f"cut.{suffix}", (8, 8), "rgb")


def test_a_damaged_png_is_refused(tmp_path):
    data = bytearray(written(tmp_path / "a.png", PHOTO).read_bytes())
    data[len(data) // 2] ^= 0x55
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadInput, match="checksum"):
        read_image(tmp_path / "a.png", (8, 8), "rgb")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is text", "not a JPEG, PNG, BMP, TIFF or WebP image"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a JPEG"),
        (b"\xff\xd8" + b"\0" * 64, "a marker is missing"),
        (b"BM" + b"\0" * 16 + b"\1\0\0\0\1\0\0\0" + b"\0" * 64, "corrupt|cut short|pixels"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(tmp_path, content, reason):
    (tmp_path / "x\x1b[2J.png").write_bytes(content)
    with pytest.raises(BadInput, match=reason) as caught:
        read_image(tmp_path / "x\x1b[2J.png", (8, 8), "rgb")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "jpg"])
def test_a_bomb_is_refused_by_its_header(tmp_path, suffix):
    """Files that claim 13,000 x 13,000 pixels but hold none: only a reader of headers can give this reason."""
    side = 13_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IEND", b""))
    )
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (side - 1).to_bytes(3, "little") * 2
    content = {
        "png": b"\x89PNG\r\n\x1a\n" + chunks,
        "bmp": b"BM" + struct.pack("<IIIIii", 54, 0, 54, 40, side, -side) + b"\0" * 28,
        "webp": b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas,
        "tif": b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHIIHHII", 256, 4, 1, side, 257, 3, 1, side << 16),
        "jpg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 8, 8, side, side, 0) + b"\xff\xd9",
    }[suffix]
    (tmp_path / f"bomb.{suffix}").write_bytes(content)
    with pytest.raises(BadInput, match=rf"bomb\.{suffix}': 13000 x 13000 pixels; images of up to 40 megapixels"):
        read_image(tmp_path / f"bomb.{suffix}", (8, 8), "rgb")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("pipe.png", "not a regular file"),
        ("", "not a regular file|directory"),
        ("no.png", "No such file"),
    ):
        with pytest.raises(BadInput, match=reason):
            read_image(tmp_path / name, (8, 8), "rgb")


def test_arrays_are_converted_as_files_are(tmp_path):
    file = written(tmp_path / "a.png", PHOTO)
    for color in ("rgb", "gray"):
        np.testing.assert_array_equal(fitted(PHOTO, (10, 14), color), read_image(file, (10, 14), color))
    one = PHOTO[..., :1]
    assert fitted(one, (32, 48), "rgb").shape == (32, 48, 3)
    np.testing.assert_array_equal(fitted(one[..., 0], (32, 48), "gray"), one)
