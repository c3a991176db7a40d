"""What the writer commits, fences and refuses; read back each time from the file."""

from __future__ import annotations

import os
import sqlite3

import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion, Trial

PARAMS = {
    "filters": (16, 32),
    "dropout": 0.25,
    "text": "ä\x00\n'",
    "flag": True,
    "nothing": None,
    "deep": ((1, 2.5), "x"),
}
DONE = Outcome(State.COMPLETE, 0.75, 2, 3, 1.5)


def begun(record: Record, number: int = 0) -> str:
    record.propose(Suggestion(number, {"filters": 16, "dropout": 0.3}, 5))
    return record.start(number, "w0", 123)


def test_a_trial_comes_back_as_it_was_written(directory: SweepDir, opened) -> None:
    with opened() as record:
        record.propose(Suggestion(0, PARAMS, 5))
        record.propose(Suggestion(1, {}, 9, initial_epoch=3, parent=0))
        assert record.trial(0) == Trial(0, State.QUEUED, PARAMS, 5)
        token = record.start(0, "w1", 4711)
        for epoch, value in ((1, 0.5), (2, 0.75), (3, 0.7)):
            assert record.measured(0, token, Measurement(epoch, {"val_accuracy": value, "loss": 1.0 / epoch}, 0.5))
        assert record.trial(0).state is State.RUNNING and record.trial(0).epochs == 3
        assert record.finish(0, token, Outcome(State.COMPLETE, 0.75, 2, 3, 1.5, found={"late": (1, 2)}))
    reader = Reader(directory)
    curve = {1: 0.5, 2: 0.75, 3: 0.7}
    first = Trial(0, State.COMPLETE, PARAMS, 5, 0, None, 0.75, 2, 3, 1.5, None, None, {"late": (1, 2)}, 1, curve)
    assert reader.trials() == [first, Trial(1, State.QUEUED, {}, 9, 3, 0)]
    assert list(reader.trials()[0].params) == list(PARAMS)  # in order
    assert reader.metrics(0) == [{"epoch": e, "val_accuracy": curve[e], "loss": 1.0 / e} for e in (1, 2, 3)]
    (attempt,) = reader.attempts(0)
    assert (attempt.n, attempt.worker, attempt.pid, attempt.ending) == (1, "w1", 4711, "COMPLETE")
    assert attempt.ended >= attempt.started > 0


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        (Outcome(State.PRUNED, 0.5, 1, 1, 0.1, reason="median pruner"), (0.5, 1)),
        (Outcome(State.PRUNED, None, None, 0), (None, None)),
        (Outcome(State.FAILED, 0.5, 1, 1, 0.1, Kind.DIVERGED, "loss is nan in epoch 2"), (None, None)),
    ],
)
def test_only_trials_with_a_result_have_a_value(opened, outcome: Outcome, value: tuple) -> None:
    record = opened()
    record.finish(0, begun(record), outcome)
    trial = record.trial(0)
    assert (trial.state, trial.kind, trial.reason, trial.epochs) == (
        outcome.state,
        outcome.kind,
        outcome.reason,
        outcome.epochs,
    )
    assert (trial.value, trial.epoch) == value
    assert record.best() is None


def test_messages_of_an_attempt_that_is_over_are_dropped_and_noted(opened) -> None:
    record = opened()
    old = begun(record)
    assert record.measured(0, old, Measurement(1, {"val_accuracy": 0.1}, 0.1))
    assert record.requeue(0, old, Kind.LOST, "worker killed by signal 9")
    assert record.trial(0).state is State.QUEUED
    assert not record.finish(0, old, DONE)
    new = record.start(0, "w1", 5)
    assert new != old
    assert not record.measured(0, old, Measurement(2, {"val_accuracy": 0.9}, 0.1))
    assert not record.requeue(0, old, Kind.LOST, "again")
    assert record.measured(0, new, Measurement(1, {"val_accuracy": 0.2}, 0.1))
    assert record.finish(0, new, DONE)
    assert not record.finish(0, new, DONE) and not record.measured(0, new, Measurement(2, {}, 0.1))
    assert not record.measured(77, new, Measurement(1, {}, 0.1))
    trial = record.trial(0)
    assert (trial.attempts, trial.curve, trial.value) == (2, {1: 0.2}, 0.75)
    assert [a.ending for a in record.attempts(0)] == ["lost", "COMPLETE"]
    what = ["outcome", "measurement", "interruption", "outcome", "measurement", "measurement"]
    assert [e.data["what"] for e in record.events("late")] == what
    assert record.events("late")[0].data == {"number": 0, "token": old, "what": "outcome"}


def test_mistakes_of_ours_are_errors_and_change_nothing(opened) -> None:
    record = opened()
    token = begun(record)
    before = record.trials(), record.events()
    nan, inf = float("nan"), float("inf")
    mistakes = [
        lambda: record.propose(Suggestion(0, {}, 5)),
        lambda: record.start(0, "w1", 1),
        lambda: record.start(9, "w1", 1),
        lambda: record.measured(0, token, Measurement(1, {"loss": 1.0, "val_accuracy": nan}, 0.1)),
        lambda: record.finish(0, token, Outcome(State.COMPLETE, nan, 1, 1)),
        lambda: record.finish(0, token, Outcome(State.COMPLETE, -inf, 1, 1)),
        lambda: record.finish(0, token, Outcome(State.COMPLETE, None, None, 0)),
        lambda: record.finish(0, token, Outcome(State.RUNNING)),
        lambda: record.event("x", value=nan),
    ]
    for mistake in mistakes:
        with pytest.raises(ValueError):
            mistake()
    with pytest.raises(sqlite3.IntegrityError):
        record.propose(Suggestion(1, {}, 5, parent=66))
    assert (record.trials(), record.events()) == before
    assert record.measured(0, token, Measurement(1, {"loss": 1.0}, 0.1))
    with pytest.raises(ValueError, match="epoch 1 was measured before"):
        record.measured(0, token, Measurement(1, {"loss": 2.0}, 0.1))
    with pytest.raises(KeyError):
        record.trial(5)


def test_a_transaction_is_all_or_nothing_and_one_inside_joins_it(directory: SweepDir, opened) -> None:
    record, reader = opened(), Reader(directory)
    with record.transaction():
        record.propose(Suggestion(0, {}, 5))
        record.keep_state({"oracle": "{}"})
        with pytest.raises(ZeroDivisionError), record.transaction():
            record.propose(Suggestion(1, {}, 5))
            1 / 0  # noqa: B018
        with record.transaction():
            record.propose(Suggestion(2, {}, 5))
        assert reader.trials() == [] and reader.state() == {}  # nothing before the end
    assert [t.number for t in reader.trials()] == [0, 2] and reader.state() == {"oracle": "{}"}
    with pytest.raises(OSError, match="somebody else's"), record.transaction():
        record.propose(Suggestion(3, {}, 5))
        with record.transaction():
            record.keep_state({"oracle": "[]"})
        raise OSError("somebody else's")  # not about the record: passes as it is
    assert [t.number for t in record.trials()] == [0, 2] and record.state() == {"oracle": "{}"}


def test_outcomes_wait_for_the_disk_and_epochs_do_not(opened) -> None:
    record, seen = opened(), []
    record._connection.set_trace_callback(lambda sql: seen.append((sql, record._durable)))
    token = begun(record)
    record.measured(0, token, Measurement(1, {"val_accuracy": 0.1}, 0.1))
    record.finish(0, token, DONE)
    with record.transaction(durable=False):
        record.propose(Suggestion(1, {}, 5))
        record.keep_state({"oracle": "{}"})
    record.event("test_opened")
    record._connection.set_trace_callback(None)
    settings = [sql for sql, _ in seen if sql.startswith("PRAGMA")]
    assert settings == [f"PRAGMA synchronous = {mode}" for mode in ("NORMAL", "FULL", "NORMAL", "FULL")]
    assert [durable for sql, durable in seen if sql == "COMMIT"] == [True, False, False, True, False, True]
    assert record._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_state_keeps_the_last_entry_of_each_key(opened) -> None:
    record = opened()
    record.keep_state({"oracle": '{"a": 1}', "trial_0": "1"})
    record.keep_state({})
    record.keep_state({"oracle": '{"a": 2}', "trial_1": "2"})
    record.close()
    assert opened().state() == {"oracle": '{"a": 2}', "trial_0": "1", "trial_1": "2"}


def test_events_come_in_order_and_by_kind(opened) -> None:
    record = opened()
    record.event("test_opened", seeds=2, note="ä")
    record.event("other")
    record.event("test_opened", seeds=3)
    assert [e.kind for e in record.events()] == ["opened", "test_opened", "other", "test_opened"]
    first, second = record.events("test_opened")
    assert first.data == {"seeds": 2, "note": "ä"} and second.data == {"seeds": 3} and first.time <= second.time


def test_what_a_dead_owner_had_running_is_queued_again_under_its_number(opened) -> None:
    record = opened()
    record.finish(0, begun(record, 0), DONE)
    tokens = [begun(record, n) for n in (1, 2)]
    record.measured(2, tokens[1], Measurement(1, {"val_accuracy": 0.3}, 0.1))
    record.propose(Suggestion(3, {"filters": (16, 32)}, 5))
    record.close()  # as after kill -9: the rows stay RUNNING
    again = opened()
    states = [(t.number, t.state, t.attempts) for t in again.trials()]
    queued = State.QUEUED
    assert states == [(0, State.COMPLETE, 1), (1, queued, 1), (2, queued, 1), (3, queued, 0)]
    assert again.trial(1).params == {"filters": 16, "dropout": 0.3}
    assert [a.ending for a in again.attempts(1)] == ["lost"] and again.attempts(1)[0].ended is not None
    assert [e.data["number"] for e in again.events("requeued")] == [1, 2]
    assert not again.finish(1, tokens[0], DONE)  # a message from before
    new = again.start(1, "w0", os.getpid())
    assert again.finish(1, new, DONE) and again.trial(1).attempts == 2


def test_the_best_is_a_complete_one_and_the_first_of_equals(opened, sweep) -> None:
    record = opened()
    ends = [
        (State.COMPLETE, 0.5),
        (State.PRUNED, 0.9),
        (State.COMPLETE, 0.7),
        (State.COMPLETE, 0.7),
        (State.FAILED, None),
    ]
    for number, (state, value) in enumerate(ends):
        record.finish(number, begun(record, number), Outcome(state, value, value and 1, 1))
    assert record.best().number == 2
