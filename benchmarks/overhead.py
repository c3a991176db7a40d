"""What a sweep costs beside its training, as it grows.

    python -m benchmarks.overhead                  all of it: 10,000 trials; about 10 minutes
    python -m benchmarks.overhead --trials 1000 --parts loop verbs

loop       a trainer that returns at once drives --trials trials: our cost a trial, that is, everything of `sweep run` but the
           search library: executing in a worker process, recording, logging, printing; after 1,000 and at the end; memory
samplers   one `ask` by sampler, after 100, 1,000 and 10,000 trials
board      TensorBoard: seconds until it serves every trial of the first 1,000-trial sweep in its HParams table
verbs      seconds of `sweep --help`, and of the reading verbs on those 1,000 trials, whole processes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf_sweep.backends import open_backend
from imgclf_sweep.board import serve
from imgclf_sweep.declare import read
from imgclf_sweep.sweep import Sweep
from imgclf_sweep.trial import Outcome, State, Suggestion

from .machine import machine, machine_line

HERE = Path(__file__).resolve().parent
FILE = HERE / "digits_six.py"
PARTS = ("loop", "samplers", "board", "verbs")
SMALL = 1_000  # trials of the sweep that is read and shown
SAMPLERS = (
    ("random", "random"),
    ("random", "grid"),
    ("optuna", "random"),
    ("optuna", "tpe"),
    ("keras-tuner", "random"),
    ("keras-tuner", "bayesian"),
)
AFTER = (100, 1_000, 10_000)
ASKS = 5  # of which the median counts
PATIENCE = 30.0  # seconds; where one ask takes longer the sampler is not asked at larger sizes


def sweep_of(trials: int, epochs: int, root: Path) -> tuple[dict[str, Any], float]:
    """A real sweep whose trainer returns at once: what `timed_sweep` noted, and the seconds of the whole process."""
    file = root / f"times-{trials}-{epochs}.json"
    options = ["--trainer", "synthetic", "--workers", "1", "--trials", str(trials), "--epochs", str(epochs)]
    command = [sys.executable, "-m", "benchmarks.timed_sweep", str(file), "run", str(FILE), *options]
    began = time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(
            [*command, "--root", str(root), "--name", name_of(trials, epochs)],
            cwd=HERE.parent,
            stdout=nowhere,
            check=True,
        )
    return json.loads(file.read_text()), time.perf_counter() - began


def name_of(trials: int, epochs: int) -> str:
    return f"t{trials}e{epochs}"


def window(times: dict[str, Any], last: int, size: int) -> dict[str, float]:
    """Milliseconds a trial over the `size` trials up to the `last`: ours, of the processor, and the search library's."""
    before, after = times["ends"][max(last - size, 1) - 1], times["ends"][last - 1]
    count = last - max(last - size, 1)
    whole, library, processor = (1000 * (b - a) / max(count, 1) for a, b in zip(before, after, strict=True))
    return {"ours": whole - library, "processor": processor - library, "library": library}


def loop(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for trials, epochs in dict.fromkeys(
        ((min(SMALL, given.trials), 1), (min(SMALL, given.trials), 10), (given.trials, 1))
    ):
        times, seconds = sweep_of(trials, epochs, root)
        size = max(1, min(500, trials // 2))
        place = root / "sweeps" / name_of(trials, epochs)
        row: dict[str, Any] = {"seconds": seconds, "memory": times["memory"], "windows": {}}
        for last in sorted({min(trials, SMALL), trials}):
            row["windows"][last] = window(times, last, size)
        row["after the last trial and before the first"] = seconds - times["ends"][-1][0]
        row["sizes"] = {name: (place / name).stat().st_size for name in ("sweep.db", "optuna.db")}
        row["sizes"]["logs"] = _size(root / "logs" / name_of(trials, epochs))
        row["sizes"]["backups"] = _size(place / "backups")
        found[f"{trials} trials of {epochs}"] = row
        _say_loop(trials, epochs, row)
    return found


def _say_loop(trials: int, epochs: int, row: dict[str, Any]) -> None:
    print(
        f"{trials:,} trials of {epochs} epoch{'' if epochs == 1 else 's'}: {row['seconds']:.1f} s, of them "
        f"{row['after the last trial and before the first']:.1f} s before the first trial and after the last"
    )
    for last, cost in row["windows"].items():
        print(
            f"  at {last:,} trials: {cost['ours']:.2f} ms a trial, {cost['processor']:.2f} of them of the coordinator's "
            f"processor; {cost['library']:.2f} ms in the search library"
        )
    memory = row["memory"]
    if len(memory) > 1:
        print(
            f"  memory of the coordinator: {memory[0] / 1e6:.1f} MB after 100 trials, {memory[-1] / 1e6:.1f} MB at the end"
        )
    print("  on disk: " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in row["sizes"].items()), flush=True)


def _size(folder: Path) -> int:
    """Bytes in all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def samplers(given: argparse.Namespace) -> dict[str, Any]:
    declared, found = read(FILE), {}
    for backend, sampler in SAMPLERS:
        row = asks(declared.replaced(backend=backend, sampler=sampler, epochs=1), given.after)
        found[f"{backend} {sampler}"] = row
        said = ", ".join(f"{size:,} trials: {1000 * seconds:.2f} ms" for size, seconds in row.items())
        print(f"ask, {backend} {sampler}: after {said}", flush=True)
    return found


def asks(sweep: Sweep, after: Sequence[int]) -> dict[int, float]:
    """Seconds of one ask, its state for the record included, after so many told trials, each of one epoch. They are adopted, so
    that getting there costs no proposals."""
    backend, random = open_backend(sweep, [], {}), np.random.default_rng(0)
    number, found = 0, {}
    for size in after:
        while number < size:
            backend.adopt(Suggestion(number, sweep.space.sample(random), 1))
            _tell(backend, number, random)
            number += 1
        backend.state()
        each: list[float] = []
        for _ in range(ASKS):
            began = time.perf_counter()
            asked = backend.ask(number)
            backend.state()
            each.append(time.perf_counter() - began)
            if not isinstance(asked, Suggestion):  # a grid that has come to its end
                return found
            _tell(backend, number, random)
            number += 1
            if sum(each) > PATIENCE:
                break
        found[size] = statistics.median(each)
        if found[size] > PATIENCE / ASKS:
            break
    backend.close()
    return found


def _tell(backend: Any, number: int, random: np.random.Generator) -> None:
    value = float(random.uniform(0.1, 0.9))
    backend.report(number, 1, value)
    backend.tell(number, Outcome(State.COMPLETE, value, 1, 1, 1.0))


def board(trials: int, root: Path) -> dict[str, float]:
    """Start TensorBoard on the logs of the small sweep and ask for the HParams table until every trial is in it."""
    body = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "startIndex": 0, "sliceSize": 10 * trials}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    began = time.perf_counter()
    with serve(root / "logs" / name_of(trials, 1), 0) as server:
        answers = time.perf_counter() - began
        url = f"{server.url}data/plugin/hparams/session_groups"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        while True:
            asked = time.perf_counter()
            with opener.open(request, timeout=120) as answer:
                rows = json.load(answer).get("sessionGroups", [])
            if len(rows) >= trials and all(row.get("metricValues") for row in rows):
                break
            time.sleep(0.2)
    done = time.perf_counter()
    found = {"answers": answers, "complete": done - began, "one request": done - asked}
    print(
        f"TensorBoard on {trials:,} trials: it answers after {answers:.1f} s, its table is complete after "
        f"{found['complete']:.1f} s; one request for the whole table takes {found['one request']:.2f} s",
        flush=True,
    )
    return found


def verbs(trials: int, root: Path) -> dict[str, float]:
    """Seconds from start to end, medians."""
    found = {}
    name = name_of(trials, 1)
    for verb in (["--help"], ["status", name], ["trials", name], ["best", name], ["list"]):
        where = [] if verb == ["--help"] else ["--root", str(root)]
        each = []
        for _ in range(ASKS):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "imgclf_sweep", *verb, *where],
                cwd=HERE.parent,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            each.append(time.perf_counter() - began)
        found[verb[0]] = statistics.median(each)
        print(f"sweep {verb[0]}: {found[verb[0]]:.2f} s ({min(each):.2f} to {max(each):.2f})", flush=True)
    return found


def main() -> None:
    given = _arguments()
    print(machine_line())
    result: dict[str, Any] = {"machine": machine(), "load": os.getloadavg(), "options": vars(given)}
    small = min(SMALL, given.trials)
    with tempfile.TemporaryDirectory(prefix="imgclf-bench-", dir=given.scratch) as folder:
        root = Path(folder)
        if "loop" in given.parts:
            result["loop"] = loop(given, root)
        elif {"board", "verbs"} & set(given.parts):
            sweep_of(small, 1, root)
        if "samplers" in given.parts:
            result["samplers"] = samplers(given)
        if "board" in given.parts:
            result["board"] = board(small, root)
        if "verbs" in given.parts:
            result["verbs"] = verbs(small, root)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1, default=str) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--trials", type=int, default=10_000, help="of the largest sweep")
    add("--after", type=int, nargs="+", default=AFTER, help="samplers: trials told before an ask")
    add("--parts", nargs="+", default=PARTS, choices=PARTS)
    add("--scratch", type=Path, help="where to make a folder for records and logs; the system's by default")
    add("--out", type=Path, help="write everything measured here, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
