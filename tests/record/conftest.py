"""A small declared sweep, the directory of its record, and processes of our own to kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Images:
    path: Path = Path("/nowhere/cache/digits-1")
    fingerprint: str = "f1"


@pytest.fixture
def sweep() -> Sweep:
    space = SearchSpace(filters=Choice([16, [16, 32]]), dropout=Float(0.2, 0.5))
    return Sweep(dataset=datasets.digits(), space=space, epochs=5, trials=4)


@pytest.fixture
def directory(tmp_path: Path) -> SweepDir:
    return SweepDir(tmp_path / "root", "s")


@pytest.fixture
def images() -> type[Images]:
    return Images


@pytest.fixture
def opened(directory: SweepDir, sweep: Sweep) -> Iterator[Callable[..., Record]]:
    """Opens the record, with anything but the defaults as keywords; closes what a test leaves open."""
    records: list[Record] = []

    def opening(declared: Sweep = sweep, at: SweepDir = directory, **changed: object) -> Record:
        given = {"trials": declared.trials, "limit_images": None, "data": Images()} | changed
        records.append(Record.open(at, declared, **given))  # type: ignore[arg-type]
        return records[-1]

    yield opening
    for record in records:
        record.close()


PRELUDE = """
import os, sys, time, resource, signal
from pathlib import Path
sys.path.insert(0, PROJECT)
sys.path.insert(0, PROJECT + "/tests/record")
from conftest import Images
from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import SweepError
from imgclf_sweep.record import lock, opening, schema, write
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion
directory = SweepDir(Path(sys.argv[1]), sys.argv[2])
space = SearchSpace(filters=Choice([16, [16, 32]]), dropout=Float(0.2, 0.5))
sweep = Sweep(dataset=datasets.digits(), space=space, epochs=5, trials=4)

def opened(**changed):
    return Record.open(directory, sweep, **({"trials": 4, "limit_images": None, "data": Images()} | changed))

def say(*words):
    print(*words, flush=True)
"""


@pytest.fixture
def process(directory: SweepDir) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python on PRELUDE and the given lines, with pipes; kills what is left at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(lines: str, **options: object) -> subprocess.Popen[str]:
        script = PRELUDE.replace("PROJECT", repr(str(PROJECT))) + lines
        command = [sys.executable, "-B", "-c", script, str(directory.root), directory.name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, **(pipes | options)))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
