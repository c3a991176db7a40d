"""The decoded set under cache/: built once, found again, never half there; the test part sealed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgclf_sweep.data import build, datasets
from imgclf_sweep.data.cache import Prepared, open_test, prepare
from imgclf_sweep.data.preprocess import fit_affine
from imgclf_sweep.data.split import parts
from imgclf_sweep.errors import BadInput, StoreError

COUNTS = {"cat": 10, "dog": 8}


@pytest.fixture
def made(tmp_path) -> Callable[..., Prepared]:
    """Prepares a data set under the test's own cache; `.notes` gathers what was said."""

    def make(dataset: datasets.Dataset, test: float = 0.25, seed: int = 0, **others) -> Prepared:
        given = {"cache": tmp_path / "root" / "cache", "data_dir": None, "note": make.notes.append} | others
        return prepare(dataset, test=test, seed=seed, **given)

    make.notes = []
    return make


def folder(root: Path, **others) -> datasets.Dataset:
    return datasets.image_folder(root, **{"size": (12, 10)} | others)


def images_of(root: Path, *names: str) -> set[bytes]:
    found = [file for name in names or ("",) for file in (root / name).rglob("*.png")]
    return {np.ascontiguousarray(cv2.imread(str(file))[..., ::-1]).tobytes() for file in found}


def test_everything_is_in_exactly_one_part(pictures, made):
    root = pictures(COUNTS)
    prepared = made(folder(root))
    x, y = prepared.train()
    test_x, test_y = open_test(prepared, lambda: None)
    assert (x.dtype, x.shape, y.dtype) == (np.uint8, (14, 12, 10, 3), np.int64)
    assert isinstance(x, np.memmap)
    assert not x.flags.writeable
    assert (prepared.train_images, prepared.test_images) == (14, 4) == (len(y), len(test_y))
    assert (prepared.shape, prepared.classes) == ((12, 10, 3), ["cat", "dog"])
    for label, name in enumerate(prepared.classes):
        stored = {image.tobytes() for image in [*x[y == label], *test_x[test_y == label]]}
        assert stored == images_of(root, name)
    assert np.bincount(test_y).tolist() == [2, 2]


def test_an_official_test_part_is_kept_whole(pictures, made):
    pictures({"cat": 4, "dog": 4}, under="train")
    root = pictures({"cat": 2, "dog": 3}, under="test")
    prepared = made(folder(root))
    assert made(folder(root), test=0.5, seed=9) == prepared, "test and seed have no say"
    assert {image.tobytes() for image in prepared.train()[0]} == images_of(root, "train")
    assert {image.tobytes() for image in open_test(prepared, lambda: None)[0]} == images_of(root, "test")
    assert not any("identical" in note for note in made.notes)


def test_test_images_that_are_also_training_images_are_reported_every_time(pictures, made):
    pictures({"cat": 4, "dog": 4}, under="train")
    root = pictures({"cat": 2, "dog": 3}, under="test")
    shutil.copy(root / "train" / "cat" / "000.png", root / "test" / "cat" / "copy.png")
    for times in (1, 2):
        made(folder(root))
        assert sum("1 of 6 test images are byte-identical to a training image" in note for note in made.notes) == times


def test_duplicates_have_one_group_and_are_never_parted(pictures, made):
    root = pictures(COUNTS)
    for copy in range(6):
        shutil.copy(root / "cat" / "003.png", root / "cat" / f"copy{copy}.png")
    for seed in range(4):
        prepared = made(folder(root), seed=seed)
        train = [image.tobytes() for image in prepared.train()[0]]
        test = {image.tobytes() for image in open_test(prepared, lambda: None)[0]}
        assert not test & set(train)
        groups = prepared.groups().tolist()
        same = [[a == b for a in train] for b in train]
        assert same == [[a == b for a in groups] for b in groups]


def test_the_second_time_nothing_is_decoded(pictures, made, opened):
    data = folder(pictures(COUNTS))
    prepared = made(data)
    said = len(made.notes)
    opened.clear()
    assert made(data) == prepared == Prepared.open(prepared.path)
    assert len(made.notes) == said
    assert not [name for name in opened if name.endswith((".png", ".npy"))]
    assert [path.name for path in prepared.path.parent.iterdir()] == [prepared.path.name], "no lock, nothing half made"


def test_scaling_does_not_need_another_copy_but_colour_size_seed_and_part_do(pictures, made):
    root = pictures(COUNTS)
    first = made(folder(root))
    assert made(folder(root, scale="standard")) == first
    others = [
        made(folder(root, color="gray")),
        made(folder(root, size=(6, 5))),
        made(folder(root), seed=1),
        made(folder(root), test=0.5),
    ]
    assert len({p.path for p in [first, *others]}) == len({p.fingerprint for p in [first, *others]}) == 5


def test_changed_files_make_another_key_and_only_changed_pixels_another_fingerprint(pictures, made):
    root = pictures(COUNTS)
    first = made(folder(root))
    file = root / "cat" / "000.png"
    os.utime(file, ns=(1, 1))
    touched = made(folder(root))
    assert touched.path != first.path
    assert touched.fingerprint == first.fingerprint
    image = cv2.imread(str(file))
    image[0, 0] ^= 1
    cv2.imwrite(str(file), image)
    changed = made(folder(root))
    assert changed.fingerprint != first.fingerprint


def test_a_new_content_of_the_same_size_and_time_is_seen(tmp_path, made):
    for name in ("cat", "dog"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for index in range(4):
            image = np.full((4, 4, 3), 20 * index + 100 * (name == "dog"), np.uint8)
            cv2.imwrite(str(tmp_path / "p" / name / f"{index}.bmp"), image)
    first = made(folder(tmp_path / "p"))
    file = tmp_path / "p" / "cat" / "0.bmp"
    before = file.stat()
    cv2.imwrite(str(file), np.full((4, 4, 3), 77, np.uint8))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert made(folder(tmp_path / "p")).fingerprint != first.fingerprint


def test_nothing_but_open_test_opens_the_test_part(pictures, made, opened):
    pictures({"cat": 6, "dog": 6}, under="train")
    data = folder(pictures({"cat": 2, "dog": 3}, under="test"))
    made(data)
    opened.clear()
    prepared = Prepared.open(made(data).path)
    x, _ = prepared.train()
    split = parts(prepared, 0.25, 0, limit_images=8)
    fit_affine(x, "standard", split.train)
    prepared.groups(), prepared.labels()
    assert any(name.endswith("train_x.npy") for name in opened), "the watch works"
    assert not [name for name in opened if "test_" in Path(name).name]

    at_commit = []
    open_test(prepared, lambda: at_commit.extend(opened))
    assert not [name for name in at_commit if "test_" in Path(name).name], "committed first"
    assert {Path(name).name for name in opened if "test_" in Path(name).name} == {"test_x.npy", "test_y.npy"}


def test_a_commit_that_fails_leaves_the_test_part_closed(pictures, made, opened):
    prepared = made(folder(pictures(COUNTS)))
    opened.clear()

    def commit():
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        open_test(prepared, commit)
    assert not [name for name in opened if "test_" in Path(name).name]


@pytest.mark.parametrize("spoil", ["bad image", "few distinct", "changed while read"])
def test_bad_data_leaves_nothing_behind(pictures, made, tmp_path, monkeypatch, spoil):
    root = pictures(COUNTS)
    if spoil == "bad image":
        (root / "cat" / "000.png").write_bytes(b"text")
        reason = "cat/000.png"
    elif spoil == "few distinct":
        for index in range(1, 8):
            shutil.copy(root / "dog" / "000.png", root / "dog" / f"{index:03}.png")
        reason = r"class 'dog' has too few distinct images \(1\); the training, validation and test parts need 3"
    else:
        load = build.load

        def slow(*arguments):
            os.utime(root / "cat" / "000.png", ns=(1, 1))
            return load(*arguments)

        monkeypatch.setattr(build, "load", slow)
        reason = "changed while they were read"
    with pytest.raises(BadInput, match=reason):
        made(folder(root))
    assert not (tmp_path / "root").exists()


def test_a_missing_folder_creates_nothing(made, tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        made(folder(tmp_path / "nowhere"))
    assert not (tmp_path / "root").exists()


def test_a_damaged_set_is_refused_and_made_again(pictures, made):
    data = folder(pictures(COUNTS))
    prepared = made(data)
    for name, content in (("train_x.npy", b"short"), ("meta.json", b"{"), ("test_y.npy", None)):
        file = prepared.path / name
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StoreError, match="missing or damaged"):
            Prepared.open(prepared.path)
        assert made(data) == prepared
        assert len(prepared.train()[0]) == 14


def test_a_cache_that_cannot_be_written_is_a_store_error(pictures, made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        made(folder(pictures(COUNTS)), cache=tmp_path / "file" / "cache")


def test_a_full_disk_is_a_store_error(pictures, made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left"):
        made(folder(pictures(COUNTS)))
    assert not (tmp_path / "root").exists()


def test_meta_says_what_was_declared(pictures, made):
    prepared = made(folder(pictures(COUNTS), color="gray"))
    meta = json.loads((prepared.path / "meta.json").read_text())
    assert meta["declaration"]["color"] == "gray"
    assert meta["declaration"]["test"] == 0.25
    assert meta["counts"] == {"train": 14, "test": 4}


def test_digits(made):
    prepared = made(datasets.digits(), test=0.2)
    assert (prepared.shape, prepared.train_images, prepared.test_images) == ((8, 8, 1), 1438, 359)
    cut = parts(prepared, 0.2, 0, limit_images=60)
    assert (len(cut.train), len(cut.validation)) == (48, 12)
    assert np.bincount(prepared.labels()[cut.validation], minlength=10).min() >= 1


PREPARE = """
import os, signal, sys
from pathlib import Path
from imgclf_sweep.data import cache, datasets
root, where, kill = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
if kill:  # dies with everything decoded and nothing renamed
    cache.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
print(cache.prepare(datasets.image_folder(root, size=(12, 10)), cache=where, data_dir=None, test=.25, seed=0,
                    note=lambda line: print("note:", line), progress=lambda line: print(line)).fingerprint)
"""


def started(project: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", PREPARE, *map(str, arguments)]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True)


def test_many_processes_build_it_once(pictures, project, tmp_path):
    root = pictures({"cat": 200, "dog": 200})
    children = [started(project, root, tmp_path / "cache") for _ in range(4)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert sum("decoding" in text for text in said) == 1
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_a_killed_build_leaves_nothing_that_is_used(pictures, project, tmp_path):
    root, cache = pictures(COUNTS), tmp_path / "cache"
    child = started(project, root, cache, "kill")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    left = os.listdir(cache)
    assert left
    assert all(name.startswith(".") for name in left)
    prepared = prepare(folder(root), cache=cache, data_dir=None, test=0.25, seed=0, note=lambda line: None)
    assert os.listdir(cache) == [prepared.path.name]
    assert len(prepared.train()[0]) == 14


@pytest.mark.realdata
def test_real_cifar10(real_data, made):
    prepared = made(datasets.cifar10(color="gray"), data_dir=real_data)
    assert (prepared.shape, prepared.train_images, prepared.test_images) == ((32, 32, 1), 50_000, 10_000)
    cut = parts(prepared, 0.2, 0, limit_images=5000)
    assert np.bincount(prepared.labels()[cut.validation]).tolist() == [100] * 10
    x, y = prepared.train()
    means = [x[y == label].mean() for label in range(10)]
    assert means[0] == max(means), "airplanes in the sky are the brightest pictures of CIFAR-10"


@pytest.mark.realdata
def test_real_photos(real_data, made):
    if not (real_data / "sign_digits").exists():
        pytest.skip("no sign_digits")
    prepared = made(datasets.image_folder(real_data / "sign_digits", size=(64, 64), color="gray"))
    assert prepared.train_images + prepared.test_images == 2062
    assert prepared.classes == list("0123456789")
