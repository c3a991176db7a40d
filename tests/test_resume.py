"""Trials that go on where they were stopped or killed, through the real command with real worker processes."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest

from imgclf_sweep import Objective
from imgclf_sweep.executors.protocol import Ended, Gone, Measured, Resumed
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.run import Loop
from imgclf_sweep.tracking.columns import OBJECTIVE
from imgclf_sweep.tracking.events import Run
from imgclf_sweep.tracking.protocol import Trackers
from imgclf_sweep.training.protocol import Reply
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion

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


class Script:
    """An executor whose events are written down beforehand; it notes what it is answered."""

    slots = ("w0",)

    def __init__(self, *events):
        self.events, self.replies, self.jobs = list(events), [], []

    def start(self, slot, job):
        self.jobs.append(job)

    def pid(self, slot):
        return os.getpid()

    def neighbours(self, slot):
        return ()

    def alone(self, slot):
        pass

    def wait(self, timeout):
        return [replace(self.events.pop(0), token=self.jobs[-1].token)]

    def reply(self, slot, token, reply):
        self.replies.append(reply)

    def close(self):
        pass


class StopsOnce:
    """A search that stops its trial after epoch 2, and says so only when it first hears of that epoch."""

    def __init__(self):
        self.heard = []

    def ask(self, number, worker):
        return Suggestion(number, {}, 4)

    def report(self, number, epoch, value):
        self.heard.append(epoch)
        return epoch == 2 and self.heard.count(2) == 1

    def tell(self, number, outcome):
        self.told = outcome

    def needed(self):
        return set()

    def state(self):
        return {}


def test_what_the_search_said_is_said_again_to_the_attempt_that_did_not_hear_it(tmp_path):
    from imgclf_sweep import Sweep, datasets
    from imgclf_sweep.record.write import Record

    class Data:
        path, fingerprint = tmp_path / "data", "f"

    def epoch(number):
        return Measurement(number, {"val_accuracy": number / 10}, 0.1)

    objective = Objective("val_accuracy", "max")
    sweep = Sweep(dataset=datasets.digits(), objective=objective, epochs=4, trials=1)
    directory = SweepDir(tmp_path, "s")
    events = [
        Measured("w0", "", epoch(1)),
        Measured("w0", "", epoch(2)),
        Gone("w0", "", Kind.LOST, "killed before it heard the answer"),
        Resumed("w0", "", (epoch(1), epoch(2))),
        Ended("w0", "", Outcome(State.PRUNED, 0.2, 2, 2)),
    ]
    executor, backend = Script(*events), StopsOnce()
    with Record.open(directory, sweep, trials=1, limit_images=None, data=Data) as kept:
        Loop(directory, kept, backend, executor, Trackers([]), trials=1).run()
        assert executor.replies == [Reply.GO, Reply.PRUNE, Reply.PRUNE]
        assert kept.trial(0).state is State.PRUNED and dict(kept.trial(0).curve) == {1: 0.1, 2: 0.2}
        assert kept.trial(0).attempts == 2 and json.loads(json.dumps(kept.events("resumed")[0].data))["epoch"] == 2
    assert backend.heard == [1, 2, 1, 2]


def test_a_trial_whose_worker_was_ended_because_of_another_goes_on_however_often(tmp_path):
    from imgclf_sweep import Sweep, datasets
    from imgclf_sweep.record.write import Record

    class Data:
        path, fingerprint = tmp_path / "data", "f"

    class Goes(StopsOnce):
        def report(self, number, epoch, value):
            return False

    def epoch(number):
        return Measurement(number, {"val_accuracy": number / 10}, 0.1)

    objective = Objective("val_accuracy", "max")
    sweep = Sweep(dataset=datasets.digits(), objective=objective, epochs=4, trials=1)
    preempted = Gone("w0", "", Kind.PREEMPTED, "its worker was ended because of another trial in it")
    events = [preempted] * 5 + [Measured("w0", "", epoch(1)), Ended("w0", "", Outcome(State.COMPLETE, 0.1, 1, 1))]
    with Record.open(SweepDir(tmp_path, "s"), sweep, trials=1, limit_images=None, data=Data) as kept:
        Loop(SweepDir(tmp_path, "s"), kept, Goes(), Script(*events), Trackers([]), trials=1).run()
        assert kept.trial(0).state is State.COMPLETE and kept.trial(0).attempts == 6
