"""What a long night costs: memory, open files and the record's size along one real `sweep run` of many one-epoch trials.

    python -m benchmarks.endurance                                   (1,000 trials of Keras `fit` on the digits)
    python -m benchmarks.endurance --trainer synthetic               (the same with the trainer that trains nothing)
    python -m benchmarks.endurance --trainer compiled                (one program for all)
    python -m benchmarks.endurance --trials 200 --workers 2 --backend keras-tuner --sampler random

One row is printed for every `--every` finished trials. Workers are replaced as the sweep runs; the column "workers" counts the
processes seen so far. Memory is resident memory, shared pages included; a worker's is the highest since the row before. The
last line printed is one JSON object. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from imgclf_sweep.executors.memory import resident
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader

NAME = "endurance"
FILE = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(
        filters=Choice([2, 4]), dense_units=Int(4, 16), dropout=Float(0.0, 0.5), learning_rate=Float(1e-3, 1e-1, log=True)
    ),
    epochs=1,
)
"""
LOOK_SECONDS = 0.5
MEGA = 1e6


@dataclass
class Row:
    """What there was when `trials` trials were finished. Memory and sizes in MB."""

    trials: int
    seconds: float
    coordinator: float
    files: int  # open, of the coordinator
    threads: int  # of the coordinator
    workers: int  # processes that trained, so far
    worker: float  # the largest since the row before
    worker_files: int  # open, the most of a worker since the row before
    record: float  # sweep.db and its log
    logs: float  # what TensorBoard reads


def endure(command: Sequence[object], root: Path, every: int) -> Iterator[Row]:
    """Run `sweep run COMMAND` under `root` and look at it until it ends; the last row is of its last moment at work.

    Raises: RuntimeError where it fails.
    """
    line = [sys.executable, "-m", "imgclf_sweep", "run", *map(str, command), "--name", NAME, "--root", str(root)]
    started, seen, due = time.monotonic(), set[int](), every
    largest = most_files = 0
    last: Row | None = None  # not yet given
    with open(root / "run.log", "wb") as log:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            time.sleep(LOOK_SECONDS)
            at_work = workers_of(process.pid)
            done = finished(root)
            if not (at_work and done):  # it is starting, or ending
                continue
            seen.update(at_work)
            largest = max(largest, *map(resident, at_work))
            most_files = max(most_files, *(count(pid, "fd") for pid in at_work))
            last = _row(root, process.pid, done, time.monotonic() - started, (len(seen), largest, most_files))
            if done >= due:
                yield last
                due = done - done % every + every
                last, largest, most_files = None, 0, 0
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(
            f"the sweep ended with status {process.returncode}:\n{(root / 'run.log').read_text()[-2000:]}"
        )
    if last is not None:
        yield last


def _row(root: Path, pid: int, done: int, seconds: float, workers: tuple[int, int, int]) -> Row:
    directory = SweepDir(root, NAME)
    own = resident(pid) / MEGA, count(pid, "fd"), count(pid, "task")
    sizes = size(directory.path, "sweep.db*") / MEGA, size(directory.logs, "**/*") / MEGA
    return Row(done, seconds, *own, workers[0], workers[1] / MEGA, workers[2], *sizes)


def workers_of(coordinator: int) -> list[int]:
    """The living workers of this coordinator that have a slot or wait for one; it is named in their command line."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
            if b"imgclf_sweep.executors.worker" in words and str(coordinator).encode() in words:
                found.append(int(name))
    return found


def count(pid: int, what: str) -> int:
    """How many of /proc/PID/fd or /proc/PID/task there are; 0 if the process is gone."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/{what}"))
    return 0


def finished(root: Path) -> int:
    directory = SweepDir(root, NAME)
    return sum(t.state.finished for t in Reader(directory).trials()) if directory.exists() else 0


def size(folder: Path, names: str) -> int:
    """Bytes of the files of these names."""
    total = 0
    for path in folder.glob(names):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="finished trials between two rows")
    parser.add_argument("--trainer", choices=["fit", "compiled", "synthetic"], default="fit")
    parser.add_argument("--limit-images", type=int, default=100, help="images that are searched with")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--backend", default="optuna")
    parser.add_argument("--sampler", default="tpe")
    given = parser.parse_args()
    command = ["--trials", given.trials, "--trainer", given.trainer, "--limit-images", given.limit_images]
    command += ["--workers", given.workers, "--backend", given.backend, "--sampler", given.sampler, "--pruner", "none"]
    print("trials    min  coordinator MB  files  threads  workers  worker MB  files  record MB  logs MB", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="endurance-") as place:
        file = Path(place) / "endurance.py"
        file.write_text(FILE)
        for row in endure([file, *command], Path(place), given.every):
            rows.append(row)
            print(
                f"{row.trials:6d} {row.seconds / 60:6.1f} {row.coordinator:15.0f} {row.files:6d} {row.threads:8d} "
                f"{row.workers:8d} {row.worker:10.0f} {row.worker_files:6d} {row.record:10.2f} {row.logs:8.1f}",
                flush=True,
            )
    print(json.dumps({"command": vars(given), "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
