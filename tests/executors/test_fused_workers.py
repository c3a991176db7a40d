"""Workers that train several jobs side by side: rounds, deaths and limits, driven with the synthetic trainer."""

import json
import os
import random
import signal
import time
from functools import partial

import pytest
from jobs import job

from imgclf_sweep.executors.deaths import explain
from imgclf_sweep.executors.protocol import Ended, Gone, Measured, Resumed
from imgclf_sweep.executors.worker_process import Limits
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.training.protocol import Reply
from imgclf_sweep.trial import Kind, State


@pytest.fixture
def make(make):
    return partial(make, lanes=4)


def turns(executor, busy, reply=lambda event: Reply.GO, seconds=60):
    """What each `wait` returned until nothing runs any more, everything answered.  busy: slots that have a job."""
    found, busy, deadline = [], set(busy), time.monotonic() + seconds
    while busy:
        assert time.monotonic() < deadline, f"{busy} do not end; {found}"
        events = executor.wait(0.2)
        for event in events:
            if isinstance(event, Measured | Resumed):
                executor.reply(event.slot, event.token, reply(event))
            else:
                busy.discard(event.slot)
        if events:
            found.append(events)
    return found


def test_a_worker_has_a_slot_for_each_lane_and_workers_fill_evenly(make):
    assert make(lanes=1, workers=2).slots == ["w0", "w1"]
    executor = make(lanes=3, workers=2)
    assert executor.slots == ["w0.0", "w1.0", "w0.1", "w1.1", "w0.2", "w1.2"]
    assert len({executor.pid(slot) for slot in executor.slots}) == 2
    assert sorted(executor.neighbours("w0.1")) == ["w0.0", "w0.2", "w1.0", "w1.1", "w1.2"]


def test_every_lane_is_heard_in_one_turn_and_ends_are_heard_before_the_next_round(make, tmp_path):
    executor = make(jitter=0.05)
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path, epochs=2 + i % 2))
    found = turns(executor, executor.slots)
    kinds = [[(type(e), e.slot) for e in events] for events in found]
    assert kinds[:2] == [[(Measured, f"w0.{i}") for i in range(4)]] * 2
    assert kinds[2:] == [
        [(Ended, "w0.0"), (Ended, "w0.2")],
        [(Measured, "w0.1"), (Measured, "w0.3")],
        [(Ended, "w0.1"), (Ended, "w0.3")],
    ]


def test_a_lane_is_refilled_while_the_others_go_on(make, tmp_path):
    executor = make(lanes=2)
    executor.start("w0.0", job(0, tmp_path, epochs=1))
    executor.start("w0.1", job(1, tmp_path, epochs=3))
    order, started = [], False
    while len([o for o in order if o[0] is Ended]) < 3:
        for event in executor.wait(0.2):
            order.append((type(event), event.token))
            if isinstance(event, Measured):
                executor.reply(event.slot, event.token, Reply.GO)
            elif not started:
                started = True
                executor.start(event.slot, job(2, tmp_path, epochs=2))
    measured = [token for kind, token in order if kind is Measured]
    assert sorted(measured[:2]) == ["token0", "token1"]
    assert sorted(measured[2:4]) == sorted(measured[4:6]) == ["token1", "token2"]


def test_replies_stop_single_lanes(make, tmp_path):
    executor = make()
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    told = {"w0.1": Reply.PRUNE, "w0.2": Reply.INTERRUPT}
    ended = [
        e
        for events in turns(executor, executor.slots, lambda e: told.get(e.slot, Reply.GO))
        for e in events
        if isinstance(e, Ended)
    ]
    states = {e.slot: e.outcome and (e.outcome.state, e.outcome.epochs) for e in ended}
    assert states == {
        "w0.0": (State.COMPLETE, 3),
        "w0.1": (State.PRUNED, 1),
        "w0.2": None,
        "w0.3": (State.COMPLETE, 3),
    }


def test_an_interrupted_lane_goes_on_from_its_checkpoint(make, tmp_path):
    executor = make()
    executor.start("w0.0", job(0, tmp_path))
    turns(executor, ["w0.0"], lambda e: Reply.INTERRUPT)
    executor.start("w0.3", job(0, tmp_path))
    found = [e for events in turns(executor, ["w0.3"]) for e in events]
    assert [type(e) for e in found] == [Resumed, Measured, Measured, Ended]
    assert [m.epoch for m in found[0].measurements] == [1] and found[1].measurement.epoch == 2


def test_one_failing_lane_leaves_the_others_alone(make, tmp_path):
    executor = make(faults={"1": ["diverge", 2, 9], "2": ["full", 1, 9]})
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    ended = {e.slot: e.outcome for events in turns(executor, executor.slots) for e in events if isinstance(e, Ended)}
    assert [ended[f"w0.{i}"].kind for i in range(4)] == [None, Kind.DIVERGED, Kind.ENVIRONMENT, None]
    assert ended["w0.0"].epochs == ended["w0.3"].epochs == 3


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [("kill", Kind.LOST, "SIGKILL"), ("segv", Kind.LOST, "SIGSEGV; it had 4 trials"), ("exit", Kind.LOST, "status 7")],
)
def test_a_worker_that_dies_loses_all_its_jobs_without_blame(make, tmp_path, fault, kind, says):
    executor = make(faults={"2": [fault, 2, 1]})
    first = executor.pid("w0.0")
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    gone = [e for events in turns(executor, executor.slots) for e in events if isinstance(e, Gone)]
    assert [e.slot for e in gone] == list(executor.slots)
    assert all(e.kind is kind and says in e.reason for e in gone)
    assert executor.pid("w0.3") != first
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    ended = [e for events in turns(executor, executor.slots) for e in events if isinstance(e, Ended)]
    assert [e.outcome.state for e in ended] == [State.COMPLETE] * 4


def test_a_death_with_one_job_is_that_jobs(make, tmp_path):
    executor = make(faults={"0": ["segv", 1, 1]})
    executor.start("w0.2", job(0, tmp_path))
    (gone,) = [e for events in turns(executor, ["w0.2"]) for e in events]
    assert gone.kind is Kind.CRASH and gone.slot == "w0.2"


def test_a_job_that_takes_too_long_is_stopped_between_epochs_and_the_others_go_on(make, tmp_path):
    executor = make(delay=0.4, limits=Limits(trial=1.0, silence=None))
    executor.start("w0.0", job(0, tmp_path, epochs=50))
    pid, ends, second = executor.pid("w0.0"), {}, False
    deadline = time.monotonic() + 60
    while len(ends) < 2 and time.monotonic() < deadline:
        for event in executor.wait(0.1):
            if isinstance(event, Measured):
                executor.reply(event.slot, event.token, Reply.GO)
            else:
                ends[event.slot] = event
            if isinstance(event, Measured) and not second and event.measurement.epoch == 2:
                executor.start("w0.1", job(1, tmp_path, epochs=2))
                second = True
    assert isinstance(ends["w0.0"], Gone) and ends["w0.0"].kind is Kind.TIMEOUT
    assert "--max-trial-time" in ends["w0.0"].reason
    assert isinstance(ends["w0.1"], Ended) and ends["w0.1"].outcome.state is State.COMPLETE
    assert executor.pid("w0.0") == pid


def test_a_job_that_hangs_ends_its_worker_and_only_it_is_blamed(make, tmp_path):
    executor = make(faults={"0": ["hang", 1, 1]}, limits=Limits(trial=3.0, silence=None))
    executor.start("w0.0", job(0, tmp_path))
    while executor._workers["w0"].our_turn or not executor._workers["w0"].ready:
        executor.wait(0.05)
    late = time.monotonic() + 4.5
    while time.monotonic() < late:
        assert executor.wait(0.1) == []
    executor.start("w0.1", job(1, tmp_path))
    gone = {e.slot: e for events in turns(executor, ["w0.0", "w0.1"]) for e in events}
    assert {slot: e.kind for slot, e in gone.items()} == {"w0.0": Kind.TIMEOUT, "w0.1": Kind.PREEMPTED}
    assert "another trial" in gone["w0.1"].reason


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_answer_to_a_dead_worker_does_not_reach_its_replacement(make, tmp_path, lanes):
    executor = make(lanes=lanes)
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    heard, worker = [], executor._workers["w0"]
    while not heard and (not worker.ready or (lanes > 1 and worker.our_turn)):
        heard += executor.wait(0.01)
    time.sleep(1)  # it measures and waits for our answer
    os.kill(worker.pid, signal.SIGKILL)
    while sum(isinstance(e, Gone) for e in heard) < lanes:
        heard += executor.wait(0.2)
    measured = [e for e in heard if isinstance(e, Measured)]
    assert len(measured) == lanes
    for event in measured:
        executor.reply(event.slot, event.token, Reply.GO)
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(10 + i, tmp_path))
    ended = [e for events in turns(executor, executor.slots) for e in events if not isinstance(e, Measured)]
    assert {type(e) for e in ended} == {Ended} and len(ended) == lanes


def test_killed_from_outside_it_is_replaced_with_nothing_left_behind(make, tmp_path):
    executor = make(delay=30)
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    executor.wait(1)
    pid = executor.pid("w0.0")
    os.kill(pid, signal.SIGKILL)
    gone = [e for events in turns(executor, executor.slots) for e in events]
    assert {e.kind for e in gone} == {Kind.LOST} and len(gone) == 4
    assert not os.path.exists(f"/proc/{pid}")


# -- in a real sweep ---------------------------------------------------------------------------------------------------

LANES = ("--trainer", "synthetic", "--workers", 1, "--lanes", 4)


def told(cli, name):
    """Everything of a sweep's trials but times: proposals, numbers, ends."""
    trials = Reader(SweepDir(cli.root, name)).trials()
    return [(t.number, t.state, t.params, t.value, t.epoch, t.epochs, t.parent, dict(t.curve)) for t in trials]


@pytest.mark.parametrize(
    ("backend", "sampler"), [("optuna", "tpe"), ("random", "random"), ("keras-tuner", "hyperband"), ("optuna", "grid")]
)
def test_one_workers_sweep_is_the_same_again_whatever_takes_how_long(cli, digits_file, backend, sampler):
    command = ("run", digits_file, *LANES, "--backend", backend, "--sampler", sampler, "--trials", 18, "--seed", 5)
    for name, jitter in (("one", 0.0), ("two", 0.1), ("three", 0.05)):
        cli(*command, "--name", name, synthetic={"jitter": jitter})
    first = told(cli, "one")
    assert len(first) >= 10 and told(cli, "two") == first == told(cli, "three")


def test_asked_at_once_the_search_still_prunes_and_proposes_different_trials(cli, digits_file):
    cli("run", digits_file, *LANES, "--trials", 24, "--epochs", 8)
    trials = Reader(SweepDir(cli.root, "little")).trials()
    assert {t.state for t in trials} == {State.COMPLETE, State.PRUNED}
    assert len({json.dumps(dict(t.params)) for t in trials}) == 24


def test_a_worker_killed_with_four_trials_loses_none_of_them(cli, digits_file):
    faults = {"2": ["kill", 2, 1], "7": ["segv", 3, 1]}
    cli("run", digits_file, *LANES, "--trials", 10, "--pruner", "none", synthetic={"faults": faults})
    trials = Reader(SweepDir(cli.root, "little")).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 10
    assert {t.attempts for t in trials[:4]} == {2} and trials[7].attempts == 2


def test_a_trial_that_kills_its_worker_every_time_takes_no_other_with_it(cli, digits_file):
    cli("run", digits_file, *LANES, "--trials", 8, "--pruner", "none", synthetic={"faults": {"1": ["exit", 2, 99]}})
    trials = Reader(SweepDir(cli.root, "little")).trials()
    assert [t.state for t in trials] == [State.COMPLETE, State.FAILED, *[State.COMPLETE] * 6]
    assert trials[1].kind is Kind.CRASH and "status 7" in trials[1].reason


def test_killed_as_a_whole_it_goes_on_to_the_same_end(cli, digits_file):
    command = ("run", digits_file, *LANES, "--backend", "random", "--sampler", "random", "--trials", 14)
    cli(*command, "--name", "whole")
    rng = random.Random(1)
    for _ in range(3):
        process = cli.start(*command, "--name", "torn", synthetic={"delay": 0.15})
        time.sleep(1 + 2 * rng.random())
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    cli(*command, "--name", "torn")
    assert told(cli, "torn") == told(cli, "whole")
    assert any(t.attempts > 1 for t in Reader(SweepDir(cli.root, "torn")).trials())


def test_a_signal_stops_every_lane_at_its_epochs_end(cli, digits_file):
    command = ("run", digits_file, *LANES, "--trials", 8, "--pruner", "none")
    process = cli.start(*command, synthetic={"delay": 0.5})
    deadline = time.monotonic() + 60
    while not (cli.root / "sweeps" / "little" / "sweep.db").exists() or len(told(cli, "little")) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert {t[1] for t in told(cli, "little")} == {State.QUEUED}
    cli(*command)
    assert [t[1] for t in told(cli, "little")] == [State.COMPLETE] * 8


def test_several_lanes_are_refused_where_only_one_can_be(cli, digits_file):
    refused = cli("run", digits_file, "--lanes", 4, "--trainer", "fit", code=2)
    assert "--lanes 4: only the compiled trainer" in refused.stderr
    refused = cli("run", digits_file, "--lanes", 4, "--trainer", "synthetic", "--workers", 0, code=2)
    assert "--lanes 4: with --workers 0" in refused.stderr
    assert not (cli.root / "sweeps" / "little").exists()


def test_a_death_from_outside_and_one_from_within_are_told_apart():
    assert explain(-signal.SIGSEGV, 0, False)[0] is Kind.CRASH and explain(3, 0, True)[0] is Kind.CRASH
    assert explain(-signal.SIGKILL, 0, True)[0] is Kind.OOM_HOST
    assert explain(-signal.SIGTERM, 0, True)[0] is Kind.LOST
