"""What the fault tests share: reading a record, waiting for a running sweep, being another user."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.trial import State

SYNTHETIC = ("--trainer", "synthetic")
KERAS_TUNER = ("--backend", "keras-tuner", "--sampler", "bayesian")
BOTH = [pytest.param((), id="optuna"), pytest.param(KERAS_TUNER, id="keras-tuner", marks=pytest.mark.fault_slow)]
"""Options of a sweep, for cases in which the search library makes a difference."""
SOMEBODY = 61234  # a user number that nobody has


def record(cli, name: str = "little") -> Reader:
    return Reader(SweepDir(cli.root, name))


def told(trials) -> list[tuple]:
    """What must be equal in two runs of one sweep: everything but times and attempts."""
    return [(t.number, t.state, t.params, t.value, t.epoch, t.epochs, t.parent, dict(t.curve)) for t in trials]


def finished(cli, name: str = "little") -> int:
    if not (cli.root / "sweeps" / name / "sweep.db").exists():
        return 0
    return sum(t.state.finished for t in record(cli, name).trials())


def wait_until(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.05)


@contextlib.contextmanager
def running(cli, *arguments, **options) -> Iterator[subprocess.Popen]:
    """A sweep in the background; it and its workers are killed at the end if they still run."""
    process = cli.start(*arguments, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def kill(process: subprocess.Popen) -> None:
    """`kill -9` of the coordinator alone."""
    process.kill()
    process.communicate()


def contents(path: Path) -> dict[str, bytes]:
    """Every file below `path` but the lock, which says who held it last."""
    return {
        str(p.relative_to(path)): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name != "sweep.lock"
    }


def without_root_s_power() -> dict[str, object]:
    """Options of a process to which the permissions of files apply, even where the tests run as root: it keeps its user, who may
    have Python itself in a closed directory, but loses the capabilities to pass them over."""
    libc = ctypes.CDLL(None)

    def drop() -> None:
        for capability in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
            if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP: gone from the program that is started next
                raise OSError("the capabilities cannot be dropped")

    return {"preexec_fn": drop} if os.geteuid() == 0 else {}


def another_user(processes: int | None = None) -> dict[str, object]:
    """Options of a process that belongs to a user who owns nothing, even where the tests run as root; it may read everything, as
    Python itself may lie in a closed directory.   processes: how many, threads included, that user may have in all.
    """

    def become() -> None:
        if processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        if os.geteuid() == 0:
            _become(SOMEBODY)

    return {"preexec_fn": become}


def _become(user: int) -> None:
    """Change to another user and keep one capability, CAP_DAC_READ_SEARCH, also in the programs started from then on."""
    libc, capability = ctypes.CDLL(None, use_errno=True), 2
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)(*[1 << capability] * 3, 0, 0, 0)  # effective, permitted, inheritable
    if libc.prctl(8, 1, 0, 0, 0):  # PR_SET_KEEPCAPS
        raise OSError("the capabilities cannot be kept")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if libc.capset(header, sets) or libc.prctl(47, 2, capability, 0, 0):  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        raise OSError("the capability cannot be passed on")


def make_removable(place: Path) -> None:
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o755)
    shutil.rmtree(place)


def sweep_dir(cli, name="little") -> Path:
    return cli.root / "sweeps" / name


def endings(cli, number: int, name: str = "little") -> list[str]:
    return [attempt.ending for attempt in record(cli, name).attempts(number)]


def states(cli) -> list[State]:
    return [t.state for t in record(cli).trials()]


def trains(cli, number: int, epochs: int = 1) -> bool:
    """Whether this trial runs and has measured so many epochs."""
    if not (cli.root / "sweeps" / "little" / "sweep.db").exists():
        return False
    return any(t.number == number and t.state is State.RUNNING and t.epochs >= epochs for t in record(cli).trials())


def some(cases, *fast):
    """The names of all cases, of which only the `fast` ones run every time."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.fault_slow) for name in cases]


FOLDER = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.image_folder("pictures", size=(8, 8)),
    space=SearchSpace(filters=Choice([2, 4, 8]), dropout=Float(0.0, 0.5)),
    epochs=2, trials=2, backend="random",
)
"""
"""A sweep on the pictures that `make_pictures` puts beside it."""


def make_pictures(place: Path, each: int) -> Path:
    """Two classes of so many distinct images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dög"):
        (place / name).mkdir(parents=True)
        for n in range(each):
            image = cv2.imencode(".png", rng.integers(0, 256, (12, 10, 3), np.uint8))[1]
            (place / name / f"{n}.png").write_bytes(image.tobytes())
    return place
