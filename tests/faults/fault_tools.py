"""What the fault tests share: reading a record, waiting for a running sweep, being another user."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader

SYNTHETIC = ("--trainer", "synthetic")
NOBODY = 65534


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


def as_nobody() -> dict[str, object]:
    """Options of a process that runs as an unprivileged user where the tests run as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def without_root_s_power() -> dict[str, object]:
    """Options of a process to which the permissions of files apply, even where the tests run as root: it keeps its user, who may
    have Python itself in a closed directory, but loses the capabilities to pass them over."""
    libc = ctypes.CDLL(None)

    def drop() -> None:
        for capability in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
            if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP: gone from the program that is started next
                raise OSError("the capabilities cannot be dropped")

    return {"preexec_fn": drop} if os.geteuid() == 0 else {}


def make_removable(place: Path) -> None:
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o755)
    shutil.rmtree(place)
