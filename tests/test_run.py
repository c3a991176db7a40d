"""The loop, through the real command with real worker processes; the synthetic trainer stands in for training."""

import contextlib
import os
import random
import signal
import time

import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.trial import State

SYNTHETIC = ("--trainer", "synthetic")


def record(cli, name="little"):
    return Reader(SweepDir(cli.root, name))


def told(trials):
    """What must be equal in two runs of one sweep: everything but times and attempts."""
    return [(t.number, t.state, t.params, t.value, t.epoch, t.epochs, t.parent, dict(t.curve)) for t in trials]


def workers_of(pid):
    """Worker processes that a coordinator started and that still live."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    arguments = f.read().split(b"\0")
            except OSError:
                continue
            if b"imgclf_sweep.executors.worker" in arguments and str(pid).encode() in arguments:
                found.append(int(entry))
    return found


def wait_until_dead(pids, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not [p for p in pids if os.path.exists(f"/proc/{p}")]:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("backend", "sampler"), [("optuna", "tpe"), ("optuna", "grid"), ("random", "random"), ("keras-tuner", "bayesian")]
)
def test_a_sweep_runs_to_its_end_and_is_then_done(cli, digits_file, backend, sampler):
    out = cli("run", digits_file, *SYNTHETIC, "--backend", backend, "--sampler", sampler, "--trials", 8).stdout
    trials = record(cli).trials()
    assert [t.number for t in trials] == list(range(8))
    assert {t.state for t in trials} <= {State.COMPLETE, State.PRUNED}
    assert "8 of 8 trials done" in out and "sweep retrain little" in out
    again = cli("run", digits_file, *SYNTHETIC, "--backend", backend, "--sampler", sampler, "--trials", 5)
    assert "already has 8" in again.stdout
    assert len(record(cli).trials()) == 8


def test_more_trials_run_only_the_difference(cli, digits_file):
    cli("run", digits_file, *SYNTHETIC, "--trials", 3)
    before = told(record(cli).trials())
    cli("run", digits_file, *SYNTHETIC, "--trials", 6)
    after = told(record(cli).trials())
    assert after[:3] == before and len(after) == 6


def test_pruning_stops_trials(cli, digits_file):
    cli("run", digits_file, *SYNTHETIC, "--trials", 25, "--epochs", 8)
    trials = record(cli).trials()
    pruned = [t for t in trials if t.state is State.PRUNED]
    assert pruned and all(t.epochs < 8 for t in pruned)
    assert all(t.epochs == 8 for t in trials if t.state is State.COMPLETE)


def test_hyperband_promotes_and_ends_by_itself(cli, digits_file):
    cli(
        "run",
        digits_file,
        *SYNTHETIC,
        "--backend",
        "keras-tuner",
        "--sampler",
        "hyperband",
        "--epochs",
        4,
        "--trials",
        200,
    )
    trials = record(cli).trials()
    assert len(trials) < 200 and all(t.state is State.COMPLETE for t in trials)
    promoted = [t for t in trials if t.parent is not None]
    assert promoted
    for t in promoted:
        parent = trials[t.parent]
        assert parent.params == t.params and t.initial_epoch == parent.initial_epoch + parent.epochs


def test_failures_of_every_kind_leave_the_sweep_going(cli, digits_file):
    faults = {
        "0": ["raise", 1, 9],
        "1": ["diverge", 2, 9],
        "2": ["segv", 1, 9],
        "3": ["exit", 2, 1],
        "4": ["rubbish", 1, 1],
    }
    cli("run", digits_file, *SYNTHETIC, "--trials", 8, "--pruner", "none", synthetic={"faults": faults})
    trials = record(cli).trials()
    assert [t.state for t in trials[:3]] == [State.FAILED] * 3
    assert [str(t.kind) for t in trials[:3]] == ["error", "diverged", "crash"]
    assert "asked to fail" in trials[0].reason and "SIGSEGV" in trials[2].reason
    assert [t.attempts for t in trials[2:6]] == [2, 2, 2, 1]
    assert all(t.state is State.COMPLETE for t in trials[3:])


def test_a_worker_killed_from_outside_loses_only_its_attempt(cli, digits_file):
    faults = {"1": ["kill", 2, 2], "3": ["kill", 1, 9]}
    cli("run", digits_file, *SYNTHETIC, "--trials", 5, "--pruner", "none", synthetic={"faults": faults})
    trials = record(cli).trials()
    assert trials[1].state is State.COMPLETE and trials[1].attempts == 3
    assert trials[3].state is State.FAILED and trials[3].attempts == 3 and "SIGKILL" in trials[3].reason


def test_first_trials_all_failing_alike_stop_the_sweep(cli, digits_file):
    faults = {str(n): ["raise", 1, 9] for n in range(9)}
    done = cli("run", digits_file, *SYNTHETIC, "--trials", 9, synthetic={"faults": faults}, code=3)
    assert "every trial fails in the same way: RuntimeError: asked to fail" in done.stderr
    assert [str(t.state) for t in record(cli).trials()] == ["FAILED"] * 3 + ["QUEUED"]


def test_no_success_is_exit_code_1(cli, digits_file):
    faults = {str(n): ["diverge", 1, 9] for n in range(4)}
    cli("run", digits_file, *SYNTHETIC, "--trials", 4, synthetic={"faults": faults}, code=1)
    assert "none" in cli("best", "little").stdout
    assert cli.json("best", "little") is None


LONG = pytest.mark.long  # importing Keras Tuner, and Keras with it, takes seconds a process
SEARCHES = [
    ("optuna", "tpe"),
    ("optuna", "grid"),
    ("random", "random"),
    pytest.param("keras-tuner", "random", marks=LONG),
]


@pytest.mark.parametrize(("backend", "sampler"), SEARCHES)
def test_killed_at_any_moment_and_continued_it_equals_an_undisturbed_run(cli, digits_file, backend, sampler):
    command = (
        "run",
        digits_file,
        *SYNTHETIC,
        "--backend",
        backend,
        "--sampler",
        sampler,
        "--trials",
        14,
        "--workers",
        1,
    )
    delay = {"delay": 0.06}
    cli(*command, "--name", "whole", synthetic=delay)
    rng = random.Random(f"{backend} {sampler}")
    kills = 0
    for _ in range(4):
        process = cli.start(*command, "--name", "torn", synthetic=delay)
        time.sleep(0.8 + 1.7 * rng.random())
        workers = workers_of(process.pid)
        kills += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert wait_until_dead(workers), "a worker outlived its coordinator"
        if (cli.root / "sweeps" / "torn" / "sweep.db").exists():
            numbers = [t.number for t in record(cli, "torn").trials()]
            assert numbers == list(range(len(numbers)))
    cli(*command, "--name", "torn", synthetic=delay)
    assert kills > 0
    assert told(record(cli, "torn").trials()) == told(record(cli, "whole").trials())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_and_the_same_command_goes_on(cli, digits_file, number):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 6, "--pruner", "none")
    process = cli.start(*command, synthetic={"delay": 0.3})
    wait_for_trials(cli, 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, out + err
    assert "the same command continues" in err and "Traceback" not in err
    states = [t.state for t in record(cli).trials()]
    assert State.RUNNING not in states and State.QUEUED in states
    assert not workers_of(process.pid)
    cli(*command)
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 6
    assert sum(t.attempts for t in trials) == 7


def wait_for_trials(cli, count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (cli.root / "sweeps" / "little" / "sweep.db").exists() and len(record(cli).trials()) >= count:
            return
        time.sleep(0.1)
    raise AssertionError("the sweep does not get going")


def test_a_second_run_is_refused_with_who_holds_it_and_reading_goes_on(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 6)
    process = cli.start(*command, synthetic={"delay": 0.5})
    try:
        wait_for_trials(cli, 1)
        second = cli(*command, code=75)
        assert str(process.pid) in second.stderr
        status = cli.json("status", "little")
        assert status["holder"]["pid"] == process.pid
        assert cli.json("trials", "little")[0]["state"] in {s.value for s in State}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_a_timeout_keeps_what_was_done(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 50, "--pruner", "none")
    done = cli(*command, "--timeout", "2s", synthetic={"delay": 0.1})
    assert "time is up" in done.stdout
    states = [t.state for t in record(cli).trials()]
    assert 0 < states.count(State.COMPLETE) < 50 and State.RUNNING not in states


def test_several_workers_share_the_trials(cli, digits_file):
    cli("run", digits_file, *SYNTHETIC, "--trials", 12, "--workers", 3, "--pruner", "none", synthetic={"delay": 0.05})
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 12
    assert all(t.attempts == 1 for t in trials)


def test_in_this_process_for_debugging(cli, digits_file):
    done = cli("run", digits_file, *SYNTHETIC, "--trials", 3, "--workers", 0)
    assert ", in this process; " in done.stdout
    refused = cli("run", digits_file, *SYNTHETIC, "--trials", 4, "--workers", 0, "--max-trial-time", "1s", code=2)
    assert "--max-trial-time: with --workers 0" in refused.stderr
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 3


def test_a_search_with_nothing_left_to_try_says_so(cli, tmp_path):
    file = tmp_path / "two.py"
    file.write_text(
        "from imgclf_sweep import *\n"
        "sweep = Sweep(dataset=datasets.digits(), space=SearchSpace(filters=Choice([2, 4])), epochs=1)\n"
    )
    done = cli("run", file, *SYNTHETIC, "--backend", "random", "--trials", 8)
    assert "2 of 8 trials done" in done.stdout
    assert f"the search has nothing left to try; next:  sweep retrain two --root {cli.root}  " in done.stdout


def test_a_changed_declaration_is_refused_with_the_difference(cli, digits_file):
    cli("run", digits_file, *SYNTHETIC, "--trials", 2)
    before = (cli.root / "sweeps" / "little" / "sweep.db").read_bytes()
    refused = cli("run", digits_file, *SYNTHETIC, "--trials", 2, "--epochs", 9, code=2)
    assert "epochs: 4 in the record, 9 now" in refused.stderr
    digits_file.write_text(digits_file.read_text().replace("[2, 4, 8]", "[2, 4, 16]"))
    refused = cli("run", digits_file, *SYNTHETIC, "--trials", 2, code=2)
    assert "filters" in refused.stderr
    assert (cli.root / "sweeps" / "little" / "sweep.db").read_bytes() == before


@pytest.mark.parametrize(("backend", "sampler"), [*SEARCHES, pytest.param("keras-tuner", "bayesian", marks=LONG)])
def test_known_configurations_come_first_and_are_resumed_like_any(cli, digits_file, backend, sampler):
    known = "known=[dict(filters=4, dense_units=8, dropout=0.1, optimizer='adam'), dict(filters=[6, 5], epochs=2)],"
    digits_file.write_text(digits_file.read_text().replace("epochs=4,", "epochs=4, " + known))
    command = ("run", digits_file, *SYNTHETIC, "--backend", backend, "--sampler", sampler)
    cli(*command, "--trials", 6, "--name", "whole")
    whole = record(cli, "whole").trials()
    assert whole[0].params == {"filters": 4, "dense_units": 8, "dropout": 0.1, "optimizer": "adam"}
    assert whole[1].params == {"filters": (6, 5)} and whole[1].epochs == 2
    assert whole[1].state is State.COMPLETE and len(whole) == 6
    cli(*command, "--trials", 1, "--name", "cut")
    cli(*command, "--trials", 3, "--name", "cut")
    cli(*command, "--trials", 6, "--name", "cut")
    assert told(record(cli, "cut").trials()) == told(whole)


def test_a_grid_with_known_configurations_runs_both_whole(cli, digits_file):
    text = digits_file.read_text().replace("epochs=4,", "epochs=1, known=[dict(filters=3), dict(filters=5)],")
    text = text.replace("Int(4, 64, step=4)", "4").replace("Float(0.0, 0.5)", "0")
    digits_file.write_text(text)
    cli("run", digits_file, *SYNTHETIC, "--sampler", "grid")
    trials = record(cli).trials()
    assert len(trials) == 2 + 3 * (1 + 2)
    assert len({repr(t.params) for t in trials}) == len(trials)
