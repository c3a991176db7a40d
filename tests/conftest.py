"""What all tests share: a quiet, repeatable environment and where the real images are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Under nohup, or started by a script in the background, these are ignored, and so they would be in every program under test.
for _signal, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _usual)

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project() -> Path:
    """The checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with cifar10.npz, mnist.npz and photo folders, named by IMGCLF_SWEEP_DATA; skips without it."""
    given = os.environ.get("IMGCLF_SWEEP_DATA")
    if not given or not (Path(given) / "cifar10.npz").exists():
        pytest.skip("no real images: IMGCLF_SWEEP_DATA is not set")
    return Path(given)


class Cli:
    """The real `sweep` command on a root of its own. `start` leaves it running, `__call__` waits for its end."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, *arguments: object, synthetic: dict | None = None, **options) -> subprocess.Popen:
        environment = {**os.environ, "IMGCLF_SWEEP_SYNTHETIC": json.dumps(synthetic or {}), "COLUMNS": "120"}
        environment |= options.pop("env", {})
        command = [sys.executable, "-m", "imgclf_sweep", *map(str, arguments)]
        command += [] if {"--help", "--version"} & set(command) else ["--root", str(self.root)]
        pipe = subprocess.PIPE
        options = {"stdout": pipe, "stderr": pipe, "cwd": PROJECT} | options
        return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **options)

    def __call__(self, *arguments: object, code: int | None = 0, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if code is not None:
            assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err, out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: object):
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture(scope="session")
def cli_class() -> type[Cli]:
    """For fixtures that several tests share: they bring a root of their own."""
    return Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "root")


DIGITS = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(
        filters=Choice([2, 4, 8]),
        dense_units=Int(4, 64, step=4),
        dropout=Float(0.0, 0.5),
        optimizer=Choice(["adam", "sgd"]),
        momentum=Float(0.1, 0.9, when={"optimizer": "sgd"}),
    ),
    epochs=4,
    trials=10,
    seed=3,
)
"""


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """A sweep file of five parameters, one of them conditional, on scikit-learn's digits."""
    path = tmp_path / "little.py"
    path.write_text(DIGITS)
    return path
