"""Listing and decoding a folder of images, and everything that is refused about one."""

import os
import shutil

import cv2
import numpy as np
import pytest

from imgclf_sweep.data.folder import decode, list_folder
from imgclf_sweep.errors import BadInput


def test_classes_by_name_and_images_at_any_depth(pictures):
    root = pictures({"dog": 3, "cat": 2})
    deep = root / "dog" / "a" / "b"
    deep.mkdir(parents=True)
    shutil.copy(root / "dog" / "000.png", deep / "UPPER.PNG")
    for ignored in (".hidden.png", "notes.txt", "Thumbs.db"):
        (root / "dog" / ignored).write_text("no image")
    (root / ".git").mkdir()
    (root / "labels.csv").write_text("x")
    listing = list_folder(root)
    assert listing.classes == ("cat", "dog")
    assert listing.test is None
    names = [(f.path, f.label) for f in listing.train]
    assert names == [
        *[(f"cat/{i:03}.png", 0) for i in range(2)],
        *[(f"dog/{i:03}.png", 1) for i in range(3)],
        ("dog/a/b/UPPER.PNG", 1),
    ]
    assert listing.train[0].size == (root / "cat" / "000.png").stat().st_size
    assert listing.left_out().startswith(
        "3 files are not read (.csv 1, .db 1, .txt 1); read are, in class folders, .jpg"
    )
    (root / "cat" / "live.HEIC").write_text("no image we read")
    assert "4 files are not read" in list_folder(root).left_out() and ".heic 1" in list_folder(root).left_out()


def test_train_and_test_parts(pictures):
    pictures({"cat": 3, "dog": 2}, under="train")
    listing = list_folder(pictures({"cat": 1, "dog": 1}, under="test"))
    assert listing.classes == ("cat", "dog")
    assert [f.path for f in listing.test] == ["test/cat/000.png", "test/dog/000.png"]
    assert len(listing.train) == 5 and listing.left_out() is None


def test_decoding_is_in_the_listing_s_order(pictures):
    listing = list_folder(pictures({"a": 70, "b": 80}))
    out = np.zeros((150, 12, 10, 3), np.uint8)
    decode(listing.root, listing.train, (12, 10), "rgb", out)
    for index in (0, 69, 70, 149):
        bgr = cv2.imread(str(listing.root / listing.train[index].path))
        np.testing.assert_array_equal(out[index], bgr[..., ::-1])


def test_every_bad_image_is_counted_and_the_first_named(pictures):
    root = pictures({"a": 70, "b": 80})
    for name in ("b/050.png", "a/069.png", "b/001.png"):
        (root / name).write_bytes(b"text")
    listing = list_folder(root)
    out = np.zeros((150, 12, 10, 3), np.uint8)
    with pytest.raises(BadInput, match=r"a/069\.png': not a JPEG.*\(and 2 other bad images\); see  sweep check-data /"):
        decode(listing.root, listing.train, (12, 10), "rgb", out)


def refused(root, *words):
    with pytest.raises(BadInput) as caught:
        list_folder(root)
    line = str(caught.value)
    assert line.isprintable()
    for word in words:
        assert word in line


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "not a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no sub-folders")


def test_one_class_only(pictures):
    refused(pictures({"cat": 3}), "one class only", "cat")


def test_a_class_with_one_image_or_none(pictures):
    root = pictures({"cat": 3, "dog": 1})
    refused(root, "dog", "one image only")
    (root / "dog" / "000.png").rename(root / "dog" / "000.gif")
    refused(root, "dog", "has no images", ".jpeg")


def test_a_class_name_with_control_characters(pictures):
    refused(pictures({"cat": 3, "do\x1b[2Jg": 3}), "do\\x1b[2Jg", "control characters")


def test_a_class_name_that_is_no_text(pictures):
    root = pictures({"cat": 3, "dog": 3})
    os.rename(root / "dog", os.fsencode(root) + b"/d\xffg")
    refused(root, "control characters")


def test_parts_that_do_not_agree(pictures):
    root = pictures({"cat": 3, "dog": 3}, under="train")
    refused(root, "train/ but no test/")
    pictures({"cat": 3, "cow": 3}, under="test")
    refused(root, "only one of train/ and test/", "cow, dog")
    pictures({"cat": 3, "dog": 3}, under="val")
    refused(root, "beside them: val", "belong in train/")


def test_links(pictures, tmp_path):
    root = pictures({"cat": 3, "dog": 3})
    inside = root / "cat" / "again.png"
    inside.symlink_to(root / "cat" / "000.png")
    assert len(list_folder(root).train) == 7
    (tmp_path / "secret.png").write_bytes((root / "cat" / "001.png").read_bytes())
    outside = root / "cat" / "out.png"
    outside.symlink_to(tmp_path / "secret.png")
    refused(root, "out.png", "link out of the image folder")
    outside.unlink()
    outside.symlink_to(root / "cat" / "gone.png")
    refused(root, "out.png", "No such file")
    outside.unlink()
    (tmp_path / "elsewhere").mkdir()
    (root / "cow").symlink_to(tmp_path / "elsewhere")
    refused(root, "cow", "link out of the image folder")
    (root / "cow").unlink()
    (root / "cat" / "circle").symlink_to(root)
    refused(root, "circle", "link to another folder")


def test_the_folder_itself_may_be_a_link(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures({"cat": 3, "dog": 3}))
    assert len(list_folder(tmp_path / "link").train) == 6


def test_a_fifo_among_the_images(pictures):
    root = pictures({"cat": 3, "dog": 3})
    os.mkfifo(root / "cat" / "pipe.png")
    refused(root, "pipe.png", "not a regular file")
