"""Faults of trials and of the user's own file, done to real sweeps through the command line. Where a case is about Keras, Keras
trains. Each name holds the number of its case in the table of docs/reliability.md."""

from __future__ import annotations

import optuna
import pytest
from fault_hooks import hooked
from fault_tools import BOTH, SYNTHETIC, record

from imgclf_sweep.trial import Kind, State

PLAIN = (*SYNTHETIC, "--pruner", "none")

ODD = """
import sys
import keras
import numpy as np
from imgclf_sweep import *

ODD = {
    "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "none": None, "text": "x",
    "numpy": np.float32(0.25), "array": np.array([0.5]), "fine": 0.125,
}
MEMORY = ["tensorflow", "python", "jax"]


class Odd(keras.Sequential):
    # Keras's `fit` takes what `evaluate` returns as the validation metrics of the epoch.
    what, epochs = "fine", 0

    def evaluate(self, *args, **kwargs):
        super().evaluate(*args, **kwargs)
        self.epochs += 1
        if self.what == "missing":
            return {"loss": 0.5}
        if self.what == "jax":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate f32[512,99999]")
        if self.what == "python":
            raise MemoryError("Unable to allocate 9.09 TiB for an array with shape (5000, 250000000)")
        value = 0.75 if self.what == "nan" and self.epochs == 1 else ODD.get(self.what, 0.125)
        return {"loss": 0.5, "accuracy": value}

def build(hp):
    what = hp.Choice("what", ["missing", *ODD, *MEMORY])
    model = Odd([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.what = what if "imgclf_sweep.training.fit" in sys.modules else "fine"  # not while the space is found
    if model.what == "tensorflow":
        import tensorflow as tf
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9999,9999]")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, metrics=["accuracy"])
    return model


sweep = Sweep(dataset=datasets.digits(), model=build, sampler="grid", pruner="none", epochs=2, objective="val_accuracy")
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory, cli_class):
    """One Keras sweep in which each trial is odd in its own way: the record's trials by what was wrong, and what `best` says."""
    place = tmp_path_factory.mktemp("odd")
    (place / "odd.py").write_text(ODD)
    cli = cli_class(place / "root")
    cli("run", place / "odd.py", "--limit-images", 200, "--workers", 1)
    return {t.params["what"]: t for t in record(cli, "odd").trials()}, cli.json("best", "odd")


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_25_a_metric_that_is_nan_stops_the_trial_and_is_not_tried_again(odd):
    trial = odd[0]["nan"]
    assert trial.state is State.FAILED and trial.kind is Kind.DIVERGED and trial.attempts == 1
    assert "val_accuracy is nan in epoch 2" in trial.reason and "0.75 in epoch 1" in trial.reason
    assert trial.curve == {1: 0.75}


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize("what", ["inf", "-inf", "none", "text", "missing"])
def test_case_26_an_objective_that_is_no_number_fails_with_the_reason(odd, what):
    trial = odd[0][what]
    assert trial.state is State.FAILED and trial.attempts == 1 and trial.reason
    assert trial.kind is (Kind.DIVERGED if "inf" in what else Kind.ERROR)


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_26_numbers_in_a_numpy_wrapping_are_numbers(odd):
    trials, best = odd
    assert [trials[what].value for what in ("numpy", "array", "fine")] == [0.25, 0.5, 0.125]
    assert best["params"] == {"what": "array"}


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize(
    ("what", "says"), [("tensorflow", "shape[9999,9999]"), ("python", "shape"), ("jax", "[512,99999]")]
)
def test_case_27_out_of_memory_alone_on_its_device_is_final(odd, what, says):
    trial = odd[0][what]
    assert trial.state is State.FAILED and trial.kind is Kind.OUT_OF_MEMORY and trial.attempts == 1
    assert says in trial.reason


@pytest.mark.fault_slow
def test_case_27_out_of_memory_on_a_shared_device_is_tried_once_more_alone(cli, digits_file):
    synthetic = {"faults": {"1": ["oom", 3, 1], "2": ["oom", 3, 9]}, "delay": 0.3}
    cli("run", digits_file, *PLAIN, "--trials", 8, "--workers", 3, synthetic=synthetic)
    trials = record(cli).trials()
    assert [t.attempts for t in trials] == [1, 2, 2, 1, 1, 1, 1, 1]
    assert [t.state for t in trials if t.number != 2] == [State.COMPLETE] * 7
    assert trials[2].kind is Kind.OUT_OF_MEMORY
    for number in (1, 2):
        alone = record(cli).attempts(number)[1]
        others = [a for t in trials if t.number != number for a in record(cli).attempts(t.number)]
        assert all(a.ended <= alone.started or a.started >= alone.ended for a in others)


@pytest.mark.fault_slow
def test_case_28_a_worker_killed_for_memory_is_told_from_one_that_is_lost(cli, digits_file):
    synthetic = {"faults": {"1": ["memory", 1, 1], "3": ["memory", 1, 9]}}
    command = ("run", digits_file, *PLAIN, "--trials", 5, "--workers", 1)
    cli(*command, synthetic=synthetic, env={"IMGCLF_SWEEP_MEMORY": "300000000"})
    trials = record(cli).trials()
    assert [a.ending for a in record(cli).attempts(1)] == ["out of memory (host)", "COMPLETE"]
    assert trials[3].state is State.FAILED and trials[3].kind is Kind.OOM_HOST and trials[3].attempts == 2
    assert [t.attempts for t in trials] == [1, 2, 1, 2, 1]
    cli(*command, "--name", "lost", synthetic=synthetic)  # the same death, with memory enough
    assert [a.ending for a in record(cli, "lost").attempts(1)] == ["lost", "COMPLETE"]


def test_case_29_a_region_that_always_fails_is_learned(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 80, "--epochs", 1, "--sampler", "tpe", "--workers", 1)
    cli(*command, synthetic={"wall": ["dropout", 0.35]})
    trials = record(cli).trials()
    failed = [t for t in trials if t.state is State.FAILED]
    assert len(trials) == 80 and all(t.params["dropout"] > 0.35 for t in failed)
    assert 0 < len(failed) < 40
    assert max(t.params["dropout"] for t in trials if t.state is State.COMPLETE) > 0.3  # it searches up to the wall


BROKEN = """
import sys
import keras
from imgclf_sweep import *

IN_TRAINING = "imgclf_sweep.training.fit" in sys.modules  # not while the space is found


def helper(units):
    return units + "1"


def build(hp):
    units = hp.Int("units", 4, 64)
    if IN_TRAINING:
        units = helper(units)
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


sweep = Sweep(dataset=datasets.digits(), model=build, epochs=1, trials=9)
"""


@pytest.mark.slow
def test_case_30_the_same_error_three_times_stops_with_one_traceback_of_the_users_lines(cli, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    done = cli("run", file, "--workers", 1, code=3)
    assert done.stderr.count('return units + "1"') == 1 and "line 10, in helper" in done.stderr
    assert "line 16, in build" in done.stderr and "site-packages" not in done.stderr
    assert "every trial fails in the same way: " in done.stderr and "run the same command again" in done.stderr
    trials = record(cli, "broken").trials()
    assert [(t.state, t.kind, t.attempts) for t in trials[:3]] == [(State.FAILED, Kind.BUILD, 1)] * 3
    assert [t.state for t in trials[3:]] == [State.QUEUED]
    file.write_text(BROKEN.replace('units + "1"', "units + 1"))
    again = ("run", file, "--workers", 1, "--trials", 4)
    assert "--allow-change" in cli(*again, code=2).stderr  # another network under the same record
    cli(*again, "--allow-change")
    assert [t.state for t in record(cli, "broken").trials()] == [State.FAILED] * 3 + [State.COMPLETE]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sweep = (\n", "line 1: syntax error"),
        ("x = 1\nimport sys\nsys.exit(3)\n", "line 3: the file exits (3)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "crashed (SIGSEGV)"),
        ("while True: pass\n", "did not end within 4 s"),
    ],
    ids=["syntax error", "exit", "segfault", "endless loop"],
)
def test_case_31_a_file_that_cannot_be_read_is_refused_with_its_line(cold, tmp_path, text, says):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    quick = "from imgclf_sweep import declare\ndeclare.read.__kwdefaults__['file_seconds'] = 4\n"
    done = hooked(cold, quick, "run", file)
    assert done.returncode == 2 and says in done.stderr and "wrong.py" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not cold.root.exists()


@pytest.mark.parametrize("search", BOTH)
def test_case_53_a_sweep_in_which_everything_fails_says_so(cli, digits_file, search):
    command = ("run", digits_file, *PLAIN, *search, "--trials", 4)
    done = cli(*command, synthetic={"faults": {"*": ["diverge", 1, 9]}}, code=1)
    assert "no trial succeeded" in done.stdout + done.stderr
    assert "4 failed" in cli("status", "little").stdout and "val_loss is nan" in cli("trials", "little").stdout
    assert "none" in cli("best", "little").stdout and cli.json("best", "little") is None
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{cli.root}/sweeps/little/optuna.db")
    assert study.n_trials == 4 and study.best_trial is None
    assert (cli.root / "sweeps/little/keras_tuner/oracle.json").exists() == bool(search)
    again = cli(*command, code=1)
    assert "already has 4 of 4" in again.stdout


def test_a_full_disk_under_a_trial_pauses_the_sweep_and_fails_nothing(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 5, "--workers", 2)
    done = cli(*command, synthetic={"faults": {"2": ["full", 2, 1]}, "delay": 0.1}, code=4)
    assert "paused: disk full at /data/sweeps/checkpoint" in done.stderr and "same command" in done.stderr
    states = [t.state for t in record(cli).trials()]
    assert states[2] is State.QUEUED and State.FAILED not in states and State.RUNNING not in states
    cli(*command)
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 5
    assert [a.ending for a in record(cli).attempts(2)] == ["environment", "COMPLETE"]
