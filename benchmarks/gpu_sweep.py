"""The same grid through the real `sweep run`, for `benchmarks.gpu --sweep`: with proposals, record, logs and weights."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader

SPACE = Path(__file__).with_name("gray_six.py")
FILE = """
import runpy

sweep = runpy.run_path({space!r})["sweep"].replaced(batch_size={batch}, epochs={epochs})
"""
TEST_IMAGES = 10  # of those made up; the sweep never opens them


def run(
    x: np.ndarray, y: np.ndarray, *, epochs: int, batch: int, lanes: int, trials: int, seconds: float
) -> dict[str, Any]:
    """Run the grid's first `trials` configurations, and say how long that took.

    x: uint8 (N, 32, 32, 1), y: int64 (N,), of which the sweep itself holds a fifth out.  seconds: killed after so many.
    Raises: RuntimeError with its output where it ends in any other way than with all its trials done.
    """
    with tempfile.TemporaryDirectory() as place:
        root, file, data = Path(place) / "root", Path(place) / "grid.py", Path(place) / "data"
        file.write_text(FILE.format(space=str(SPACE), batch=batch, epochs=epochs))
        data.mkdir()
        test = np.resize(np.arange(10), TEST_IMAGES)
        colored = x.repeat(3, axis=3)  # gray again by the sweep, to the same values
        np.savez(data / "cifar10.npz", x_train=colored, y_train=y, x_test=colored[:TEST_IMAGES], y_test=test)
        command = [sys.executable, "-m", "imgclf_sweep", "run", str(file), "--root", str(root), "--data-dir", str(data)]
        command += ["--backend", "optuna", "--sampler", "grid", "--pruner", "none", "--trials", str(trials)]
        command += ["--trainer", "compiled", "--workers", "1", "--lanes", str(lanes)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=_environment())
        wall = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return {"command": " ".join(command[2:]), "wall": wall, "says": done.stdout.splitlines(), **_found(root)}


def _environment() -> Mapping[str, str]:
    """Ours, but for the tensor library's choice of this process."""
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    parents = [str(SPACE.parent.parent), env.get("PYTHONPATH")]
    return env | {"PYTHONPATH": os.pathsep.join(p for p in parents if p)}


def _found(root: Path) -> dict[str, Any]:
    """trials: how many ended in each state.  values: their best val_accuracy.  training: seconds from the first one's start to
    the last one's end."""
    reader = Reader(SweepDir(root, "grid"))
    trials = reader.trials()
    attempts = [attempt for trial in trials for attempt in reader.attempts(trial.number)]
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.state.value] = counts.get(trial.state.value, 0) + 1
    span = max(a.ended for a in attempts if a.ended is not None) - min(a.started for a in attempts)
    return {
        "trials": counts,
        "attempts": len(attempts),
        "training": span,
        "values": [trial.value for trial in trials if trial.value is not None],
    }
