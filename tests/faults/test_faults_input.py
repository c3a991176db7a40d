"""Hostile input: images, models and other people's sweeps that are not what they seem. Real sweeps through the command line.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from fault_tools import FOLDER, SYNTHETIC, contents, make_pictures, record, without_root_s_power

from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


@pytest.fixture
def pictures(tmp_path) -> Path:
    return make_pictures(tmp_path / "pictures", each=8)


@pytest.fixture
def folder_file(tmp_path, pictures) -> Path:
    path = tmp_path / "folder.py"
    path.write_text(FOLDER)
    return path


def png_of(width: int, height: int) -> bytes:
    """A whole PNG of one colour, a few kilobytes however many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(1 + width)) for _ in range(height)) + pack.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def spoil(pictures: Path, tmp_path: Path) -> list[str]:
    """One bad file of each kind; their names."""
    cat = pictures / "cat"
    jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (cat / "empty.png").write_bytes(b"")
    (cat / "text.png").write_text("no image at all")
    (cat / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (cat / "bomb.png").write_bytes(png_of(13_000, 13_000))
    os.mkfifo(cat / "fifo.png")
    (tmp_path / "elsewhere.png").write_bytes((cat / "0.png").read_bytes())
    os.symlink(tmp_path / "elsewhere.png", cat / "linked.png")
    os.symlink(cat / "nowhere.png", cat / "broken.png")
    return ["empty.png", "text.png", "cut.jpg", "bomb.png", "fifo.png", "linked.png", "broken.png"]


def test_case_41_check_data_names_every_bad_file(cold, pictures, tmp_path):
    bad = spoil(pictures, tmp_path)
    (pictures / "unwanted").mkdir()
    (pictures / "cat" / "really.jpg").write_bytes((pictures / "cat" / "1.png").read_bytes())

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (300 * 2**20, 300 * 2**20))

    done = cold("check-data", pictures, code=2, preexec_fn=little_memory, env={"OPENBLAS_NUM_THREADS": "1"})
    lines = done.stdout.splitlines()
    assert sorted(line.split(": ")[0].split("/")[-1] for line in lines if line.startswith("bad   cat/")) == sorted(bad)
    (bomb,) = [line for line in lines if "bomb.png" in line]
    assert "13000 x 13000 pixels; images of up to 40 megapixels" in bomb
    assert any("unwanted' has no images" in line for line in lines)
    assert any(line.startswith("note  cat/really.jpg: is a PNG image") for line in lines)
    assert f"{len(bad)} bad; as it is the folder is no data set" in done.stderr
    assert not cold.root.exists()
    found = json.loads(cold("check-data", pictures, "--json", code=2).stdout)
    assert len(found["bad"]) == len(bad) and found["classes"] == 3


def test_case_41_a_sweep_refuses_bad_images_or_skips_them_as_declared(cold, pictures, folder_file, tmp_path):
    bad = spoil(pictures, tmp_path)
    refused = cold("run", folder_file, *PLAIN, code=2).stderr
    assert "cat/" in refused and not (cold.root / "sweeps").exists()
    folder_file.write_text(FOLDER.replace("size=(8, 8)", 'size=(8, 8), on_bad="skip"'))
    said = cold("run", folder_file, *PLAIN).stderr
    assert f"{len(bad)} bad images skipped" in said
    assert [t.state for t in record(cold, "folder").trials()] == [State.COMPLETE] * 2
    (meta,) = (cold.root / "cache").glob("*/meta.json")
    told = json.loads(meta.read_text())
    assert sorted(Path(b["path"]).name for b in told["skipped"]) == sorted(bad)
    assert sum(told["counts"].values()) == 16
    assert "skipped" in cold("run", folder_file, *PLAIN).stderr  # every time


def test_case_41_a_file_that_may_not_be_read(cli, pictures, tmp_path):
    place = Path("/tmp") / f"imgclf-faults-{os.getpid()}"
    shutil.copytree(pictures, place)
    try:
        place.chmod(0o755)
        (place / "cat" / "0.png").chmod(0)
        done = cli("check-data", place, code=2, **without_root_s_power())
        assert "bad   cat/0.png: Permission denied" in done.stdout and "1 bad" in done.stderr
    finally:
        shutil.rmtree(place)


@pytest.mark.fault_slow
def test_case_41_what_is_unusual_but_good_is_good(cli, pictures):
    rng = np.random.default_rng(1)
    deep = rng.integers(0, 65536, (9, 9, 3), np.uint16)
    for name, image in {"deep.png": deep, "clear.png": rng.integers(0, 256, (9, 9, 4), np.uint8)}.items():
        (pictures / "cat" / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    out = cli("check-data", pictures).stdout
    assert "18 images in 2 classes, all good" in out
    (pictures / "cat" / "0.png").unlink()
    assert "no such file" in cli("check-data", pictures / "nowhere", code=2).stderr


@pytest.mark.fault_slow
def test_case_41_check_data_of_a_sweep_file(cli, pictures, folder_file, digits_file):
    assert "16 images in 2 classes, all good" in cli("check-data", folder_file).stdout
    (pictures / "cat" / "0.png").write_bytes(b"x")
    assert "bad   cat/0.png" in cli("check-data", folder_file, code=2).stdout
    assert "digits: 1,797 images in 10 classes, all good" in cli("check-data", digits_file).stdout


def test_case_42_images_changed_or_gone_are_seen_when_it_goes_on(cli, pictures, folder_file):
    cli("run", folder_file, *PLAIN)
    before = record(cli, "folder").trials()
    kept = (pictures / "cat" / "0.png").read_bytes()
    changed = cv2.imencode(".png", np.full((12, 10, 3), 7, np.uint8))[1].tobytes()
    (pictures / "cat" / "0.png").write_bytes(changed)
    refused = cli("run", folder_file, *PLAIN, "--trials", 4, code=2).stderr
    assert "the images changed" in refused
    pictures.rename(pictures.with_name("away"))
    gone = cli("run", folder_file, *PLAIN, "--trials", 4, code=2).stderr
    assert "does not exist" in gone and str(pictures) in gone
    assert record(cli, "folder").trials() == before
    pictures.with_name("away").rename(pictures)
    (pictures / "cat" / "0.png").write_bytes(kept)
    cli("run", folder_file, *PLAIN, "--trials", 4)
    after = record(cli, "folder").trials()
    assert after[:2] == before and [t.state for t in after] == [State.COMPLETE] * 4


MODELS = """
import json, os, sys, zipfile
from pathlib import Path
import keras
from imgclf_sweep.errors import BadInput
from imgclf_sweep.predict import predict

here = Path(sys.argv[1])
(here / "manifest.json").write_text(json.dumps({"images": {"size": [12, 10], "color": "rgb"}}))
(here / "labels.txt").write_text("a\\nb\\n")
target = here / "touched"

def touch(x):
    open(str(target), "w").close()
    return x

model = keras.Sequential([keras.Input((12, 10, 3)), keras.layers.Lambda(touch), keras.layers.Flatten(), keras.layers.Dense(2)])
model.save(here / "lambda.keras")
target.unlink(missing_ok=True)
whole = keras.Sequential([keras.Input((12, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")])
whole.save(here / "good.keras")
data = (here / "good.keras").read_bytes()
(here / "torn.keras").write_bytes(data[: len(data) // 2])
(here / "climbing.keras").write_bytes(data)
with zipfile.ZipFile(here / "climbing.keras", "a") as archive:
    archive.writestr("../climbed", "outside")
for name in ("lambda", "torn", "climbing", "good"):
    try:
        print(name, "gives", predict(here / f"{name}.keras", [Path(sys.argv[2])])[0].label in "ab")
    except BadInput as error:
        print(name, "refused", error)
print("touched", target.exists(), (here.parent / "climbed").exists())
"""


def test_case_43_models_that_would_run_or_write_something_are_refused(cli, pictures, tmp_path, project):
    import subprocess
    import sys

    here = tmp_path / "models"
    here.mkdir()
    line = [sys.executable, "-c", MODELS, str(here), str(pictures / "cat" / "0.png")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, cwd=project)
    assert done.returncode == 0, done.stderr
    said = dict(row.split(" ", 1) for row in done.stdout.splitlines() if row)
    assert said["lambda"].startswith("refused") and "Lambda" in said["lambda"]
    assert said["torn"].startswith("refused") and "torn" in said["torn"]
    assert said["climbing"].startswith("refused") and "../climbed" in said["climbing"]
    assert said["good"] == "gives True" and said["touched"] == "False False"


SPY = """
import os, pathlib
pathlib.Path(os.environ["SPY"]).touch()
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(), space=SearchSpace(filters=Choice([2, 4]), dropout=Float(0.0, 0.5)), epochs=1, trials=2,
)
"""


def test_case_44_a_stranger_s_sweep_is_shown_without_running_its_file(cli, tmp_path):
    file, spy = tmp_path / "spy.py", tmp_path / "spied"
    file.write_text(SPY)
    env = {"env": {"SPY": str(spy)}}
    cli("run", file, *PLAIN, **env)
    assert spy.exists(), "the spy does not work"
    spy.unlink()
    verbs = [("list",), ("status", "spy"), ("trials", "spy"), ("best", "spy"), ("compare", "spy"), ("figures", "spy")]
    for verb in verbs:
        cli(*verb, **env)
    study = cli.root / "sweeps" / "spy" / "optuna.db"
    assert study.is_file()
    database = cli.root / "sweeps" / "spy" / "sweep.db"
    database.write_bytes(database.read_bytes()[:8192])
    cli("repair", "spy", **env)
    cli("status", "spy", **env)
    assert not spy.exists()


PACKAGE = Path(__file__).resolve().parents[2] / "imgclf_sweep"
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "multiprocessing"}
FORBIDDEN_CALLS = {"enable_unsafe_deserialization", "eval", "exec", "extractall", "allow_pickle"}
SAFELY = {"load_model": ("safe_mode", True), "model_from_json": ("safe_mode", True)}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_pickle_anywhere_and_models_only_in_safe_mode(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] not in FORBIDDEN_MODULES
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = (
            node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
        )
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        assert called not in FORBIDDEN_CALLS, f"line {node.lineno}: {called}"
        if (owner, called) == ("np", "load"):
            assert given.get("allow_pickle") is False, f"line {node.lineno}: np.load without allow_pickle=False"
        if called in SAFELY:
            name, value = SAFELY[called]
            assert given.get(name) is value, f"line {node.lineno}: {called} without {name}={value}"


def test_what_a_sweep_leaves_behind_holds_no_pickle(cli, digits_file):
    cli("run", digits_file, *PLAIN, "--trials", 2)
    for name, data in contents(cli.root).items():
        assert not name.endswith((".pkl", ".pickle", ".joblib")), name
        assert not data.startswith((b"\x80\x03", b"\x80\x04", b"\x80\x05")), name
        if zipfile.is_zipfile(cli.root / name):
            with zipfile.ZipFile(cli.root / name) as archive:
                assert not [n for n in archive.namelist() if n.endswith(".pkl")]
