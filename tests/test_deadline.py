"""Runs that have an end: what is begun, stopped, continued and retrained, through the real command and real workers."""

import json
import re
import signal
import time
from datetime import datetime, timedelta

import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.trial import State

SYNTHETIC = ("--trainer", "synthetic", "--pruner", "none")
FILE = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(filters=Choice([1, 16]), dense_units=Int(4, 64)),
    sampler="random",
    epochs=4,
    trials=300,
    seed=5,
    known=[{"filters": f, "dense_units": 8 + i} for i, f in enumerate([1, 16, 1, 1, 1, 1, 1, 1, 1, 1])],
)
"""


@pytest.fixture
def uneven_file(tmp_path):
    """One trial in two costs sixteen times as much as the other, if an epoch's delay goes by the filters."""
    path = tmp_path / "uneven.py"
    path.write_text(FILE)
    return path


def record(cli, name="little"):
    return Reader(SweepDir(cli.root, name))


def in_seconds(seconds):
    return (datetime.now() + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_a_deadline_ends_a_run_and_nothing_is_trained_in_vain(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--workers", 1)
    cli(*command, "--trials", 2)  # decodes the images
    done = cli(*command, "--trials", 2000, "--deadline", in_seconds(12), synthetic={"delay": 0.2})
    trials = record(cli).trials()
    states = [t.state for t in trials]
    assert 2 < states.count(State.COMPLETE) < 2000 and set(states) <= {State.COMPLETE, State.QUEUED}
    assert "the same command continues" in done.stdout
    waiting = [t for t in trials if t.state is State.QUEUED]
    assert len(waiting) <= 2  # one that was stopped, one that was proposed and did not fit
    for t in waiting:
        assert f"trial {t.number} stopped after epoch" in done.stdout or f"{t.number} not begun" in done.stdout
    limited = record(cli).events("limited")
    assert len(limited) == 1 and limited[0].data["then"] is None


def test_a_trial_too_long_for_any_run_gets_further_in_each_and_ends_as_it_would_have(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 1, "--workers", 1, "--epochs", 24)
    cli(*command, "--name", "whole")
    runs, out = 0, ""
    while "1 of 1 trials done" not in out and runs < 24:
        out = cli(*command, "--timeout", "6s", synthetic={"delay": 0.4}).stdout
        runs += 1
    told = [
        [(t.number, t.params, t.value, t.epochs, dict(t.curve)) for t in record(cli, n).trials()]
        for n in ("whole", "little")
    ]
    assert runs > 1 and told[0] == told[1] and {t.state for t in record(cli).trials()} == {State.COMPLETE}
    stopped = record(cli).attempts(0)[:-1]
    assert stopped and {a.ending for a in stopped} == {"preempted"}
    assert all(a.reason.startswith("no time is left after epoch") and a.reason.endswith("of 24") for a in stopped)


def test_what_costs_too_much_waits_while_the_rest_goes_on(cli, uneven_file):
    """Its record knows what both kinds cost: before the end the short ones are begun and the long ones left."""
    synthetic = {"delay": 0.04, "delay_by": "filters"}
    command = ("run", uneven_file, *SYNTHETIC, "--workers", 1)
    cli(*command, "--trials", 8, synthetic=synthetic)
    done = cli(*command, "--trials", 300, "--timeout", "5s", synthetic=synthetic)
    trials = record(cli, "uneven").trials()
    assert {t.params["filters"] for t in trials[8:] if t.state is State.COMPLETE} >= {1}
    waiting = [t for t in trials if t.state is State.QUEUED]
    assert waiting and {t.params["filters"] for t in waiting if not t.attempts} <= {1, 16}
    assert waiting[0].params["filters"] == 16 and "the same command continues" in done.stdout


def test_no_end_changes_no_decision(cli, digits_file):
    """A run with an end far away proposes, trains and finds what one without an end does."""
    command = ("run", digits_file, "--trainer", "synthetic", "--trials", 15, "--epochs", 6, "--workers", 1)
    cli(*command, "--name", "free")
    cli(*command, "--name", "bound", "--timeout", "9h", "--deadline", in_seconds(86400))
    free, bound = (record(cli, name).trials() for name in ("free", "bound"))
    assert [(t.state, t.params, t.value, dict(t.curve)) for t in free] == [
        (t.state, t.params, t.value, dict(t.curve)) for t in bound
    ]


@pytest.mark.long
def test_hyperband_with_an_end_waits_and_goes_on(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--backend", "keras-tuner", "--sampler", "hyperband", "--epochs", 4)
    command += ("--trials", 200, "--workers", 2)
    whole = cli(*command, "--timeout", "6s", synthetic={"delay": 0.3})
    assert "the same command continues" in whole.stdout
    before = record(cli).trials()
    assert State.RUNNING not in {t.state for t in before}
    cli(*command)
    trials = record(cli).trials()
    assert {t.state for t in trials} == {State.COMPLETE} and len(trials) >= len(before)


def test_status_says_what_is_left_and_until_when(cli, digits_file):
    process = cli.start("run", digits_file, *SYNTHETIC, "--trials", 100, "--timeout", "9h", synthetic={"delay": 0.2})
    try:
        told = None
        until = time.monotonic() + 60
        while time.monotonic() < until and not (told and told["trials"]):
            time.sleep(0.2)
            if (cli.root / "sweeps" / "little" / "sweep.db").exists():
                told = cli.json("status", "little")["time_left"]
        assert 0 < told["trials"][0] <= told["trials"][1] and 0 < told["run"] <= 9 * 3600
        assert " left; 8 h 59 min until " in cli("status", "little").stdout
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert cli.json("status", "little")["time_left"] is None


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--deadline", "25:00"), "neither a time such as 07:00 nor"),
        (("--deadline", "2020-02-02T02:02"), "is in the past"),
        (("--deadline", "soon\x1b[2J"), "neither a time"),
        (("--timeout", "0s"), "is not a duration above 0"),
        (("--then", "publish"), "is not 'retrain'"),
    ],
)
def test_an_end_that_is_none_is_refused_in_a_line(cli, digits_file, option, text):
    refused = cli("run", digits_file, *SYNTHETIC, *option, code=2)
    assert text in refused.stderr and len(refused.stderr.splitlines()) == 1 and "\x1b" not in refused.stderr
    assert not (cli.root / "sweeps").exists()


def test_after_a_signal_nothing_is_retrained(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 30, "--then", "retrain", "--workers", 1)
    process = cli.start(*command, synthetic={"delay": 0.1})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.1)
        if (cli.root / "sweeps" / "little" / "sweep.db").exists() and record(cli).best():
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "retraining" not in out + err
    assert not record(cli).events("test_opened")


def test_after_a_broken_sweep_or_without_a_complete_trial_nothing_is_retrained(cli, digits_file):
    faults = {str(n): ["raise", 1, 9] for n in range(9)}
    broken = cli(
        "run", digits_file, *SYNTHETIC, "--trials", 9, "--then", "retrain", synthetic={"faults": faults}, code=3
    )
    assert "retrain" not in broken.stdout
    faults = {str(n): ["diverge", 1, 9] for n in range(4)}
    command = ("run", digits_file, "--name", "none", *SYNTHETIC, "--trials", 4, "--then", "retrain")
    none = cli(*command, synthetic={"faults": faults}, code=1)
    assert "no trial is complete: there is nothing to retrain" in none.stdout


REAL = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(filters=Fixed(4), dense_units=Choice([8, 16]), learning_rate=Fixed(0.01)),
    sampler="random",
    batch_size=32,
    epochs=2,
    trials=3,
    seed=1,
)
"""


@pytest.mark.slow
def test_then_retrain_ends_with_the_final_score(cli, tmp_path):
    """The end of a run that has no time left but for it, and once only: the same best trial is not retrained again."""
    file = tmp_path / "real.py"
    file.write_text(REAL)
    command = ("run", file, "--trainer", "fit", "--limit-images", 300, "--workers", 1)
    cli(*command, "--trials", 2)
    best = record(cli, "real").best()
    done = cli(*command, "--trials", 3, "--timeout", "30s", "--then", "retrain")
    assert re.search(r"time is up for the search: \d+ s is kept for retraining", done.stdout)
    assert len(record(cli, "real").trials()) == 2
    assert f"retraining trial {best.number} on train+validation: {best.epoch} epochs, 1 seed" in done.stdout
    directory = SweepDir(cli.root, "real")
    assert json.loads((directory.best / "manifest.json").read_text())["trial"] == best.number
    assert "test accuracy" in done.stdout and f"next:  sweep predict {directory.best}" in done.stdout
    assert "sweep retrain real" not in done.stdout
    assert len(record(cli, "real").events("test_opened")) == 1
    again = cli(*command, "--trials", 2, "--then", "retrain")
    assert "already has 2 of 2" in again.stdout and f"trial {best.number} is retrained already" in again.stdout
    assert len(record(cli, "real").events("test_opened")) == 1


@pytest.mark.slow
def test_a_retraining_that_fails_gives_its_exit_code(cli, digits_file):
    """The synthetic trainer leaves no weights to export; what was searched is kept, and the same command tries again."""
    command = ("run", digits_file, *SYNTHETIC, "--trials", 2, "--workers", 1, "--then", "retrain")
    failed = cli(*command, code=1)
    assert "2 of 2 trials done" in failed.stdout and "the retrained model cannot be finished" in failed.stderr
    assert {t.state for t in record(cli).trials()} == {State.COMPLETE}
    assert cli("retrain", "little", code=1).stderr == failed.stderr
