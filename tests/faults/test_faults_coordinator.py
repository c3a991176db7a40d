"""Faults of the coordinator, done to real sweeps through the command line; the synthetic trainer stands in for training.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
from fault_hooks import gone, hooked, workers_of
from fault_tools import (
    BOTH,
    SYNTHETIC,
    endings,
    finished,
    kill,
    record,
    running,
    some,
    states,
    told,
    trains,
    wait_until,
)

from imgclf_sweep.backends import open_backend
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record
from imgclf_sweep.sweep import SEARCH
from imgclf_sweep.trial import Measurement, Outcome, State, Suggestion

PLAIN = (*SYNTHETIC, "--pruner", "none")


@pytest.mark.parametrize("search", BOTH)
def test_case_01_a_killed_coordinator_loses_no_finished_trial_and_leaves_no_worker(cli, digits_file, search):
    command = ("run", digits_file, *PLAIN, *search, "--trials", 10, "--workers", 1)
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 3))
        kill(process)
        assert gone(lambda: workers_of(process.pid))
    before = record(cli).trials()
    cli(*command)
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 10
    assert told(trials)[:3] == told(before)[:3] and trials[3].params == before[3].params
    assert [len(endings(cli, n)) for n in range(10)] == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    assert endings(cli, 3) == ["lost", "COMPLETE"]


KILL_BEFORE_START = """
from imgclf_sweep.run import Loop
start = Loop._start
Loop._start = lambda self, slot, suggestion, alone: (suggestion.number == 2 and die()) or start(self, slot, suggestion, alone)
"""


@pytest.mark.parametrize("search", BOTH)
def test_case_02_killed_between_proposal_and_start_the_trial_runs_once(cli, digits_file, search):
    command = ("run", digits_file, *PLAIN, *search, "--trials", 4, "--workers", 1)
    assert hooked(cli, KILL_BEFORE_START, *command).returncode == -signal.SIGKILL
    proposed = record(cli).trials()[2]
    assert proposed.state is State.QUEUED and proposed.attempts == 0
    cli(*command)
    assert record(cli).trials()[2].params == proposed.params
    assert [endings(cli, n) for n in range(4)] == [["COMPLETE"]] * 4


KILL_AT_RESULT = """
from imgclf_sweep.record.write import Record
finish = Record.finish
def kill(self, number, token, outcome):
    if number == {number} and {early}: die()
    kept = finish(self, number, token, outcome)
    if number == {number}: die()
    return kept
Record.finish = kill
"""


@pytest.mark.parametrize("search", BOTH)
@pytest.mark.parametrize(
    "early",
    [True, pytest.param(False, marks=pytest.mark.fault_slow)],
    ids=["before it is written", "written but not committed"],
)
def test_case_03_killed_with_a_result_in_hand_exactly_one_counts(cli, digits_file, early, search):
    command = ("run", digits_file, *PLAIN, *search, "--trials", 4, "--workers", 1)
    assert hooked(cli, KILL_AT_RESULT.format(number=2, early=early), *command).returncode == -signal.SIGKILL
    assert states(cli) == [State.COMPLETE, State.COMPLETE, State.RUNNING, State.QUEUED]
    cli(*command)
    assert endings(cli, 2) == ["lost", "COMPLETE"]
    assert states(cli) == [State.COMPLETE] * 4


FINITE = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(
        filters=Choice([2, 4, 8]),
        dense_units=Int(4, 64, step=4),
        optimizer=Choice(["adam", "sgd"]),
        momentum=Choice([0.5, 0.9], when={"optimizer": "sgd"}),
    ),
    epochs=9,
)
"""
SEARCHES = [f"{backend} {sampler}" for backend, (samplers, _) in SEARCH.items() for sampler in samplers]


@pytest.mark.parametrize("search", some(SEARCHES, "optuna tpe"))
def test_case_08_killed_at_17_of_40_it_proposes_what_an_undisturbed_sweep_does(cli, tmp_path, search):
    file, (backend, sampler) = tmp_path / "little.py", search.split()
    file.write_text(FINITE)
    command = (
        "run",
        file,
        *PLAIN,
        "--backend",
        backend,
        "--sampler",
        sampler,
        "--seed",
        0,
        "--trials",
        40,
        "--workers",
        1,
    )
    assert hooked(cli, KILL_AT_RESULT.format(number=17, early=True), *command).returncode == -signal.SIGKILL
    assert states(cli)[:18] == [State.COMPLETE] * 17 + [State.RUNNING]
    cli(*command)
    cli(*command, "--name", "whole")
    whole = record(cli, "whole").trials()
    assert len(whole) == 40 or (sampler == "hyperband" and len(whole) > 20)  # its brackets have no more
    assert len({repr(t.params) for t in whole}) > 10
    assert told(record(cli).trials()) == told(whole)


@pytest.mark.fault_slow
def test_case_09_a_suspended_coordinator_fails_nobody(cli, digits_file):
    command = (
        "run",
        digits_file,
        *PLAIN,
        "--trials",
        6,
        "--workers",
        2,
        "--stall-timeout",
        "1s",
        "--max-trial-time",
        "4s",
    )
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 1))
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err
    assert [endings(cli, n) for n in range(6)] == [["COMPLETE"]] * 6


@pytest.mark.fault_slow
def test_case_13_two_signals_stop_at_once(cli, digits_file):
    with running(cli, "run", digits_file, *PLAIN, "--trials", 4, "--workers", 2, synthetic={"delay": 20}) as process:
        wait_until(lambda: (cli.root / "sweeps/little/sweep.db").exists() and states(cli).count(State.RUNNING) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert gone(lambda: workers_of(process.pid))
    assert set(states(cli)) == {State.QUEUED}
    cli("run", digits_file, *PLAIN, "--trials", 4)
    assert states(cli) == [State.COMPLETE] * 4


def test_case_17_the_lock_of_a_killed_owner_is_free_at_once(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4)
    with running(cli, *command, synthetic={"delay": 0.3}) as first:
        wait_until(lambda: finished(cli) >= 1)
        kill(first)
        with running(cli, *command) as second:
            assert second.communicate(timeout=60) and second.returncode == 0
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 4 and trials[0].attempts == 1


TURN_BACK = """
import time
from imgclf_sweep.record.write import Record
real, back, start = time.time, [], Record.start
time.time = lambda: real() - 3600 * len(back)
def turn(self, number, *rest):
    if number == 3: back.append(True)
    return start(self, number, *rest)
Record.start = turn
"""


@pytest.mark.fault_slow
def test_case_45_a_clock_set_back_changes_nothing(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 6, "--workers", 1, "--stall-timeout", "4s", "--timeout", "60s")
    done = hooked(cli, TURN_BACK, *command, synthetic={"delay": 0.2})
    assert done.returncode == 0, done.stderr
    assert [endings(cli, n) for n in range(6)] == [["COMPLETE"]] * 6
    assert all(t.seconds >= 0 for t in record(cli).trials())
    began = [record(cli).attempts(n)[0].started for n in range(6)]
    assert began[-1] < began[0]  # it did go back in the middle


def test_case_47_a_reader_that_leaves_stops_nothing_or_leaves_it_resumable(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 5, "--workers", 1)
    process = cli.start(*command, synthetic={"delay": 0.1})
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert "BrokenPipeError" not in err and "Traceback" not in err
    assert gone(lambda: workers_of(process.pid))
    cli(*command)
    assert states(cli) == [State.COMPLETE] * 5


def test_case_47_nohup_keeps_it_going_when_the_terminal_closes(cli, digits_file):
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}  # what nohup does
    with running(cli, "run", digits_file, *PLAIN, "--trials", 3, synthetic={"delay": 0.2}, **ignored) as process:
        wait_until(lambda: trains(cli, 0))
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert states(cli) == [State.COMPLETE] * 3


@pytest.mark.fault_slow
def test_case_47_a_closed_terminal_stops_it_resumable(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4, "--workers", 1)
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 0))
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 128 + signal.SIGHUP
    assert State.RUNNING not in states(cli)
    cli(*command)
    assert states(cli) == [State.COMPLETE] * 4


def test_case_47_a_dumb_terminal_and_no_locale_are_enough(cli, digits_file):
    plain = {"TERM": "dumb", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = cli("run", digits_file, *PLAIN, "--trials", 3, env=plain, stdin=subprocess.DEVNULL)
    assert "3 of 3 trials done" in done.stdout and done.stdout.isascii()


FIVE_THOUSAND = 5000


@pytest.mark.fault_slow
@pytest.mark.parametrize("search", ["tpe", "keras-tuner"])
def test_case_54_five_thousand_trials_are_continued(cli, digits_file, search):
    options = ("--backend", "keras-tuner", "--sampler", "random") if search == "keras-tuner" else ()
    command = ("run", digits_file, *SYNTHETIC, *options, "--workers", 1, "--trials")
    cli(*command, 1)
    with Record.reopen(SweepDir(cli.root, "little")) as writer, writer.transaction():
        history = writer.trials()
        oracle = open_backend(writer.sweep, history, writer.state()) if options else None
        chance = random.Random(1)
        for number in range(1, FIVE_THOUSAND):
            params = {"filters": 4, "dense_units": 8, "dropout": chance.random() / 2, "optimizer": "adam"}
            suggestion = oracle.ask(number) if oracle else Suggestion(number, params, 4)
            writer.propose(suggestion)
            token = writer.start(number, "w0", 1)
            outcome = Outcome(State.COMPLETE, chance.random(), 4, 4, 0.4)
            for epoch in range(1, 5):
                writer.measured(number, token, Measurement(epoch, {"val_accuracy": outcome.value}, 0.1))
            writer.finish(number, token, outcome)
            if oracle:  # its own state cannot be made anew from the record, as a study can
                oracle.tell(number, outcome)
        if oracle:
            writer.keep_state(oracle.state())
    with running(cli, *command, FIVE_THOUSAND + 1):
        wait_until(lambda: finished(cli) > FIVE_THOUSAND, 120)  # its exports take longer, and are not waited for
    trials = record(cli).trials()
    assert len(trials) == FIVE_THOUSAND + 1 and trials[-1].state.finished
    assert cli.json("status", "little")["trials"] == FIVE_THOUSAND + 1
