"""Trials an hour, side by side: a plain Keras loop, Keras Tuner, Optuna with Keras, and `sweep run`.

    python -m benchmarks.compare digits --trials 30 --repeat 3       the six knobs of cifar_gray on digits, 10 epochs
    python -m benchmarks.compare digits --trials 100 --repeat 3
    python -m benchmarks.compare gray --repeat 3                     gray CIFAR-10, 10,000 images, from IMGCLF_SWEEP_DATA

Everybody trains the same configurations (drawn by our random sampler, its seed the sweep's) on the same images for the same
epochs and batch size, validates after each epoch and writes TensorBoard logs. A time is that of one fresh process from its start
to its end: imports, compilation, training, logs. Ours starts in an empty directory, so that it decodes the images as well; the
others are handed them decoded. Rounds are interleaved, each beginning with another contender.

Each ratio is of the medians; in brackets the smallest and largest of one round. --out keeps all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgclf_sweep.backends import open_backend
from imgclf_sweep.data.cache import prepare
from imgclf_sweep.data.split import parts
from imgclf_sweep.declare import read
from imgclf_sweep.parameters import Float, Parameter
from imgclf_sweep.sweep import Sweep
from imgclf_sweep.trial import Suggestion

from .machine import machine, machine_line

HERE = Path(__file__).resolve().parent
OURS = "ours"
OTHERS = ("plain", "keras-tuner", "optuna")
RIVALS = ("keras-tuner", "optuna")  # of which the faster counts
WORKLOADS = {"digits": (30, None), "gray": (12, 10_000)}  # name -> trials, images


@dataclass(frozen=True)
class Work:
    """What everybody is given. task: the JSON file that `contenders` reads, without its "out"."""

    file: Path
    sweep: Sweep
    trials: int
    limit_images: int | None
    trainer: str | None
    configurations: list[dict[str, Any]]
    task: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One process from start to end.  values: each trial's best val_accuracy.  trainer: which of ours, where it is ours."""

    seconds: float
    values: list[float]
    trainer: str = "fit"
    said: str = ""


def prepared(given: argparse.Namespace, scratch: Path) -> Work:
    """Read the sweep file, draw the configurations, and put the images where contenders find them."""
    file = HERE / f"{given.workload}_six.py"
    trials, limit = WORKLOADS[given.workload]
    trials, limit = given.trials or trials, given.limit_images or limit
    sweep = read(file).replaced(epochs=given.epochs, trials=trials)
    data = prepare(sweep.dataset, cache=scratch / "cache", data_dir=None, test=sweep.test, seed=sweep.seed, note=print)
    cut = parts(data, sweep.validation, sweep.seed, limit)
    x, y = data.train()
    images = scratch / "images.npz"
    np.savez(images, x=x[cut.train], y=y[cut.train], held_x=x[cut.validation], held_y=y[cut.validation])
    drawn = _drawn(sweep, trials)
    space = {name: _declared(parameter) for name, parameter in sweep.space.items()}
    rest = {"epochs": sweep.epochs, "batch": sweep.batch_size, "space": space}
    task = {"images": str(images), "configurations": drawn, **rest}
    return Work(file, sweep, trials, limit, given.trainer, drawn, task)


def _declared(parameter: Parameter) -> dict[str, Any]:
    """A parameter as `contenders` reads it: its values, or its range."""
    if isinstance(parameter, Float):
        return {"low": parameter.low, "high": parameter.high, "log": parameter.log}
    return {"values": parameter.values()}


def _drawn(sweep: Sweep, trials: int) -> list[dict[str, Any]]:
    """What `sweep run` will propose."""
    backend = open_backend(sweep, [], {})
    asked = [backend.ask(number) for number in range(trials)]
    return [dict(suggestion.params) for suggestion in asked if isinstance(suggestion, Suggestion)]


def run_theirs(name: str, work: Work, place: Path) -> Run:
    place.mkdir()
    file = place / "task.json"
    file.write_text(json.dumps({**work.task, "out": str(place)}))
    seconds, said = _timed([sys.executable, "-m", "benchmarks.contenders", name, str(file)])
    return Run(seconds, json.loads(said.strip().splitlines()[-1]))


def run_ours(work: Work, place: Path) -> Run:
    """`sweep run` as it is typed; then, no longer timed, what its record says is checked against what was asked for."""
    place.mkdir()
    sweep = [sys.executable, "-m", "imgclf_sweep"]
    where = ["--root", str(place)]
    options = ["--trials", work.trials, "--epochs", work.sweep.epochs]
    options += ["--limit-images", work.limit_images] if work.limit_images else []
    options += ["--trainer", work.trainer] if work.trainer else []
    seconds, said = _timed([*sweep, "run", str(work.file), *map(str, options), *where, "--name", "bench"])
    trials = json.loads(_timed([*sweep, "trials", "bench", "--json", *where])[1])
    for trial, params in zip(trials, work.configurations, strict=True):
        if trial["state"] != "COMPLETE" or trial["epochs"] != work.sweep.epochs or trial["params"] != params:
            raise SystemExit(f"ours did not do the same work: {trial}")
    trainer = json.loads((place / "sweeps" / "bench" / "sweep.json").read_text())["trainer"]
    return Run(seconds, [trial["value"] for trial in trials], trainer, said)


def _timed(command: Sequence[str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=HERE.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return time.perf_counter() - began, done.stdout


def rounds(given: argparse.Namespace, work: Work, scratch: Path) -> dict[str, list[Run]]:
    """Each contender once a round."""
    found: dict[str, list[Run]] = {name: [] for name in given.contenders}
    for number in range(given.repeat):
        first = number % len(given.contenders)
        for name in (*given.contenders[first:], *given.contenders[:first]):
            place = scratch / f"{name}-{number}"
            run = run_ours(work, place) if name == OURS else run_theirs(name, work, place)
            found[name].append(run)
            shutil.rmtree(place)
            print(
                f"round {number + 1}, {name} ({run.trainer}): {run.seconds:.1f} s, {_hourly(work, run):,.0f} trials an hour, "
                f"val_accuracy {statistics.fmean(run.values):.4f} on average",
                flush=True,
            )
    return found


def _hourly(work: Work, run: Run) -> float:
    return 3600 * work.trials / run.seconds


def table(work: Work, found: dict[str, list[Run]]) -> list[str]:
    """The rows, as Markdown."""
    rows = ["| | trials an hour (smallest to largest) | s a trial | mean val_accuracy | ours is faster by |"]
    rows.append("|---|---|---|---|---|")
    for name, runs in found.items():
        rates = sorted(_hourly(work, run) for run in runs)
        seconds = statistics.median(run.seconds for run in runs) / work.trials
        value = statistics.fmean(value for run in runs for value in run.values)
        factor = "" if name == OURS or OURS not in found else _factor(found, [name])
        rows.append(
            f"| {name} | {statistics.median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f}) | {seconds:.2f} "
            f"| {value:.4f} | {factor} |"
        )
    return rows


def ratios(found: dict[str, list[Run]], names: Sequence[str]) -> tuple[float, list[float]]:
    """How many times as fast as the fastest of `names` ours is: of the medians, and of each round."""
    ours = [run.seconds for run in found[OURS]]
    theirs = {name: [run.seconds for run in found[name]] for name in names}
    overall = min(map(statistics.median, theirs.values())) / statistics.median(ours)
    return overall, [min(s[i] for s in theirs.values()) / seconds for i, seconds in enumerate(ours)]


def _factor(found: dict[str, list[Run]], names: Sequence[str]) -> str:
    overall, each = ratios(found, names)
    return f"{overall:.2f} ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    given = _arguments()
    print(machine_line(), flush=True)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="imgclf-bench-", dir=given.scratch) as folder:
        work = prepared(given, Path(folder))
        train, held = (len(np.load(work.task["images"])[name]) for name in ("y", "held_y"))
        what = f"{work.trials} trials of {work.sweep.epochs} epochs, {train} + {held} images, batch {work.sweep.batch_size}"
        print(f"{given.workload}: {what}; load before: {before[0]:.1f}", flush=True)
        found = rounds(given, work, Path(folder))
    for row in table(work, found):
        print(row)
    rivals = [name for name in RIVALS if name in found]
    if OURS in found and rivals:
        print(f"ours against the faster of {' and '.join(rivals)}: {_factor(found, rivals)}")
    if given.out:
        result = {"machine": machine(), "load": [before, os.getloadavg()], "workload": what, "options": vars(given)}
        runs = {name: [vars(run) for run in each] for name, each in found.items()}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({**result, "runs": runs}, indent=1, default=str) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("workload", choices=WORKLOADS)
    add("--trials", type=int, help="digits: 30, gray: 12 by default")
    add("--repeat", type=int, default=3, help="rounds")
    add("--epochs", type=int, help="a trial; digits: 10, gray: 5 by default")
    add("--limit-images", type=int, help="gray: 10,000 by default, a fifth of them held out")
    add("--contenders", nargs="+", default=[*OTHERS, OURS], choices=[*OTHERS, OURS])
    add("--trainer", help="given to `sweep run`; left out, it chooses by itself")
    add("--scratch", type=Path, help="where to make a folder for logs and records; the system's by default")
    add("--out", type=Path, help="write everything measured here, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
