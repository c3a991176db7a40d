"""The loop of a sweep by itself: a scripted executor and search, a real record."""

import contextlib
import json
import os
from dataclasses import replace

from imgclf_sweep import Sweep, datasets
from imgclf_sweep.backends.protocol import Wait
from imgclf_sweep.ending import Ending, Stop
from imgclf_sweep.executors.protocol import Ended, Gone, Measured, Resumed
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record
from imgclf_sweep.run import Loop
from imgclf_sweep.sweep import Objective
from imgclf_sweep.tracking.protocol import Trackers
from imgclf_sweep.training.protocol import Reply
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion


class Script:
    """An executor whose events are written down beforehand; it notes what it is handed and answered."""

    slots = ("w0",)

    def __init__(self, events, log):
        self.events, self.log, self.replies, self.jobs = list(events), log, [], []

    def start(self, slot, job):
        self.jobs.append(job)
        self.log.append(f"start {job.suggestion.number}")

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


class Search:
    """Notes what it is asked and told. prunes: whether to stop a trial, by the epochs heard so far."""

    def __init__(self, log, prunes=lambda heard: False, waits=()):
        self.log, self.prunes, self.waits, self.heard = log, prunes, list(waits), []

    def ask(self, number):
        waits = number in self.waits
        self.log.append(f"ask {number}{', wait' if waits else ''}")
        if waits:
            self.waits.remove(number)
            return Wait()
        return Suggestion(number, {}, 4)

    def report(self, number, epoch, value):
        self.heard.append(epoch)
        return self.prunes(self.heard)

    def tell(self, number, outcome):
        self.log.append(f"tell {number}")

    def needed(self):
        return set()

    def state(self):
        return {}


class Data:
    path, fingerprint = "data", "f"


@contextlib.contextmanager
def swept(root, events, trials=1, stop=None, **search):
    """(record, executor, search, log, ending) after a sweep whose one slot does as in `events`."""
    sweep = Sweep(dataset=datasets.digits(), objective=Objective("val_accuracy", "max"), epochs=4, trials=trials)
    directory, log = SweepDir(root, "s"), []
    executor, backend = Script(events, log), Search(log, **search)
    with Record.open(directory, sweep, trials=trials, limit_images=None, data=Data) as record:
        ending = Loop(directory, record, backend, executor, Trackers([]), trials, stop=stop or Stop()).run()
        yield record, executor, backend, log, ending


def epoch(number):
    return Measurement(number, {"val_accuracy": number / 10}, 0.1)


def done(value):
    return Ended("w0", "", Outcome(State.COMPLETE, value, 1, 1))


def test_the_next_trial_is_asked_for_as_soon_as_the_last_slot_is_busy(tmp_path):
    events = [Measured("w0", "", epoch(1)), done(0.1), done(0.2), done(0.3)]
    with swept(tmp_path, events, trials=3) as (record, *_, log, ending):
        assert log == ["ask 0", "start 0", "ask 1", "tell 0", "start 1", "ask 2", "tell 1", "start 2", "tell 2"]
        assert [t.state for t in record.trials()] == [State.COMPLETE] * 3 and ending is Ending.DONE


def test_a_search_that_waits_is_asked_again_only_when_a_slot_is_free(tmp_path):
    events = [Measured("w0", "", epoch(1)), Measured("w0", "", epoch(2)), done(0.2), done(0.1)]
    with swept(tmp_path, events, trials=2, waits=[1]) as (_, _, _, log, _):
        assert log == ["ask 0", "start 0", "ask 1, wait", "tell 0", "ask 1", "start 1", "tell 1"]


def test_what_the_search_said_is_said_again_to_the_attempt_that_did_not_hear_it(tmp_path):
    events = [
        Measured("w0", "", epoch(1)),
        Measured("w0", "", epoch(2)),
        Gone("w0", "", Kind.LOST, "killed before it heard the answer"),
        Resumed("w0", "", (epoch(1), epoch(2))),
        Ended("w0", "", Outcome(State.PRUNED, 0.2, 2, 2)),
    ]

    def once(heard):  # it says so only when it first hears of the epoch
        return heard[-1] == 2 and heard.count(2) == 1

    with swept(tmp_path, events, prunes=once) as (record, executor, search, *_):
        assert executor.replies == [Reply.GO, Reply.PRUNE, Reply.PRUNE]
        assert record.trial(0).state is State.PRUNED and dict(record.trial(0).curve) == {1: 0.1, 2: 0.2}
        assert record.trial(0).attempts == 2 and json.loads(json.dumps(record.events("resumed")[0].data))["epoch"] == 2
        assert search.heard == [1, 2, 1, 2]


def test_a_trial_whose_worker_was_ended_because_of_another_goes_on_however_often(tmp_path):
    preempted = Gone("w0", "", Kind.PREEMPTED, "its worker was ended because of another trial in it")
    events = [preempted] * 5 + [Measured("w0", "", epoch(1)), done(0.1)]
    with swept(tmp_path, events) as (record, *_):
        assert record.trial(0).state is State.COMPLETE and record.trial(0).attempts == 6


def test_told_to_stop_in_its_last_epoch_a_sweep_is_stopped_only_if_trials_are_left(tmp_path):
    for trials, ending in ((1, Ending.DONE), (2, Ending.STOPPED)):
        stop = Stop()

        def told(heard, stop=stop):
            stop.signals += 1  # while the trial is in its last epoch
            return False

        events = [Measured("w0", "", epoch(4)), done(0.4)]
        with swept(tmp_path / str(trials), events, trials, stop, prunes=told) as (record, executor, _, _, ended):
            assert executor.replies == [Reply.GO] and record.trial(0).state is State.COMPLETE
            assert ended is ending
