"""Trials that go on where they were stopped or killed, through the real command with real worker processes."""

import os
import signal
import time

import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.tracking.columns import OBJECTIVE
from imgclf_sweep.tracking.events import Run
from imgclf_sweep.trial import State

EPOCHS = 10
SYNTHETIC = ("--trainer", "synthetic", "--pruner", "none", "--epochs", EPOCHS)


def record(cli, name="little"):
    return Reader(SweepDir(cli.root, name))


def told(reader):
    """What must be equal in two runs of one sweep: everything but times and attempts."""
    trials = reader.trials()
    return [
        (t.number, t.state, t.params, t.value, t.epoch, t.epochs, dict(t.curve), reader.metrics(t.number))
        for t in trials
    ]


def left(cli, name="little"):
    """The checkpoints that lie about: trial -> file names."""
    places = SweepDir(cli.root, name).checkpoints
    if not places.exists():
        return {}
    found = {p.name: sorted(f.name for f in p.iterdir() if "checkpoint" in f.name) for p in places.iterdir()}
    return {trial: files for trial, files in found.items() if files}


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def running(cli, epochs, name="little"):
    """A trial that is running and has measured at least so many epochs, short of the last two."""
    directory = SweepDir(cli.root, name)
    if not directory.exists():
        return None
    return next(
        (t for t in Reader(directory).trials() if t.state is State.RUNNING and epochs <= t.epochs <= EPOCHS - 3), None
    )


def resumed(cli, name="little"):
    return [e.data for e in record(cli, name).events("resumed")]


def kill_all(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_after_a_signal_the_next_attempt_begins_with_the_next_epoch(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 2, "--workers", 1)
    cli(*command, "--name", "whole")
    process = cli.start(*command, synthetic={"delay": 0.2})
    wait_for(lambda: running(cli, 3))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    stopped = record(cli).trial(0)
    assert stopped.state is State.QUEUED and 3 <= len(stopped.curve) < EPOCHS
    assert left(cli)["0"][-1] == f"epoch-{len(stopped.curve)}.checkpoint"
    out = cli(*command).stdout
    assert f"goes on after epoch {len(stopped.curve)} of {EPOCHS}" in out
    assert resumed(cli) == [{"number": 0, "epoch": len(stopped.curve)}]
    assert told(record(cli)) == told(record(cli, "whole"))
    assert record(cli).trial(0).attempts == 2 and not left(cli) and not left(cli, "whole")
    curve = Run.read(SweepDir(cli.root, "little").logs / "little-0000").curve(OBJECTIVE)
    assert sorted(curve) == list(range(1, EPOCHS + 1))


def test_killed_with_everything_it_loses_at_most_the_epoch_in_progress(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 3, "--workers", 1)
    cli(*command, "--name", "whole")
    for _ in range(3):
        process = cli.start(*command, synthetic={"delay": 0.15})
        before = len(resumed(cli)) if SweepDir(cli.root, "little").exists() else 0
        wait_for(lambda before=before: running(cli, 2) and (before == 0 or len(resumed(cli)) > before))
        trial = wait_for(lambda: running(cli, 2))
        kill_all(process)
        measured = len(record(cli).trial(trial.number).curve)
        process = cli.start(*command, synthetic={"delay": 0.15})
        wait_for(lambda n=trial.number: any(e["number"] == n for e in resumed(cli)))
        wait_for(lambda: running(cli, 1))
        last = [e for e in resumed(cli) if e["number"] == trial.number][-1]
        assert last["epoch"] >= measured
        kill_all(process)
    cli(*command)
    assert told(record(cli)) == told(record(cli, "whole"))
    assert not left(cli)


def test_a_killed_worker_s_trial_goes_on_in_the_next_and_a_torn_checkpoint_costs_one_epoch(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 2, "--workers", 1)
    cli(*command, "--name", "whole")
    cli(*command, synthetic={"faults": {"0": ["kill", 6, 1], "1": ["segv", 4, 1]}})
    assert resumed(cli) == [{"number": 0, "epoch": 5}, {"number": 1, "epoch": 3}]
    assert [t.attempts for t in record(cli).trials()] == [2, 2]
    assert told(record(cli)) == told(record(cli, "whole"))

    process = cli.start(*command, "--name", "torn", synthetic={"delay": 0.2})
    wait_for(lambda: running(cli, 3, "torn"))
    kill_all(process)
    newest = left(cli, "torn")["0"][-1]
    path = SweepDir(cli.root, "torn").checkpoint(0) / newest
    path.write_bytes(path.read_bytes()[:-3])
    out = cli(*command, "--name", "torn").stdout
    epoch = int(newest.split("-")[1].split(".")[0]) - 1
    assert resumed(cli, "torn") == [{"number": 0, "epoch": epoch}] and f"after epoch {epoch}" in out
    assert told(record(cli, "torn")) == told(record(cli, "whole"))


def test_left_overs_of_finished_trials_go_with_the_next_run(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--workers", 1)
    cli(*command, "--trials", 1)
    place = SweepDir(cli.root, "little").checkpoint(0)
    place.mkdir(parents=True, exist_ok=True)
    (place / "epoch-9.checkpoint").write_bytes(b"killed after the commit, before it was removed")
    cli(*command, "--trials", 2)
    assert not left(cli)


def test_real_training_killed_with_everything_ends_with_the_same_numbers(cli, digits_file):
    known = "known=[dict(filters=4, dense_units=16, dropout=0.4, optimizer='adam', batch_norm=True)],"
    digits_file.write_text(digits_file.read_text().replace("epochs=4,", known))
    command = ("run", digits_file, "--trials", 1, "--epochs", EPOCHS, "--workers", 1, "--limit-images", 300)
    command += ("--trainer", "fit")  # the compiled one is done before it can be killed: see training/test_compiled.py
    process = cli.start(*command)
    wait_for(lambda: running(cli, 2), 180)
    kill_all(process)
    cli(*command)
    cli(*command, "--name", "whole")
    assert len(resumed(cli)) == 1 and resumed(cli)[0]["epoch"] >= 2 and not left(cli)
    torn, whole = record(cli), record(cli, "whole")
    for one, other in zip(torn.metrics(0), whole.metrics(0), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    assert torn.trial(0).epochs == whole.trial(0).epochs == EPOCHS
    assert (torn.trial(0).epoch, torn.trial(0).value) == (
        whole.trial(0).epoch,
        pytest.approx(whole.trial(0).value, rel=1e-6),
    )
