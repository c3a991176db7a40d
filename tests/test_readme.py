"""Every `sweep` command in the README works as it stands there, on small data."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
SMALL = ["--limit-images", "60", "--epochs", "1"]


def commands():
    """The command lines that begin with `sweep` in the README's code blocks, without `$` and remarks, in order."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    found = [re.split(r"\s{2,}#", line)[0].split() for line in lines if line.startswith("sweep ")]
    return list(dict.fromkeys(tuple(line) for line in found))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder like a checkout: the search spaces, little data in the real layouts, an image."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(README.parent / "search_spaces", place / "search_spaces")
    rng = np.random.default_rng(0)
    (place / "data").mkdir()
    for name, shape in (("cifar10", (32, 32, 3)), ("mnist", (28, 28)), ("fashion_mnist", (28, 28))):
        arrays = {}
        for part, count in (("train", 300), ("test", 100)):
            arrays[f"x_{part}"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"y_{part}"] = np.arange(count, dtype=np.uint8) % 10
        np.savez(place / "data" / f"{name}.npz", **arrays)
    cv2.imwrite(str(place / "photo.png"), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    return place


def environment(place):
    return {**os.environ, "IMGCLF_SWEEP_DATA": str(place / "data"), "COLUMNS": "120"}


def small(command):
    """The command at a small size. A sweep goes on with the size that it began with."""
    if command[1] != "run":
        return list(command)
    words = [*command, *SMALL]
    if "--trials" in words:
        at = words.index("--trials") + 1
        words[at] = str(min(int(words[at]), 3))
        return words
    return [*words, "--trials", "3"]


def test_the_readme_has_commands():
    verbs = {command[1] for command in commands()}
    assert verbs >= {"run", "check", "list", "status", "trials", "best", "retrain", "predict", "board"}


@pytest.mark.slow
def test_every_command_of_the_readme_works(place):
    """In one test, because each goes on where the one before it ended."""
    main = [sys.executable, "-m", "imgclf_sweep"]
    for command in commands():
        line = main + small(command)[1:]
        if command[1] == "board":
            served = subprocess.Popen(
                line, cwd=place, env=environment(place), stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            said = ""
            while "http://127.0.0.1" not in said:
                said = served.stdout.readline()
                assert said, f"{' '.join(command)}: no address was printed"
            os.killpg(served.pid, signal.SIGINT)
            served.communicate(timeout=30)
            continue
        done = subprocess.run(line, cwd=place, env=environment(place), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
