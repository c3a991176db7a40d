"""The benchmarks run, do the work that they say, and print what they found. How fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import OURS, Run, Work, ratios, table
from benchmarks.overhead import asks, window
from imgclf_sweep.declare import read

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ratios_are_of_medians_and_against_the_fastest() -> None:
    seconds = {"keras-tuner": (40.0, 30.0, 20.0), "optuna": (25.0, 26.0, 27.0), OURS: (5.0, 10.0, 2.0)}
    found = {name: [Run(each, [0.5, 0.7]) for each in times] for name, times in seconds.items()}
    overall, each = ratios(found, ["keras-tuner", "optuna"])
    assert overall == pytest.approx(26 / 5)
    assert each == pytest.approx([25 / 5, 26 / 10, 20 / 2])
    work = Work(Path("x.py"), read(ROOT / "benchmarks" / "digits_six.py"), 10, None, None, [], {})
    rows = table(work, found)
    assert rows[2].startswith("| keras-tuner | 1,200 (900 to 1,800) | 3.00 | 0.6000 | 6.00 (3.00 to 10.00)")
    assert rows[4].endswith("| 0.50 | 0.6000 |  |")


def test_a_window_tells_ours_from_the_librarys() -> None:
    ends = [(0.1 * n, 0.04 * n, 0.07 * n) for n in range(1, 101)]
    cost = window({"ends": ends}, 100, 50)
    assert cost == pytest.approx({"ours": 60.0, "processor": 30.0, "library": 40.0})


@pytest.mark.parametrize(("backend", "sampler"), [("random", "random"), ("optuna", "tpe"), ("random", "grid")])
def test_asks_are_timed_at_each_size(backend: str, sampler: str) -> None:
    sweep = read(ROOT / "benchmarks" / "digits_six.py").replaced(backend=backend, sampler=sampler, epochs=1)
    found = asks(sweep, (3, 8))
    assert set(found) == {3, 8} and all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
def test_contenders_train_the_network_that_we_train() -> None:
    from benchmarks.contenders import network
    from imgclf_sweep.models.cnn import build_cnn

    params = {"filters": 32, "dense_units": 256, "dropout": 0.3, "optimizer": "rmsprop"}
    params |= {"l1l2": 0.004, "pool_size": 2, "kernel_size": 2}
    theirs = network(params, (8, 8, 1))
    ours = build_cnn(params, (8, 8, 1), 10, "sparse_categorical_crossentropy")
    assert [w.shape for w in theirs.weights] == [w.shape for w in ours.weights]
    kinds = [type(layer).__name__ for layer in ours.layers if type(layer).__name__ != "InputLayer"]
    assert [type(layer).__name__ for layer in theirs.layers] == kinds
    for a, b in zip((*theirs.layers, theirs.optimizer), (*ours.layers[1:], ours.optimizer), strict=True):
        assert _config(a) == _config(b)


def _config(part: Any) -> dict[str, Any]:
    """A layer's or an optimizer's, without its name."""
    return {name: value for name, value in part.get_config().items() if name not in ("name", "dtype")}


@pytest.mark.slow
def test_epochs_are_timed_in_both_trainers() -> None:
    said = run("benchmarks.epochs", "--networks", "digits 16/256/2", "--repeat", "1")
    cells = [cell.strip() for cell in said.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["digits 16/256/2", "1,152 of 8x8x1, 64"]
    assert all(float(cell) > 0 for cell in cells[2:])


@pytest.mark.long
def test_the_comparison_prints_its_table(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    said = run("benchmarks.compare", "digits", "--trials", "2", "--epochs", "1", "--repeat", "1", "--out", str(out))
    assert "ours against the faster of keras-tuner and optuna" in said
    assert all(f"| {name} |" in said for name in ("plain", "keras-tuner", "optuna", "ours"))
    runs = json.loads(out.read_text())["runs"]
    for (run_,) in runs.values():
        assert len(run_["values"]) == 2 and all(0.05 <= value <= 1 for value in run_["values"])


@pytest.mark.long
def test_the_overhead_prints_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    said = run("benchmarks.overhead", "--trials", "12", "--after", "5", "--out", str(out))
    assert "12 trials of 1 epoch:" in said and "ms in the search library" in said
    assert "ask, keras-tuner bayesian: after 5 trials" in said
    assert "TensorBoard on 12 trials" in said and "sweep status:" in said
    found = json.loads(out.read_text())
    assert set(found["verbs"]) == {"--help", "status", "trials", "best", "list"}
    assert found["loop"]["12 trials of 1"]["sizes"]["sweep.db"] > 0
